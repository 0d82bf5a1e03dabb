"""SQLite on a disk that is full: the daemon says so, and goes on when there is room again."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from pyramid.paster import bootstrap

from .application import metadata, note_when
from .deployment import Deployment, deployed_on, wait_for
from .outages import APPLICATION, LIMITS, Book, Pump, check_exactly_once, wait_for_the_end

SMALL = 64 * 1024
"""Bytes. SQLite's log of what is not in the database file yet has to be longer than that: it grows
at its end, and what it has already it can write over on the fullest disk."""


class Place:
    """Where the store lies; ``fill`` lets it grow no more for a process, ``free`` does again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        raise NotImplementedError

    def free(self, pid: int) -> None:
        raise NotImplementedError


class LimitedProcess(Place):
    """Files may not grow beyond SMALL, for the daemon: a limit that anybody can set."""

    def fill(self, pid: int) -> None:
        self._hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL, self._hard))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._hard, self._hard))


class SmallDisk(Place):
    """A file system of its own in memory; another file takes what is left."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._filler = folder / "filler"

    def fill(self, pid: int) -> None:
        with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self, pid: int) -> None:
        self._filler.unlink()


@contextmanager
def limited_process(folder: Path) -> Iterator[Place]:
    yield LimitedProcess(folder)


@contextmanager
def small_disk(folder: Path) -> Iterator[Place]:
    """A disk, where one may be mounted; else the limit, which needs no right."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        yield LimitedProcess(folder)
        return
    try:
        yield SmallDisk(disk)
    finally:
        # Lazily: the daemon of a test that has failed may still be there.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    "disk", [small_disk, pytest.param(limited_process, marks=pytest.mark.outage)]
)
def test_a_full_disk_is_waited_out(
    tmp_path: Path, disk: Callable[[Path], AbstractContextManager[Place]]
) -> None:
    with disk(tmp_path) as place:
        store, broker = place.folder / "store.sqlite", tmp_path / "broker"
        with deployed_on(
            tmp_path, APPLICATION, f"sqlite:///{store}", f"filesystem://{broker}", **LIMITS
        ) as app:
            metadata.create_all(app.engine)
            assert app.run("pscheduler", "--migrate") == 0
            daemon = app.start("pscheduler", name="daemon")
            pid = app.processes[daemon].pid
            log = store.with_name(f"{store.name}-wal")
            gate = tmp_path / "gate"
            id = ask_for_one_that_waits(app, gate)
            with Pump(app, nap_every=0) as pump:
                wait_for("the job to wait", Path(f"{gate}.waits").exists)
                wait_for("the log to grow", lambda: log.exists() and log.stat().st_size > SMALL)
                place.fill(pid)
                gate.touch()
                said = Book(app, daemon)
                said.waits("the lease cannot be renewed")
                wait_a_little(app, daemon)
                assert app.ask(f"SELECT count(*) FROM ran WHERE job = '{id}'") == [(0,)]
                place.free(pid)
                said.waits("the lease is renewed again")
                pump.goes_on()
            wait_for_the_end(app)
            lines = said.own()
            check_exactly_once(app, [id, *pump.asked])
            assert app.stop(daemon) == 0
    away = [line for line in lines if "the lease cannot be renewed" in line]
    assert len(away) == 1
    assert "the database of the store sqlite:///" in away[0]
    assert any(text in away[0] for text in ("disk is full", "disk I/O error"))
    assert len(lines) < 25, "a flood:\n" + "\n".join(lines)


def ask_for_one_that_waits(app: Deployment, gate: Path) -> str:
    with bootstrap(str(app.ini)) as environment:
        scheduler = environment["registry"].scheduler
        return str(scheduler.add_async_job(note_when, args=[0, str(gate)]))


def wait_a_little(app: Deployment, daemon: str) -> None:
    """Let some beats and looks fail; what is logged again and again is logged by then."""
    end = time.monotonic() + 1
    wait_for("a second", lambda: time.monotonic() > end)
    assert app.processes[daemon].poll() is None

"""pscheduler --processes N, spawned, signalled and killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyramid.paster import get_app

from pyramid_durable.scripts import pscheduler

from .application import metadata, nap, note, nothing
from .deployment import Deployment, deployed, is_alive, wait_for

QUICK = {
    "scheduler__heartbeat": "0.3s",
    "scheduler__lease": "1s",
    "scheduler__poll_interval": "0.3s",
    "scheduler__jobstore__default__create": "true",
}
APPLICATION = "tests.processes.application:main"

either_way = pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["spawned", "forked"])

# The application, and what the process that loads it is to do besides.
LOADED = """
import os, threading, time
from pathlib import Path
from sqlalchemy import create_engine, text
from tests.processes import application

def main(global_config, **settings):
    with Path(__file__).with_name("loads.txt").open("a") as lines:
        lines.write(f"{os.getpid()}\\n")
    router = application.main(global_config, **settings)
    scheduler = router.registry.scheduler
    if "application.thread" in settings:
        name = settings["application.thread"]
        threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()
    if "application.starts" in settings:
        scheduler.add_async_job(application.nothing)
        scheduler.start()
    if "application.asks" in settings:
        global engine
        engine = create_engine(settings["sqlalchemy.url"], pool_size=1)
        backend()
        os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
    return router

def backend(seconds=0):
    time.sleep(seconds)
    with engine.connect() as connection:
        return connection.scalar(text("SELECT pg_backend_pid()"))
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of that application, for this process too."""
    (tmp_path / "loaded.py").write_text(LOADED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loaded", raising=False)
    return "loaded:main"


@contextmanager
def supervised(
    folder: Path, *arguments: str, application: str = APPLICATION, **settings: str
) -> Iterator[tuple[Deployment, Any, str]]:
    """An application, its scheduler, and a pscheduler whose two processes are at work."""
    with deployed(folder, application, "postgresql", "redis", **QUICK, **settings) as made:
        metadata.create_all(made.engine)
        scheduler = get_app(str(made.ini)).registry.scheduler
        name = made.start("pscheduler", *arguments, name="supervisor")
        try:
            wait_for("the processes", lambda: made.log(name).count("daemon started") == 2)
            yield made, scheduler, name
        finally:
            scheduler.broker.close()
            scheduler.store.dispose()


def daemons(made: Deployment) -> dict[int, str]:
    """The labels of the daemons that are registered, by their process ids."""
    return dict(made.ask("SELECT pid, label FROM durable_daemon"))


def labels(scheduler: Any, ids: list[str]) -> set[str]:
    """The daemons that run these jobs."""
    return {scheduler.get_job(id).daemon for id in ids}


def is_running(scheduler: Any, id: str) -> bool:
    return bool(scheduler.get_job(id).state == "running")


@either_way
def test_a_killed_child_is_replaced_and_its_job_rescued(preload: list[str], tmp_path: Path) -> None:
    named = {"scheduler__id": "night", "scheduler__processes": "2", "scheduler__threads": "1"}
    with supervised(tmp_path, *preload, **named) as (made, scheduler, name):
        first = daemons(made)
        assert sorted(first.values()) == ["night:1", "night:2"]
        assert made.processes[name].pid not in first
        id = scheduler.add_async_job(nap, args=[1.5])
        wait_for("the start", lambda: is_running(scheduler, id))
        label = scheduler.get_job(id).daemon
        (killed,) = [pid for pid, its in first.items() if its == label]
        os.kill(killed, signal.SIGKILL)
        wait_for("the rescue", lambda: f"job {id}: its daemon is gone" in made.log(name))
        wait_for("a new one", lambda: made.log(name).count("daemon started") == 3)
        wait_for("the end", lambda: scheduler.get_job(id).state == "succeeded")
        assert scheduler.get_job(id).attempt == 1
        wait_for("the dead one to be forgotten", lambda: killed not in daemons(made))
        assert sorted(daemons(made).values()) == ["night:1", "night:2"]
        assert f"(pid {killed}) ended with SIGKILL" in made.log(name)

        # A second signal does not wait for what is running.
        long = scheduler.add_async_job(nap, args=[60.0])
        wait_for("the start", lambda: is_running(scheduler, long))
        made.send(name, signal.SIGTERM)
        wait_for("the first signal", lambda: made.log(name).count("daemon stopping") == 2)
        assert made.stop(name, signal.SIGTERM) == 0
        job = scheduler.get_job(long)
        assert (job.state, job.attempt) == ("scheduled", 0)
        assert daemons(made) == {}
        assert "Traceback" not in made.log(name)


@either_way
def test_sigterm_lets_all_children_finish(preload: list[str], tmp_path: Path) -> None:
    options = ["--processes", "2", "--threads", "1", *preload]
    with supervised(tmp_path, *options) as (made, scheduler, name):
        assert len(set(daemons(made).values())) == 2
        naps = [scheduler.add_async_job(nap, args=[1.0]) for _ in range(2)]
        # One may hold both at first, and gives back what it cannot start.
        wait_for("one on each", lambda: labels(scheduler, naps) == {*daemons(made).values()})
        # As a service manager does that signals all processes: for each child that is one more.
        for pid in daemons(made):
            os.kill(pid, signal.SIGTERM)
        assert made.stop(name) == 0
        assert {scheduler.get_job(id).state for id in naps} == {"succeeded"}
        assert daemons(made) == {}


@either_way
def test_children_do_not_outlive_a_killed_supervisor(preload: list[str], tmp_path: Path) -> None:
    options = ["--processes", "2", "--threads", "1", *preload]
    with supervised(tmp_path, *options) as (made, scheduler, name):
        pids = daemons(made)
        running = scheduler.add_async_job(nap, args=[1.0])
        wait_for("the start", lambda: is_running(scheduler, running))
        assert made.stop(name, signal.SIGKILL) == -signal.SIGKILL
        wait_for("the children to leave", lambda: daemons(made) == {})
        assert scheduler.get_job(running).state == "succeeded"
        wait_for("their processes to end", lambda: not any(map(is_alive, pids)))
        assert made.log(name).count("the supervisor is gone") == 2
        late = scheduler.add_async_job(nothing)
        assert scheduler.get_job(late).state == "scheduled"


def test_a_store_that_cannot_be_reached_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ini = tmp_path / "away.ini"
    ini.write_text(
        f"[app:main]\nuse = call:{APPLICATION}\n"
        "sqlalchemy.url = postgresql+psycopg://postgres@127.0.0.1:9/none\n"
        "scheduler.broker.url = redis://127.0.0.1:9/0\nscheduler.processes = 3\n"
    )
    assert pscheduler.main([str(ini)]) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("pscheduler: ")
    assert "store postgresql+psycopg://postgres@127.0.0.1:9/none" in line


@either_way
def test_a_child_that_cannot_start_ends_the_supervisor(preload: list[str], tmp_path: Path) -> None:
    # Only the child starts a daemon, so only there it is seen that this one cannot be made.
    wrong = {"scheduler__jobstore__default__class": "tests.processes.application.Unmade"}
    with deployed(tmp_path, APPLICATION, "sqlite", "embedded", **QUICK, **wrong) as made:
        name = made.start("pscheduler", "--processes", "2", *preload)
        assert made.processes[name].wait(60) == 1
        log = made.log(name)
        assert "this job store cannot be made" in log
        assert "ended with exit code 1 before it was at work" in log.splitlines()[-1]
        assert "Traceback" not in log


def test_a_preloaded_application_is_loaded_once(tmp_path: Path, loaded: str) -> None:
    loads = tmp_path / "loads.txt"
    options = ["--processes", "2", "--preload"]
    with supervised(tmp_path, *options, application=loaded) as (made, scheduler, name):
        supervisor = made.processes[name].pid
        (killed, _) = first = daemons(made)
        os.kill(killed, signal.SIGKILL)
        wait_for("a new one", lambda: made.log(name).count("daemon started") == 3)
        # Once here, for the test.
        assert [int(pid) for pid in loads.read_text().split()] == [os.getpid(), supervisor]

        # A job that wants a process of its own gets one that loads it for itself.
        id = scheduler.add_async_job(note, args=[1], executor="process")
        wait_for("the job", lambda: scheduler.get_job(id).state == "succeeded")
        assert made.ask("SELECT number, job FROM ran") == [(1, id)]
        assert int(loads.read_text().split()[2]) not in {*first, supervisor, *daemons(made)}
        assert made.stop(name) == 0
        assert "Traceback" not in made.log(name)


def test_connections_of_a_preloaded_application_are_renewed(tmp_path: Path, loaded: str) -> None:
    options = ["--processes", "2", "--threads", "1", "--preload"]
    asks = {"application__asks": "yes"}
    with supervised(tmp_path, *options, application=loaded, **asks) as (_, scheduler, _):
        ids = [scheduler.add_async_job("loaded:backend", args=[1.0]) for _ in range(4)]
        wait_for("all", lambda: {scheduler.get_job(id).state for id in ids} == {"succeeded"})
        jobs = [scheduler.get_job(id) for id in ids]
        # A connection for each daemon.
        assert len({(job.daemon, job.result) for job in jobs}) == 2
        assert len({job.result for job in jobs}) == 2


def test_an_application_with_a_thread_is_not_preloaded(tmp_path: Path, loaded: str) -> None:
    thread = {"application__thread": "metrics"}
    with deployed(tmp_path, loaded, "sqlite", "embedded", **QUICK, **thread) as made:
        name = made.start("pscheduler", "--processes", "2", "--preload")
        assert made.processes[name].wait(60) == 1
        said = made.log(name)
        assert "pscheduler: --preload cannot fork while other threads run: metrics;" in said
        assert "Traceback" not in said
        assert "started" not in said


def test_what_pyramid_durable_has_begun_while_it_was_loaded_is_ended_for_preload(
    tmp_path: Path, loaded: str
) -> None:
    starts = {"application__starts": "yes"}
    with deployed(tmp_path, loaded, "sqlite", "embedded", **QUICK, **starts) as made:
        name = made.start("pscheduler", "--processes", "2", "--preload")
        wait_for("the processes", lambda: made.log(name).count("daemon started") == 3)
        wait_for("the job", lambda: made.ask("SELECT state FROM durable_job") == [("succeeded",)])
        assert made.stop(name) == 0
        assert "Traceback" not in made.log(name)


def test_a_single_process_has_nothing_to_preload(tmp_path: Path) -> None:
    with deployed(tmp_path, APPLICATION, "sqlite", "embedded", **QUICK) as made:
        name = made.start("pscheduler", "--processes", "1", "--preload")
        wait_for("the daemon", lambda: "daemon started" in made.log(name))
        assert list(daemons(made)) == [made.processes[name].pid]
        assert made.stop(name) == 0

"""pscheduler --reload, --restart and --app-name, and Ctrl-C in --once, as processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyramid.paster import get_app

from pyramid_durable.scripts import pscheduler

from .application import nap
from .deployment import Deployment, deployed, wait_for

APPLICATION = "tests.processes.application:main"
QUICK = {"scheduler__poll_interval": "0.1s", "scheduler__shutdown_timeout": "20s"}

CHANGING = """
from tests.processes.application import main  # what the ini names

def version():
    return 1
"""


@contextmanager
def site(folder: Path, application: str = APPLICATION) -> Iterator[tuple[Deployment, Any]]:
    with deployed(folder, application, "sqlite", "embedded", **QUICK) as made:
        scheduler = get_app(str(made.ini)).registry.scheduler
        yield made, scheduler
        scheduler.broker.close()
        scheduler.store.dispose()


def daemon_pid(made: Deployment) -> int:
    ((pid,),) = made.ask("SELECT pid FROM durable_daemon")
    return int(pid)


def test_a_changed_file_starts_it_anew_and_lets_what_runs_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "changing.py"
    module.write_text(CHANGING)
    monkeypatch.syspath_prepend(tmp_path)
    with site(tmp_path, "changing:main") as (made, scheduler):
        name = made.start("pscheduler", "--reload")
        wait_for("the daemon", lambda: made.log(name).count("daemon started") == 1)
        first = scheduler.add_async_job("changing:version")
        wait_for("the old code", lambda: scheduler.get_job(first).result == 1)
        running = scheduler.add_async_job(nap, args=[2.5])
        wait_for("the start", lambda: scheduler.get_job(running).state == "running")
        module.write_text(CHANGING.replace("return 1", "return 1 + 1"))
        # hupper hears of imported files once a second: a change before that is none to it.
        wait_for("its notice", lambda: module.touch() or "changed; reloading" in made.log(name))
        wait_for("the new one", lambda: made.log(name).count("daemon started") == 2)
        job = scheduler.get_job(running)
        assert (job.state, job.attempt) == ("succeeded", 1)
        second = scheduler.add_async_job("changing:version")
        wait_for("the new code", lambda: scheduler.get_job(second).result == 2)

        # Ctrl-C reaches both processes, as the terminal sends it.
        last = scheduler.add_async_job(nap, args=[1.0])
        wait_for("the start", lambda: scheduler.get_job(last).state == "running")
        os.kill(daemon_pid(made), signal.SIGINT)
        assert made.stop(name, signal.SIGINT) == 0
        assert scheduler.get_job(last).state == "succeeded"
        assert made.log(name).count("daemon stopped") == 2


@pytest.mark.parametrize("options", [["--restart"], ["--restart", "--preload"]])
def test_a_daemon_that_dies_is_started_again_where_it_is_asked_for(
    options: list[str], tmp_path: Path
) -> None:
    with site(tmp_path) as (made, _):
        name = made.start("pscheduler", *options)
        wait_for("the daemon", lambda: "daemon started" in made.log(name))
        pid = daemon_pid(made)
        assert pid != made.processes[name].pid
        os.kill(pid, signal.SIGKILL)
        wait_for("the next one", lambda: made.log(name).count("daemon started") == 2)
        assert f"(pid {pid}) ended with SIGKILL" in made.log(name)
        assert made.stop(name) == 0


def test_ctrl_c_ends_once_and_gives_the_job_back(tmp_path: Path) -> None:
    with site(tmp_path) as (made, scheduler):
        ids, names = [], []
        for _ in range(2):
            ids.append(scheduler.add_async_job(nap, args=[60.0]))
            names.append(made.start("pscheduler", "--once", "-i"))
            wait_for("the start", lambda: scheduler.get_job(ids[-1]).state == "running")
        assert made.stop(names[0], signal.SIGINT) == 130
        # What service managers send says the same.
        assert made.stop(names[1], signal.SIGTERM) == 130
        for id, name in zip(ids, names, strict=True):
            job = scheduler.get_job(id)
            assert (job.state, job.attempt, job.errors) == ("scheduled", 0, ())
            assert made.log(name).count("pscheduler: interrupted; the job that was running") == 1
            assert "Traceback" not in made.log(name)
        assert made.ask("SELECT crashes, owner FROM durable_job") == [(0, None)] * 2


def test_another_application_of_the_same_ini(tmp_path: Path) -> None:
    with site(tmp_path) as (made, scheduler):
        ini = made.ini.read_text()
        other = ini.partition("\n[server:main]")[0].replace("[app:main]", "\n[app:other]")
        made.ini.write_text(ini + other + "\nscheduler.jobstore.default.prefix = other_\n")
        app = get_app(f"{made.ini}#other")
        id = app.registry.scheduler.add_async_job(nap, args=[0])
        assert pscheduler.main([str(made.ini), "--app-name", "other", "--once"]) == 0
        job = app.registry.scheduler.get_job(id)
        assert job.state == "succeeded"
        assert scheduler.get_jobs() == []
        app.registry.scheduler.store.dispose()


@pytest.mark.parametrize("what", ["--once", "--migrate", "--check", "--message=hello"])
@pytest.mark.parametrize("option", ["--reload", "--restart", "--preload"])
def test_what_leaves_is_not_started_again(
    what: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        pscheduler.main(["x.ini", what, option])
    assert ended.value.code == 2
    assert "--reload, --restart and --preload are for the daemon" in capsys.readouterr().err


def test_what_is_loaded_anew_is_not_preloaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pscheduler.main(["x.ini", "--reload", "--preload"])
    assert ended.value.code == 2
    assert "--preload forks what is loaded" in capsys.readouterr().err

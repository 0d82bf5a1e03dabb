"""Real uWSGI: it serves the pages, and the daemon is attached to it or runs in its workers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pyramid_durable.store import Store
from tests.services import service_url

from .application import metadata
from .deployment import ROOT, Deployment, deployed, is_alive, wait_for
from .test_deployed_demo import submit

pytest.importorskip("pyuwsgi")

APPLICATION = "tests.processes.application:main"
QUICK = {
    "scheduler__heartbeat": "0.5s",
    "scheduler__poll_interval": "0.3s",
    "scheduler__jobstore__default__create": "true",
}
PSCHEDULER = f"{shlex.quote(sys.executable)} -m pyramid_durable.scripts.pscheduler"

CLIENTS = 6
"""As many at once as two workers need to have something to do."""

DAEMONS = "SELECT pid FROM durable_daemon"
REPORTS = "SELECT count(*) FROM demo_report"
RUNNING = "SELECT id FROM durable_job WHERE state = 'running'"
SUCCEEDED = "SELECT id FROM durable_job WHERE state = 'succeeded'"


def serve(made: Deployment, *lines: str) -> None:
    """Put a [uwsgi] section with these lines into the ini, and start."""
    section = [
        "[uwsgi]",
        "strict = true",
        "master = true",
        "need-app = true",
        "die-on-term = true",
        f"http-socket = 127.0.0.1:{made.port}",
        "processes = 2",
        "threads = 2",
        "enable-threads = true",
        *lines,
    ]
    made.ini.write_text("\n".join(section) + "\n" + made.ini.read_text())
    start(made)


def start(made: Deployment, **variables: str) -> None:
    run = [sys.executable, "-c", "import sys; from pyuwsgi import run; sys.exit(run())"]
    made.spawn("uwsgi", [*run, "--ini-paste-logged", str(made.ini)], **variables)
    wait_for("uWSGI", made.answers)


def stop(made: Deployment, *killed: int) -> None:
    """Stop uWSGI; it ends well, and so does all that it has started, but for what was killed."""
    pids = set(map(int, re.findall(r"spawned uWSGI worker.*\(pid: (\d+)", made.log("uwsgi"))))
    pids |= daemons(made)
    assert made.stop("uwsgi") == 0
    assert not [pid for pid in pids if is_alive(pid)]
    # A daemon that ends well takes leave.
    assert daemons(made) <= {*killed}
    assert "Traceback" not in made.log("uwsgi")


def daemons(made: Deployment) -> set[int]:
    """The processes of the daemons that are registered."""
    return {pid for (pid,) in made.ask(DAEMONS)}


def post(made: Deployment, func: str, number: int = 1) -> str:
    """Have the test's application ask for a job; returns its id."""
    form = urllib.parse.urlencode({"func": func, "number": number}).encode()
    with urllib.request.urlopen(f"{made.url}/ask", form, timeout=20) as answer:
        return str(answer.read().decode())


def start_nap(made: Deployment, seconds: int) -> str:
    """Ask for a job that takes a while, and wait until it runs; returns its id."""
    id = post(made, "nap", seconds)
    wait_for("the start", lambda: len(made.ask(RUNNING)) == 1)
    return id


def succeeded(made: Deployment) -> set[str]:
    return {str(UUID(str(id))) for (id,) in made.ask(SUCCEEDED)}


def noted(made: Deployment) -> list[str]:
    """The jobs that have written down that they ran, once for each time."""
    return sorted(job for (job,) in made.ask("SELECT job FROM ran"))


def ask_several_workers(made: Deployment, path: str, ask: Callable[[], Any]) -> list[Any]:
    """Ask, many at once, until several workers have answered a POST to this path."""
    answers: list[Any] = []
    served = rf"\[pid: (\d+)\|.* POST {path} "

    def enough() -> bool:
        with ThreadPoolExecutor(CLIENTS) as clients:
            asked = [clients.submit(ask) for _ in range(CLIENTS)]
            answers.extend(one.result() for one in asked)
        return len(set(re.findall(served, made.log("uwsgi")))) > 1

    wait_for("several workers", enough)
    return answers


def test_production_ini_serves_the_demo_and_replaces_its_daemon(tmp_path: Path) -> None:
    # As it is shipped, but for the port. The demo is loaded once, and forked.
    script = tmp_path / "pscheduler"
    script.write_text(f'#!/bin/sh\nexec {PSCHEDULER} "$@"\n')
    script.chmod(0o755)
    with deployed(tmp_path, "demo:main", "postgresql", "amqp") as made:
        environ = {
            "DEMO_DATABASE_URL": made.engine.url.render_as_string(hide_password=False),
            "DEMO_BROKER_URL": service_url("amqp"),
            "DEMO_SECRET": "secret",
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        }
        store = Store(environ["DEMO_DATABASE_URL"])
        store.migrate()
        store.dispose()
        shipped = (ROOT / "production.ini").read_text()
        made.ini.write_text(shipped.replace("= :6543", f"= 127.0.0.1:{made.port}"))
        start(made, **environ)

        def report() -> None:
            submit(made, "/reports")

        reports = len(ask_several_workers(made, "/reports", report))
        wait_for("the reports", lambda: made.ask(REPORTS) == [(reports,)])
        (killed,) = daemons(made)
        os.kill(killed, signal.SIGKILL)
        report()
        wait_for("the next report", lambda: made.ask(REPORTS) == [(reports + 1,)])
        assert len(daemons(made) - {killed}) == 1
        stop(made, killed)


def test_an_attached_daemon_may_finish_though_it_is_told_to_stop_every_second(
    tmp_path: Path,
) -> None:
    with deployed(tmp_path, APPLICATION, "sqlite", "embedded", **QUICK) as made:
        metadata.create_all(made.engine)
        serve(
            made,
            "lazy-apps = true",
            f"attach-daemon2 = cmd=exec {PSCHEDULER} %p,stopsignal=1",
            "reload-mercy = 60",
        )
        ids = ask_several_workers(made, "/ask", lambda: post(made, "note"))
        wait_for("the jobs", lambda: succeeded(made) == set(ids))
        assert noted(made) == sorted(ids)
        long = start_nap(made, 3)
        stop(made)
        assert long in succeeded(made)


def test_combined_workers_run_each_job_once(tmp_path: Path) -> None:
    with deployed(
        tmp_path, APPLICATION, "postgresql", "redis", **QUICK, scheduler__combined="true"
    ) as made:
        metadata.create_all(made.engine)
        serve(made)
        ids = ask_several_workers(made, "/ask", lambda: post(made, "note"))
        wait_for("the jobs", lambda: succeeded(made) == set(ids))
        assert noted(made) == sorted(ids)
        assert len(daemons(made)) > 1
        long = start_nap(made, 1)
        stop(made)
        assert long in succeeded(made)

"""Combined mode: who starts the daemon, how often, and who does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from webtest import TestApp

from pyramid_durable.combined import PAUSE, FirstRequest
from pyramid_durable.interfaces import IDaemonFactory
from tests.web.jobs import charge


class Daemon:
    """Stands for the daemon, and counts."""

    started: list[int]
    stopped: list[int]

    def __init__(self, registry: Any) -> None:
        self.aps = object()

    def start(self) -> None:
        self.started.append(os.getpid())

    def shutdown(self) -> None:
        self.stopped.append(os.getpid())


MakeApp = Callable[..., Any]


@pytest.fixture
def daemon() -> type[Daemon]:
    return type("CountingDaemon", (Daemon,), {"started": [], "stopped": []})


@pytest.fixture
def make_app(tmp_path: Path, daemon: type[Daemon]) -> Iterator[MakeApp]:
    def make(**settings: str) -> Any:
        config = Configurator(
            settings={
                "scheduler.jobstore.default.url": f"sqlite:///{tmp_path / 's.sqlite'}",
                "scheduler.broker.url": "memory://",
                "scheduler.combined": "true",
                **settings,
            }
        )
        config.include("pyramid_durable")
        config.add_route("sub", "/sub")
        config.add_view(
            lambda request: request.invoke_subrequest(Request.blank("/")), route_name="sub"
        )
        config.add_view(lambda request: Response("done"))
        app = config.make_wsgi_app()
        app.registry.registerUtility(daemon, IDaemonFactory)
        return app

    return make


def test_the_first_request_starts_it_once(make_app: MakeApp, daemon: type[Daemon]) -> None:
    app = make_app()
    scheduler = app.registry.scheduler
    assert (daemon.started, scheduler.aps) == ([], None)
    for path in ("/", "/sub", "/none"):
        TestApp(app).get(path, status="*")
        assert daemon.started == [os.getpid()]
    assert scheduler.aps is not None
    scheduler.shutdown()
    scheduler.shutdown()
    assert (daemon.stopped, scheduler.aps) == ([os.getpid()], None)


def test_many_first_requests_start_it_once(make_app: MakeApp, daemon: type[Daemon]) -> None:
    app = make_app()
    at_once = threading.Barrier(8)

    def ask() -> None:
        at_once.wait(10)
        TestApp(app).get("/")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert daemon.started == [os.getpid()]


def test_without_the_setting_nothing_starts(make_app: MakeApp, daemon: type[Daemon]) -> None:
    TestApp(make_app(**{"scheduler.combined": "false"})).get("/")
    assert daemon.started == []


def test_an_application_may_start_it_at_once(make_app: MakeApp, daemon: type[Daemon]) -> None:
    app = make_app(**{"scheduler.combined": "false"})
    app.registry.scheduler.start()
    app.registry.scheduler.start()
    assert daemon.started == [os.getpid()]
    TestApp(app).get("/")
    assert daemon.started == [os.getpid()]


STARTS = """
import sys
from pyramid.config import Configurator
from pyramid_durable.interfaces import IDaemonFactory

class Daemon:
    def __init__(self, registry): pass
    def start(self): print("started", end=" ")
    def shutdown(self): print("stopped", end=" ")

settings = {"scheduler.combined": "true", "scheduler.jobstore.default.url": "sqlite://"}
config = Configurator(settings=settings)
config.include("pyramid_durable")
config.registry.registerUtility(Daemon, IDaemonFactory)
for order in sys.argv[1:]:
    getattr(config.registry.scheduler, order)()
"""


@pytest.mark.parametrize(
    ("orders", "seen"),
    [
        (["start"], "started stopped"),
        (["start", "shutdown", "start"], "started stopped started stopped"),
        (["start", "shutdown"], "started stopped"),
        (["shutdown"], ""),
    ],
)
def test_it_stops_with_its_process(orders: list[str], seen: str) -> None:
    command = [sys.executable, "-c", STARTS, *orders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == seen


def test_scripts_do_not_start_it(make_app: MakeApp, daemon: type[Daemon]) -> None:
    app = make_app()
    with prepare(registry=app.registry) as env:  # pshell, pscheduler, pjobs
        env["request"].scheduler.add_async_job(charge)
        app.invoke_subrequest(Request.blank("/"))
        TestApp(app).get("/")
    TestApp(app).get("/", extra_environ={"paste.command_request": True})  # prequest
    assert daemon.started == []
    TestApp(app).get("/")
    assert daemon.started == [os.getpid()]


def test_each_process_starts_its_own(make_app: MakeApp, daemon: type[Daemon]) -> None:
    app = make_app()
    TestApp(app).get("/")
    report, answer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            none_yet = app.registry.scheduler.aps is None
            TestApp(app).get("/")
            TestApp(app).get("/")
            os.write(answer, repr((none_yet, daemon.started[1:] == [os.getpid()])).encode())
        finally:
            os._exit(0)
    os.close(answer)
    with os.fdopen(report) as told:
        assert told.read() == "(True, True)"
    os.waitpid(child, 0)
    assert daemon.started == [os.getpid()]


def test_a_store_that_is_away_fails_no_request_and_is_tried_again(
    make_app: MakeApp, daemon: type[Daemon], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.write_text("in the way of a folder")
    url = f"sqlite:///{folder / 's.sqlite'}"
    app = make_app(**{"scheduler.jobstore.default.url": url})
    clock = Clock()
    app.registry.registerHandler(FirstRequest(app.registry.scheduler, clock), [NewRequest])

    def warnings() -> int:
        return sum(getattr(record, "action", "") == "start_failed" for record in caplog.records)

    TestApp(app).get("/", status=200)
    assert (daemon.started, warnings()) == ([], 2)  # ours and the application's own
    TestApp(app).get("/", status=200)
    assert warnings() == 2
    folder.unlink()
    folder.mkdir()
    clock.now += PAUSE + 1
    TestApp(app).get("/", status=200)
    assert daemon.started == [os.getpid()]


class Clock:
    """A clock that tests turn."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_tables_are_there_before_the_first_view_writes(make_app: MakeApp) -> None:
    app = make_app(**{"scheduler.combined": "false"})
    TestApp(app).get("/")
    assert app.registry.scheduler._process.store_is_ready

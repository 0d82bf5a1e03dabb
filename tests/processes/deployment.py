"""An application deployed for a test: a database of its own, an ini, and real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from tests.services import service_url

ROOT = Path(__file__).parents[2]

DEADLINE = 60.0
"""Seconds for a condition to come true; a busy machine needs a few, a broken one all of them."""

SCRIPTS = {
    "pserve": "pyramid.scripts.pserve",
    "pscheduler": "pyramid_durable.scripts.pscheduler",
    "pjobs": "pyramid_durable.scripts.pjobs",
    "shifted": "tests.processes.shifted",
}


def wait_for(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Return the first true answer of ``condition``; fail when none has come by the deadline."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.05)
    pytest.fail(f"waited {deadline:.0f} s for {what}")


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    # One that nobody waits for, as there is where nothing reaps orphans, is gone too.
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database that is dropped at the end."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'application.sqlite'}"
        return
    url = make_url(service_url(kind))
    name = f"durable_{uuid4().hex[:12]}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        server.dispose()


def broker_url(kind: str, folder: Path) -> str:
    """The URL of a broker; the namespace keeps this test's announcements apart."""
    return f"filesystem://{folder / 'broker'}" if kind == "embedded" else service_url(kind)


class Deployment:
    """An ini and the processes started from it; each writes to a log of its own."""

    def __init__(self, folder: Path, application: str, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.ini = folder / "application.ini"
        lines = [f"{key} = {value.replace('%', '%%')}" for key, value in settings.items()]
        self.ini.write_text(
            f"[app:main]\nuse = call:{application}\n"
            + "\n".join(lines)
            + f"\n[server:main]\nuse = egg:waitress\nlisten = 127.0.0.1:{self.port}\n"
            + LOGGING
        )
        self.engine: Engine = create_engine(settings["sqlalchemy.url"])
        # What processes are given for the ini's %(name)s where nothing else is said. Not in its
        # [DEFAULT] section, which would win over what is given.
        self.variables: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, script: str, *arguments: str, name: str | None = None) -> str:
        """Start a script on the ini; returns the name to speak of the process by."""
        name = name or f"{script}{len(self.processes)}"
        module = SCRIPTS[script]
        command = [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]
        given = {argument.partition("=")[0] for argument in arguments}
        others = [f"{key}={one}" for key, one in self.variables.items() if key not in given]
        self.spawn(name, [*command, str(self.ini), *arguments, *others])
        return name

    def spawn(self, name: str, command: Sequence[str], **variables: str) -> None:
        """Start any command, with these environment variables besides those there are."""
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}", **variables}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def run(self, script: str, *arguments: str) -> int:
        """Run a script to its end; returns its exit code."""
        name = self.start(script, *arguments)
        return self.processes[name].wait(DEADLINE)

    def send(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """End a process with a signal; returns its exit code."""
        self.send(name, number)
        return self.processes[name].wait(DEADLINE)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def answers(self) -> bool:
        """Whether the web server takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """Ask the application's database."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(question))]

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                # With the workers that a server has forked.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(DEADLINE)
        self.engine.dispose()


@contextmanager
def deployed(
    folder: Path, application: str, store: str, broker: str, **settings: str
) -> Iterator[Deployment]:
    """Deploy on a database and a broker; on a failure the logs are printed."""
    with (
        database(store, folder) as store_url,
        deployed_on(
            folder, application, store_url, broker_url(broker, folder), **settings
        ) as deployment,
    ):
        yield deployment


@contextmanager
def deployed_on(
    folder: Path, application: str, store_url: str, broker_url: str, **settings: str
) -> Iterator[Deployment]:
    """Deploy on the servers of these URLs; on a failure the logs are printed."""
    deployment = Deployment(
        folder,
        application,
        {
            "sqlalchemy.url": store_url,
            "scheduler.broker.url": broker_url,
            **{re.sub("__", ".", key): value for key, value in settings.items()},
        },
    )
    try:
        yield deployment
    except BaseException:
        for name in deployment.processes:
            sys.stderr.write(f"--- {name}\n{deployment.log(name)}\n")
        raise
    finally:
        deployment.close()


LOGGING = """
[loggers]
keys = root, pyramid_durable
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARNING
handlers = console
[logger_pyramid_durable]
level = INFO
handlers =
qualname = pyramid_durable
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic
[formatter_generic]
format = %(asctime)s %(levelname)-5.5s [%(process)d] [%(name)s] %(message)s
"""

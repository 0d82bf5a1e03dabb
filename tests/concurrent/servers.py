"""Servers of the harness's own, which it may restart; and those of the machine, which it may not."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from tests.processes.deployment import database, free_port
from tests.services import service_url

START = 30.0
"""Seconds a server has to start; recovery after a crash takes one or two."""


class ServerFailed(Exception):
    """A server of our own did not start."""


class Server:
    """A server at ``host:port``; ``url`` is how a client without a proxy reaches it."""

    restartable = False

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or DEFAULT_PORTS[parts.scheme.partition("+")[0]]

    def through(self, port: int | str) -> str:
        """The URL by way of a proxy's port on this machine."""
        parts = urlsplit(self.url)
        userinfo, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{port}").geturl()

    def stop(self) -> None:
        """End it hard, with everybody connected (where it is ours)."""

    def start(self) -> None:
        """Start it again, and wait until it takes connections."""


DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "amqp": 5672, "redis": 6379}


class OwnServer(Server):
    """A process that we start and end."""

    restartable = True
    ends_by = signal.SIGKILL

    def __init__(self, url: str, folder: Path, command: list[str], user: str | None) -> None:
        super().__init__(url)
        self._folder = folder
        self._command = command
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self._folder / "server.log").open("ab")
        # A group of its own: Ctrl-C is for the harness, which then ends what it has started.
        self._process = subprocess.Popen(
            self._command,
            stdout=log,
            stderr=log,
            cwd=self._folder,
            user=self._user,
            start_new_session=True,
        )
        log.close()
        end = time.monotonic() + START
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > end:
                said = (self._folder / "server.log").read_text()[-2000:]
                raise ServerFailed(f"{self._command[0]} did not start:\n{said}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.ends_by)
            self._process.wait(START)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0


class OwnPostgres(OwnServer):
    """A cluster in a folder of its own. SIGQUIT is its immediate shutdown: recovery follows."""

    ends_by = signal.SIGQUIT

    def answers(self) -> bool:
        engine = create_engine(self.url, poolclass=NullPool)
        with suppress(Exception), engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar_one() == 1
        return False


class OwnMariaDB(OwnServer):
    """A server in a folder of its own. Killed, it recovers at its next start."""

    def answers(self) -> bool:
        engine = create_engine(self.url, poolclass=NullPool)
        with suppress(Exception), engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar_one() == 1
        return False


class OwnRedis(OwnServer):
    """Without a file: a restart loses what was in it, as a broker is allowed to."""


def postgres_binaries() -> Path | None:
    """Where initdb and postgres are; distributions keep them off the PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: one.parent.name)
    return next((one for one in reversed(folders) if (one / "initdb").exists()), None)


def _server_user() -> str | None:
    """Who runs PostgreSQL: root may not. None for the present user."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


@contextmanager
def own_folder(user: str | None = None) -> Iterator[Path]:
    """A folder that another user can reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="durable-chaos-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def own_postgres(binaries: Path) -> Iterator[OwnPostgres]:
    user = _server_user()
    with own_folder(user) as folder:
        data = folder / "data"
        init = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
        init += ["--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(init, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        port = free_port()
        options = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "max_connections": 300,
            # The machine does not fall, only the server: what it has written is not lost.
            "fsync": "off",
            "shared_buffers": "64MB",
        }
        command = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        server = OwnPostgres(url, folder, command, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def own_mariadb(install: str, binary: str) -> Iterator[OwnMariaDB]:
    """A server with one database and, beside root, a user ``app`` without a right beyond it."""
    user = "mysql" if os.geteuid() == 0 else None
    with own_folder(user) as folder:
        options = ["--no-defaults", f"--datadir={folder / 'data'}"]
        init = [install, *options, "--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run(init, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        port = free_port()
        options += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        options += [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"]
        # The machine does not fall, only the server: a commit has to reach the system, no disk.
        options += ["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"]
        url = f"mysql+pymysql://root@127.0.0.1:{port}"
        server = OwnMariaDB(url, folder, [binary, *options], user)
        server.start()
        try:
            with create_engine(url, poolclass=NullPool).connect() as connection:
                connection.execute(text("CREATE DATABASE app"))
                connection.execute(text("CREATE USER app"))
                connection.execute(text("GRANT ALL ON app.* TO app"))
            yield server
        finally:
            server.stop()


@contextmanager
def own_redis(binary: str) -> Iterator[OwnRedis]:
    with own_folder() as folder:
        port = free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--dir", str(folder)]
        server = OwnRedis(f"redis://127.0.0.1:{port}/0", folder, command, None)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def store_server(kind: str, folder: Path) -> Iterator[Server]:
    """A database for one run: on a PostgreSQL of our own where its programs are installed."""
    binaries = postgres_binaries() if kind == "postgresql" else None
    if binaries is not None:
        with own_postgres(binaries) as server:
            yield server
        return
    with database(kind, folder) as url:
        yield Server(url)


@contextmanager
def broker_server(kind: str) -> Iterator[Server]:
    """A broker: a Redis of our own where its program is installed, else the machine's."""
    binary = shutil.which("redis-server") if kind == "redis" else None
    if binary is not None:
        with own_redis(binary) as server:
            yield server
        return
    yield Server(service_url(kind))


def end_connections(url: str, share: float, choose: Any) -> int:
    """Let the database end a share of its connections, our own apart; returns how many.

    ``choose`` is a ``random.Random``.
    """
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    if make_url(url).get_backend_name() == "postgresql":
        mine = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() ORDER BY pid"
        )
        end = "SELECT pg_terminate_backend({})"
    else:
        mine = (
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() "
            "AND id <> CONNECTION_ID() ORDER BY id"
        )
        end = "KILL {}"
    ended = 0
    with engine.connect() as connection:
        ids = list(connection.execute(text(mine)).scalars())
        for id in choose.sample(ids, max(1, round(len(ids) * share)) if ids else 0):
            with suppress(Exception):  # it may have gone by itself
                connection.execute(text(end.format(int(id))))
                ended += 1
    return ended

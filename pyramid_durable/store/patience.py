"""A psycopg connection that knows its server: how long to wait for it, when to ask for it (both).

Keepalives notice a host that is gone. They do not notice a peer that is there and says nothing: a
pooler or load balancer that has lost its server, a server that hangs. MariaDB's drivers have a
``read_timeout`` for that, libpq has none.
"""

from __future__ import annotations

import select
import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
from psycopg.waiting import Ready
from sqlalchemy import Engine

MOMENT: Final = 1.0
"""Seconds after an answer for which a server is there that has not said otherwise: one that ends a
connection says so at once, and what vanishes without a word would leave a question unanswered too."""


class PatientConnection(psycopg.Connection[Any]):
    """Raises OperationalError, and is closed, when nothing is heard of an answer for ``patience``
    seconds; None waits as long as it takes."""

    patience: float | None = None
    _heard_at = float("-inf")

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        if self.patience is not None:
            gen = self._within(self.patience, gen)
        return super().wait(gen, *args, **options)

    def is_there(self) -> bool:
        """Whether the server has answered just now, and has said nothing since, as when it goes."""
        if self.closed or time.monotonic() - self._heard_at > MOMENT:
            return False
        said = select.poll()
        said.register(self.fileno(), select.POLLIN)
        return not said.poll(0)

    def _within(self, seconds: float, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Pass on what the driver waits for; it comes back empty-handed several times a second."""
        ends = time.monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    ends = now + seconds
                    if ready & Ready.R:
                        self._heard_at = now
                elif now > ends:
                    break
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value
        self.pgconn.finish()
        raise psycopg.OperationalError(f"the server has not answered within {seconds:g} s")


def connect(patience: float, *args: Any, **options: Any) -> PatientConnection:
    """Connect as ``psycopg.connect`` does; connecting has its own limit, ``connect_timeout``."""
    connection = PatientConnection.connect(*args, **options)
    connection.patience = patience
    return connection


def ask_less(engine: Engine) -> None:
    """Ask a connection whether it still leads anywhere only where it does not know that itself."""
    ask = engine.dialect.do_ping

    def ping(dbapi_connection: Any) -> bool:
        return dbapi_connection.is_there() or ask(dbapi_connection)

    engine.dialect.do_ping = ping  # type: ignore[method-assign]

"""A psycopg connection that does not wait for an answer for ever (web and daemon).

Keepalives notice a host that is gone. They do not notice a peer that is there and says nothing: a
pooler or load balancer that has lost its server, a server that hangs. MariaDB's drivers have a
``read_timeout`` for that, libpq has none.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Generator, Mapping
from functools import cached_property
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from .silence import READ_TIMEOUT

FRESH = 1.0
"""Seconds after an answer in which a connection is used again without a ping. Peers go away without
a word, but seldom; a connection that has been idle for longer is asked."""


EAR: Callable[[], selectors.BaseSelector]
EAR = getattr(selectors, "PollSelector", selectors.DefaultSelector)
"""Listens without a file descriptor of its own, where the system has such a thing."""


class PatientConnection(psycopg.Connection[Any]):
    """Raises OperationalError, and is closed, when nothing is heard of an answer for ``patience``
    seconds; None waits as long as it takes."""

    patience: float | None = None
    _heard = 0.0

    def is_fresh(self) -> bool:
        """Whether the server has answered just now, and said nothing since: before it closes a
        connection it says why, and then that it has closed."""
        if self.closed or time.monotonic() - self._heard > FRESH:
            return False
        return not self._ear.select(0)

    @cached_property
    def _ear(self) -> selectors.BaseSelector:
        ear = EAR()
        ear.register(self.fileno(), selectors.EVENT_READ)
        return ear

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        if self.patience is not None:
            gen = self._within(self.patience, gen)
        return super().wait(gen, *args, **options)

    def _within(self, seconds: float, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Pass on what the driver waits for; it comes back empty-handed several times a second."""
        ends = time.monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    self._heard = now
                    ends = now + seconds
                elif now > ends:
                    break
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value
        self.pgconn.finish()
        raise psycopg.OperationalError(f"the server has not answered within {seconds:g} s")


def make_patient(engine: Engine) -> None:
    """Let an engine have such connections, and ping those that are not fresh."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, params: Mapping[str, Any]) -> Any:
        # Connecting has a limit of its own, connect_timeout.
        given = {name: one for name, one in params.items() if name != READ_TIMEOUT}
        connection = PatientConnection.connect(*args, **given)
        connection.patience = params[READ_TIMEOUT]
        # The driver reads times in the session's zone; a claim has three of them for each job. By a
        # statement: poolers take no options at the start of a session.
        connection.autocommit = True
        connection.execute("SET timezone TO 'UTC'")
        connection.autocommit = False
        return connection

    ask: Callable[[Any], bool] = engine.dialect.do_ping

    def ping(dbapi_connection: Any) -> bool:
        return dbapi_connection.is_fresh() or ask(dbapi_connection)

    # The pool asks the dialect, and has no event before it does.
    engine.dialect.do_ping = ping  # type: ignore[method-assign]

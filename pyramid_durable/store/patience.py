"""A psycopg connection that does not wait for an answer for ever (web and daemon).

Keepalives notice a host that is gone. They do not notice a peer that is there and says nothing: a
pooler or load balancer that has lost its server, a server that hangs. MariaDB's drivers have a
``read_timeout`` for that, libpq has none.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg


class PatientConnection(psycopg.Connection[Any]):
    """Raises OperationalError, and is closed, when nothing is heard of an answer for ``patience``
    seconds; None waits as long as it takes."""

    patience: float | None = None

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
                    ends = now + seconds
                elif now > ends:
                    break
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value
        self.pgconn.finish()
        raise psycopg.OperationalError(f"the server has not answered within {seconds:g} s")


def connect(patience: float, *args: Any, **options: Any) -> PatientConnection:
    """Connect as ``psycopg.connect`` does; connecting has its own limit, ``connect_timeout``.

    Times are read in the session's zone, which is UTC: a claim has three of them for each job.
    """
    connection = PatientConnection.connect(*args, **options)
    connection.patience = patience
    # By a statement: poolers take no options at the start of a session.
    connection.autocommit = True
    connection.execute("SET timezone TO 'UTC'")
    connection.autocommit = False
    return connection

"""A queue of bare SQL: what is left when a library costs nothing; run as a program it is the worker.

A job is a row, claimed in one transaction and ended in another, as with all who survive a crash.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any, Protocol

import psycopg

from benchmarks.peers.witness import work

BATCH = 300
PAUSE = 0.05
"""Seconds after which an idle worker looks, told or not: something may have become due."""

INSERT = "INSERT INTO job (number, due_at) VALUES ({0}, {0})"
TABLE = """
    CREATE TABLE job (
        number integer PRIMARY KEY, due_at double precision NOT NULL, state integer NOT NULL DEFAULT 0
    )
"""
INDEX = "CREATE INDEX job_due ON job (due_at) WHERE state = 0"
CLAIM_SQLITE = """
    UPDATE job SET state = 1 WHERE number IN (
        SELECT number FROM job WHERE state = 0 AND due_at <= ? ORDER BY due_at LIMIT ?
    ) RETURNING number
"""
CLAIM_POSTGRESQL = """
    UPDATE job SET state = 1 WHERE number = ANY(ARRAY(
        SELECT number FROM job
        WHERE state = 0 AND due_at <= extract(epoch FROM statement_timestamp())
        ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
    )) RETURNING number
"""


class Queue(Protocol):
    def setup(self) -> None: ...
    def add(self, rows: Sequence[tuple[int, float]]) -> None: ...
    def claim(self) -> list[tuple[int]]: ...
    def end(self, claimed: list[tuple[int]]) -> None: ...
    def wait(self) -> None: ...


class PostgreSQL:
    """Told by NOTIFY, after the commit: within it, all who tell would wait for each other's."""

    def __init__(self) -> None:
        self._connection = psycopg.connect(os.environ["BENCH_DSN"], autocommit=True)
        self._ear: psycopg.Connection[Any] | None = None

    def setup(self) -> None:
        self._connection.execute(TABLE)
        self._connection.execute(INDEX)

    def add(self, rows: Sequence[tuple[int, float]]) -> None:
        if len(rows) == 1:
            self._connection.execute(INSERT.format("%s"), rows[0])
        else:
            with self._connection.cursor() as cursor:
                cursor.executemany(INSERT.format("%s"), rows)
        self._connection.execute("NOTIFY job")

    def claim(self) -> list[tuple[int]]:
        return self._connection.execute(CLAIM_POSTGRESQL, [BATCH]).fetchall()

    def end(self, claimed: list[tuple[int]]) -> None:
        numbers = [number for (number,) in claimed]
        self._connection.execute("UPDATE job SET state = 2 WHERE number = ANY(%s)", [numbers])

    def wait(self) -> None:
        if self._ear is None:
            self._ear = psycopg.connect(os.environ["BENCH_DSN"], autocommit=True)
            self._ear.execute("LISTEN job")
        elif select([self._ear], [], [], PAUSE)[0]:
            list(self._ear.notifies(timeout=0))


class SQLite:
    """With the write-ahead log, and a commit that is on the disk when it returns."""

    def __init__(self) -> None:
        file = Path(os.environ["BENCH_FOLDER"]) / "bare.sqlite"
        self._connection = sqlite3.connect(file, isolation_level=None, timeout=30)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def setup(self) -> None:
        self._connection.execute(TABLE)
        self._connection.execute(INDEX)

    def add(self, rows: Sequence[tuple[int, float]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(INSERT.format("?"), rows)
        self._connection.execute("COMMIT")

    def claim(self) -> list[tuple[int]]:
        return self._connection.execute(CLAIM_SQLITE, (time.time(), BATCH)).fetchall()

    def end(self, claimed: list[tuple[int]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("UPDATE job SET state = 2 WHERE number = ?", claimed)
        self._connection.execute("COMMIT")

    def wait(self) -> None:
        time.sleep(PAUSE)


def queue() -> Queue:
    return PostgreSQL() if os.environ["BENCH_STORAGE"] == "postgresql" else SQLite()


def setup() -> None:
    queue().setup()


class App:
    def __init__(self) -> None:
        self._queue = queue()

    def enqueue(self, number: int) -> None:
        self._queue.add([(number, time.time())])

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        self.enqueue_at(numbers, time.time())

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        self._queue.add([(number, when) for number in numbers])


@contextmanager
def opened() -> Iterator[App]:
    yield App()


def serve() -> None:
    served = queue()
    while True:
        while claimed := served.claim():
            for (number,) in claimed:
                work(number)
            served.end(claimed)
        served.wait()


if __name__ == "__main__":
    serve()

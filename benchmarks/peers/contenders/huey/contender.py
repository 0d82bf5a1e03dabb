"""Huey on Redis and on SQLite."""

from __future__ import annotations

from typing import Any

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    arguments = ["--workers", "2", "--worker-type", "process", "--quiet"]
    return [["huey_consumer", f"{__package__}.app.huey", *arguments]]


CONFIGURED = (
    (
        "One ``huey_consumer`` with two workers of type ``process``, all else as it comes: the queue is polled every "
        "0.1 s at first, what is due every second. ``--quiet``: no line in the log for each job."
    ),
)


def _contender(**given: Any) -> Contender:
    return Contender(
        title="Huey",
        library="huey",
        packages=("huey", "redis"),
        workers=workers,
        keeps="nothing (results that are None are not stored)",
        **given,
    )


CONTENDERS = [
    _contender(
        id="huey-redis",
        place="Redis",
        redis=True,
        configured=(*CONFIGURED, "``RedisHuey``, which waits for jobs in Redis without polling."),
        environ={"BENCH_STORAGE": "redis"},
    ),
    _contender(
        id="huey-sqlite",
        place="SQLite",
        configured=(*CONFIGURED, "``SqliteHuey``, write-ahead log and no ``fsync``, its defaults."),
        environ={"BENCH_STORAGE": "sqlite"},
    ),
    _contender(
        id="huey-sqlite-fsync",
        place="SQLite, fsync",
        configured=(
            (
                "``SqliteHuey(fsync=True)``: a commit is on the disk when it returns, as with all others here that "
                "keep their jobs in a database."
            ),
            *CONFIGURED,
        ),
        environ={"BENCH_STORAGE": "sqlite-fsync"},
    ),
]

"""Bare SQL on PostgreSQL and on SQLite: how near all others come to what the database itself takes."""

from __future__ import annotations

from typing import Any

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    return [["python", "-m", f"{__package__}.app"]] * 2


def finished(place: Place) -> int:
    return place.ask("SELECT count(*) FROM job WHERE state = 2")


def _contender(**given: Any) -> Contender:
    return Contender(
        title="Bare SQL",
        library="bare",
        workers=workers,
        keeps="a row for every job",
        bulk=True,
        **given,
    )


CONTENDERS = [
    _contender(
        id="bare",
        place="PostgreSQL",
        packages=("psycopg",),
        database="postgresql",
        finished=finished,
        configured=(
            (
                "No library: two loops of a claim, a function call for each of up to 300 jobs, and their end, on one table "
                "with one index, with psycopg. Told by ``NOTIFY`` after the commit. It has no retries, no leases, no "
                "requests and no names of functions: what it shows is the machine."
            ),
        ),
        environ={"BENCH_STORAGE": "postgresql"},
    ),
    _contender(
        id="bare-sqlite",
        place="SQLite",
        packages=(),
        configured=(
            (
                "The same with Python's ``sqlite3``, write-ahead log, ``synchronous = FULL``: a commit is on the disk when "
                "it returns."
            ),
        ),
        environ={"BENCH_STORAGE": "sqlite"},
    ),
]

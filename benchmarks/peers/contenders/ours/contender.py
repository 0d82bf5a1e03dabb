"""pyramid_durable, from this checkout, in the environment that runs the benchmark."""

from __future__ import annotations

from typing import Any

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    ini = str(place.folder / "bench.ini")
    pscheduler = ["python", "-m", "pyramid_durable.scripts.pscheduler"]
    return [[*pscheduler, ini, "--processes", "2", "--preload"]]


def finished(place: Place) -> int:
    return place.ask("SELECT count(*) FROM durable_job WHERE state = 'succeeded'")


def _contender(**given: Any) -> Contender:
    return Contender(
        title="pyramid_durable",
        library="ours",
        packages=("pyramid_durable", "SQLAlchemy", "kombu", "APScheduler"),
        workers=workers,
        finished=finished,
        keeps="a row for every job",
        bulk=True,
        requests=True,
        configured=(
            (
                "``pscheduler --processes 2 --preload``, all settings as they come. Every job has a Pyramid "
                "request and a transaction of its own."
            ),
        ),
        **given,
    )


CONTENDERS = [
    _contender(
        id="ours",
        place="PostgreSQL, RabbitMQ",
        database="postgresql",
        environ={"BENCH_BROKER": "BENCH_AMQP"},
    ),
    _contender(id="ours-sqlite", place="SQLite alone", database="sqlite"),
    _contender(
        id="ours-mariadb",
        place="MariaDB, Redis",
        database="mariadb",
        redis=True,
        environ={"BENCH_BROKER": "BENCH_REDIS"},
    ),
]

"""Plain APScheduler 3 on PostgreSQL."""

from __future__ import annotations

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    return [["python", "-m", f"{__package__}.app"]]


CONTENDERS = [
    Contender(
        id="apscheduler",
        title="APScheduler",
        place="PostgreSQL, one process",
        library="apscheduler",
        packages=("APScheduler", "SQLAlchemy", "psycopg"),
        database="postgresql",
        workers=workers,
        runs_in_producer=True,
        keeps="nothing",
        configured=(
            (
                "One process, since its FAQ says that a job store must not be shared; the default pool of 10 threads, "
                "``SQLAlchemyJobStore``, ``misfire_grace_time=None``. For latency and burst the scheduler lives in the process "
                "that adds jobs, for the same reason. A job leaves the store before it runs."
            ),
        ),
    )
]

"""PgQueuer on PostgreSQL."""

from __future__ import annotations

from ...contender import Command, Contender
from ...place import Place

APP = f"{__package__}.app"
BATCH = 100


def workers(place: Place) -> list[Command]:
    command = ["pgq", "run", f"{APP}:manager", "--batch-size", str(BATCH)]
    return [command] * 2


def finished(place: Place) -> int:
    """Jobs logged as successful, once nothing is left in the queue."""
    if place.ask("SELECT count(*) FROM pgqueuer"):
        return 0
    return place.ask("SELECT count(DISTINCT job_id) FROM pgqueuer_log WHERE status = 'successful'")


CONTENDERS = [
    Contender(
        id="pgqueuer",
        title="PgQueuer",
        place="PostgreSQL",
        library="pgqueuer",
        packages=("pgqueuer", "asyncpg", "uvloop"),
        database="postgresql",
        workers=workers,
        finished=finished,
        keeps="a row in its log for every job",
        bulk=True,
        configured=(
            "Two ``pgq run``, each with one direct asyncpg connection: *Performance tuning* and *Drivers* "
            "prefer it to a pool and to psycopg. uvloop, as ``pgq`` uses it where it is installed.",
            f"``--batch-size {BATCH}``: *Performance tuning* says more than the default of 10 where jobs are "
            "shorter than a second.",
            "``pgq autovac`` after ``pgq install``, from the same page's checklist. Durability ``durable``, the "
            "default.",
        ),
    )
]

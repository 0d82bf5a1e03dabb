"""PgQueuer on PostgreSQL."""

from __future__ import annotations

from functools import partial

from ...contender import Command, Contender
from ...place import Place

APP = f"{__package__}.app"
BATCH = 300
"""Its fastest for empty jobs: of 10, 25, 100, 300 and 1000, measured here."""
DEFAULT_BATCH = 10


def workers(place: Place, batch: int) -> list[Command]:
    return [["pgq", "run", f"{APP}:manager", "--batch-size", str(batch)]] * 2


def finished(place: Place) -> int:
    """Jobs logged as successful, once nothing is left in the queue."""
    if place.ask("SELECT count(*) FROM pgqueuer"):
        return 0
    return place.ask("SELECT count(DISTINCT job_id) FROM pgqueuer_log WHERE status = 'successful'")


def _contender(id: str, title: str, batch: int, why: str) -> Contender:
    return Contender(
        id=id,
        title=title,
        place="PostgreSQL",
        library="pgqueuer",
        packages=("pgqueuer", "asyncpg", "uvloop"),
        database="postgresql",
        workers=partial(workers, batch=batch),
        finished=finished,
        keeps="a row in its log for every job",
        bulk=True,
        configured=(
            f"``--batch-size {batch}``: {why}",
            (
                "Two ``pgq run``, each with one direct asyncpg connection: *Performance tuning* and *Drivers* "
                "prefer it to a pool and to psycopg. uvloop, which it installs and uses."
            ),
            (
                "``pgq autovac`` after ``pgq install``, from the same page's checklist. Durability ``durable``, the "
                "default."
            ),
        ),
    )


CONTENDERS = [
    _contender(
        "pgqueuer",
        "PgQueuer, tuned",
        BATCH,
        "*Performance tuning* says to increase it where jobs are shorter than a second; this is its fastest "
        "of 10, 25, 100, 300 and 1000.",
    ),
    _contender("pgqueuer-default", "PgQueuer", DEFAULT_BATCH, "as it comes."),
]

"""Procrastinate on PostgreSQL."""

from __future__ import annotations

from ...contender import Command, Contender
from ...place import Place

CONCURRENCY = 10


def workers(place: Place) -> list[Command]:
    app = f"--app={__package__}.app.app"
    return [["procrastinate", app, "worker", "--concurrency", str(CONCURRENCY)]] * 2


def finished(place: Place) -> int:
    return place.ask("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'")


CONTENDERS = [
    Contender(
        id="procrastinate",
        title="Procrastinate",
        place="PostgreSQL",
        library="procrastinate",
        packages=("procrastinate", "psycopg"),
        database="postgresql",
        workers=workers,
        finished=finished,
        keeps="a row for every job",
        bulk=True,
        configured=(
            (
                f"Two ``procrastinate worker --concurrency {CONCURRENCY}`` with ``PsycopgConnector``, all else as it "
                "comes: what is due is polled for every 5 seconds."
            ),
        ),
    )
]

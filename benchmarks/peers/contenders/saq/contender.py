"""SAQ on PostgreSQL and on Redis."""

from __future__ import annotations

from typing import Any

from redis import Redis

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    return [["saq", f"{__package__}.app.settings"]] * 2


def finished(place: Place) -> int:
    return place.ask("SELECT count(*) FROM saq_jobs WHERE status = 'complete'")


def finished_in_redis(place: Place) -> int:
    """Jobs that are there and not incomplete."""
    with Redis.from_url(place.redis) as client:
        incomplete = int(client.zcard(f"saq:{place.queue}:incomplete"))
        if incomplete:
            return 0
        return sum(1 for _ in client.scan_iter(f"saq:job:{place.queue}:*", count=1000))


def _contender(**given: Any) -> Contender:
    return Contender(
        title="SAQ",
        library="saq",
        packages=("saq", "psycopg", "redis", "hiredis"),
        workers=workers,
        configured=(
            "Two ``saq``, with their default concurrency of 10 and polling once a second for what is due.",
        ),
        **given,
    )


CONTENDERS = [
    _contender(
        id="saq-postgresql",
        place="PostgreSQL",
        database="postgresql",
        finished=finished,
        keeps="a row for every job, for 10 minutes",
        environ={"BENCH_STORAGE": "BENCH_DSN"},
    ),
    _contender(
        id="saq-redis",
        place="Redis",
        redis=True,
        finished=finished_in_redis,
        keeps="every job for 10 minutes, in Redis",
        environ={"BENCH_STORAGE": "BENCH_REDIS"},
    ),
]

"""RQ on Redis."""

from __future__ import annotations

from redis import Redis

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    config = ["--config", f"{__package__}.app"]
    return [["rq", "worker-pool", place.queue, "--num-workers", "2", "--quiet", *config]]


def finished(place: Place) -> int:
    """Jobs in the registry of finished ones, where they stay for 500 seconds."""
    with Redis.from_url(place.redis) as client:
        return int(client.zcard(f"rq:finished:{place.queue}"))


CONTENDERS = [
    Contender(
        id="rq",
        title="RQ",
        place="Redis",
        library="rq",
        packages=("rq", "redis"),
        redis=True,
        workers=workers,
        finished=finished,
        keeps="every job for 500 seconds, in Redis",
        bulk=True,
        configured=(
            (
                "``rq worker-pool`` with two workers, each with RQ's scheduler. Every job in a fork of its own, the "
                "default; the application is imported before, as *Workers*: *Performance notes* advises. ``--quiet``."
            ),
        ),
    )
]

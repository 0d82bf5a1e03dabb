"""dramatiq on RabbitMQ and on Redis."""

from __future__ import annotations

from typing import Any

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    return [["dramatiq", f"{__package__}.app", "--processes", "2"]]


def _contender(**given: Any) -> Contender:
    return Contender(
        title="dramatiq",
        library="dramatiq",
        packages=("dramatiq", "pika", "redis"),
        workers=workers,
        keeps="nothing",
        configured=(
            (
                "One ``dramatiq --processes 2``, with its default of 8 threads each, prefetch and middleware. Messages "
                "are acknowledged after the job, as it always does."
            ),
        ),
        **given,
    )


CONTENDERS = [
    _contender(
        id="dramatiq-rabbitmq",
        place="RabbitMQ",
        queues=("{queue}", "{queue}.DQ", "{queue}.XQ"),
        environ={"BENCH_BROKER": "rabbitmq"},
    ),
    _contender(id="dramatiq-redis", place="Redis", redis=True, environ={"BENCH_BROKER": "redis"}),
]

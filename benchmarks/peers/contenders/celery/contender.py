"""Celery on RabbitMQ, on Redis, and on RabbitMQ with its results in PostgreSQL."""

from __future__ import annotations

from typing import Any

from ...contender import Command, Contender
from ...place import Place


def workers(place: Place) -> list[Command]:
    command = ["celery", "-A", f"{__package__}.app", "worker", "-c", "2", "-Q", place.queue]
    return [[*command, "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]]


def results(place: Place) -> int:
    return place.ask("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")


CONFIGURED = (
    (
        "One worker with two prefork processes. ``worker_prefetch_multiplier = 64`` for short tasks, from "
        "*Optimizing*; ``--without-gossip --without-mingle``, and no events."
    ),
    "``task_acks_late = True``: a task survives the death of its worker, as everywhere else here.",
)


def _contender(**given: Any) -> Contender:
    return Contender(
        title="Celery",
        library="celery",
        packages=("celery", "kombu", "amqp", "redis"),
        workers=workers,
        **given,
    )


CONTENDERS = [
    _contender(
        id="celery-rabbitmq",
        place="RabbitMQ",
        queues=("{queue}",),
        keeps="nothing",
        configured=(
            *CONFIGURED,
            "``task_ignore_result = True``, from *Tasks*: *Tips and best practices*.",
        ),
        environ={"BENCH_BROKER": "BENCH_AMQP"},
    ),
    _contender(
        id="celery-redis",
        place="Redis",
        redis=True,
        keeps="nothing",
        configured=(
            *CONFIGURED,
            "``task_ignore_result = True``, from *Tasks*: *Tips and best practices*.",
        ),
        environ={"BENCH_BROKER": "BENCH_REDIS"},
    ),
    _contender(
        id="celery-results",
        place="RabbitMQ, results in PostgreSQL",
        queues=("{queue}",),
        database="postgresql",
        finished=results,
        keeps="a row for every job",
        configured=(*CONFIGURED, "The SQLAlchemy result backend, its tables made beforehand."),
        environ={"BENCH_BROKER": "BENCH_AMQP", "BENCH_RESULTS": "1"},
    ),
]

"""Celery's side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from celery import Celery

from benchmarks.peers import witness

# The address is in the variable that this one names.
app = Celery("bench", broker=os.environ[os.environ["BENCH_BROKER"]])
app.conf.task_default_queue = os.environ["BENCH_QUEUE"]
app.conf.worker_prefetch_multiplier = 64
app.conf.task_acks_late = True
if os.environ.get("BENCH_RESULTS"):
    app.conf.result_backend = f"db+{os.environ['BENCH_DATABASE']}"
    app.conf.database_create_tables_at_setup = True
else:
    app.conf.task_ignore_result = True


@app.task
def work(number: int) -> None:
    witness.work(number)


def setup() -> None:
    if os.environ.get("BENCH_RESULTS"):
        # Two workers that make them at the same moment would collide.
        app.backend.ResultSession()


class App:
    def enqueue(self, number: int) -> None:
        work.delay(number)

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        eta = datetime.fromtimestamp(when, timezone.utc)
        for number in numbers:
            work.apply_async((number,), eta=eta)


@contextmanager
def opened() -> Iterator[App]:
    yield App()

"""RQ's side; for its workers also their settings, so that it is imported before they fork."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from redis import Redis
from rq import Queue

from benchmarks.peers.witness import work

REDIS_URL = os.environ["BENCH_REDIS"]


class App:
    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def enqueue(self, number: int) -> None:
        self.queue.enqueue(work, number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        self.queue.enqueue_many([Queue.prepare_data(work, (number,)) for number in numbers])

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        due = datetime.fromtimestamp(when, timezone.utc)
        for number in numbers:
            self.queue.enqueue_at(due, work, number)


@contextmanager
def opened() -> Iterator[App]:
    with Redis.from_url(REDIS_URL) as client:
        yield App(Queue(os.environ["BENCH_QUEUE"], connection=client))

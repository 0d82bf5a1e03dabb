"""Our side: the application of the other measurements, on the place's services."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.application import numbered
from benchmarks.measures import enqueue_cost
from benchmarks.stand import Stand


def _stand(migrate: bool = False) -> Stand:
    folder = Path(os.environ["BENCH_FOLDER"])
    broker = f"filesystem://{folder / 'broker'}"
    if "BENCH_BROKER" in os.environ:
        # The address is in the variable that this one names.
        broker = os.environ[os.environ["BENCH_BROKER"]]
    return Stand(folder, os.environ["BENCH_DATABASE"], broker, migrate)


def setup() -> None:
    _stand(migrate=True).close()


class App:
    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.scheduler = stand.scheduler

    def enqueue(self, number: int) -> None:
        self.scheduler.add_async_job(numbered, args=[number])

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        self.scheduler.add_jobs([{"func": numbered, "args": [number]} for number in numbers])

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        self.scheduler.add_jobs(
            [{"func": numbered, "args": [number], "date": when} for number in numbers]
        )

    def request_cost(self) -> float:
        """What one job adds to a request that writes and commits anyway, in µs."""
        (cost,) = enqueue_cost(self.stand).values()
        return cost


@contextmanager
def opened() -> Iterator[App]:
    stand = _stand()
    try:
        yield App(stand)
    finally:
        stand.close()

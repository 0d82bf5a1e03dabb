"""APScheduler's side; run as a program it is the worker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from benchmarks.peers.witness import work


def options() -> dict[str, object]:
    return {
        "jobstores": {"default": SQLAlchemyJobStore(url=os.environ["BENCH_DATABASE"])},
        "job_defaults": {"misfire_grace_time": None},
    }


class App:
    def __init__(self, scheduler: BaseScheduler) -> None:
        self.scheduler = scheduler

    def enqueue(self, number: int) -> None:
        self.scheduler.add_job(work, args=(number,))

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        due = datetime.fromtimestamp(when, timezone.utc)
        for number in numbers:
            self.scheduler.add_job(work, "date", run_date=due, args=(number,))


@contextmanager
def opened() -> Iterator[App]:
    scheduler = BackgroundScheduler(**options())
    scheduler.start(paused="BENCH_LIVE" not in os.environ)
    yield App(scheduler)
    scheduler.shutdown()


if __name__ == "__main__":
    BlockingScheduler(**options()).start()

"""Huey's side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from huey import RedisHuey, SqliteHuey

from benchmarks.peers import witness

if os.environ["BENCH_STORAGE"] == "redis":
    huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"])
else:
    file = str(Path(os.environ["BENCH_FOLDER"]) / "huey.sqlite")
    huey = SqliteHuey("bench", filename=file, fsync=os.environ["BENCH_STORAGE"] == "sqlite-fsync")


@huey.task()
def work(number: int) -> None:
    witness.work(number)


class App:
    def enqueue(self, number: int) -> None:
        work(number)

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        eta = datetime.fromtimestamp(when, timezone.utc)
        for number in numbers:
            work.schedule((number,), eta=eta)


@contextmanager
def opened() -> Iterator[App]:
    yield App()

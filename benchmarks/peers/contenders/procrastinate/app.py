"""Procrastinate's side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import procrastinate

from benchmarks.peers import witness

run = asyncio.run

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DSN"]))


@app.task(name="work")
async def work(number: int) -> None:
    witness.work(number)


def setup() -> None:
    with app.open():
        app.schema_manager.apply_schema()


class App:
    async def enqueue(self, number: int) -> None:
        await work.defer_async(number=number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        await work.batch_defer_async(*[{"number": number} for number in numbers])

    async def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        due = work.configure(schedule_at=datetime.fromtimestamp(when, timezone.utc))
        await due.batch_defer_async(*[{"number": number} for number in numbers])


@asynccontextmanager
async def opened() -> AsyncIterator[App]:
    async with app.open_async():
        yield App()

"""SAQ's side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue

from benchmarks.peers import witness

run = asyncio.run


def new_queue() -> Queue:
    # The address is in the variable that this one names.
    return Queue.from_url(os.environ[os.environ["BENCH_STORAGE"]], name=os.environ["BENCH_QUEUE"])


async def work(context: Any, *, number: int) -> None:
    witness.work(number)


def settings() -> dict[str, Any]:
    """What ``saq`` runs."""
    return {"queue": new_queue(), "functions": [work]}


def setup() -> None:
    """Connecting makes the tables; two workers at once would collide."""

    async def connect() -> None:
        queue = new_queue()
        await queue.connect()
        await queue.disconnect()

    asyncio.run(connect())


class App:
    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    async def enqueue(self, number: int) -> None:
        await self.queue.enqueue("work", number=number)

    async def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        for number in numbers:
            await self.queue.enqueue("work", number=number, scheduled=int(when))


@asynccontextmanager
async def opened() -> AsyncIterator[App]:
    queue = new_queue()
    await queue.connect()
    try:
        yield App(queue)
    finally:
        await queue.disconnect()

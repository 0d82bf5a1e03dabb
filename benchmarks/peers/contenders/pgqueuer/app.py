"""PgQueuer's side."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from benchmarks.peers.witness import work

DSN = os.environ["BENCH_DSN"]

run = uvloop.run


@asynccontextmanager
async def manager() -> AsyncIterator[PgQueuer]:
    """What ``pgq run`` runs."""
    connection = await asyncpg.connect(DSN)
    try:
        pgq = PgQueuer(AsyncpgDriver(connection))

        @pgq.entrypoint("work")
        async def entrypoint(job: Job) -> None:
            work(int(job.payload or b""))

        yield pgq
    finally:
        await connection.close()


def setup() -> None:
    pgq = Path(sys.executable).parent / "pgq"
    for command in ("install", "autovac"):
        subprocess.run([pgq, "--pg-dsn", DSN, command], check=True)


class App:
    def __init__(self, queries: Queries) -> None:
        self.queries = queries

    async def enqueue(self, number: int) -> None:
        await self.queries.enqueue("work", str(number).encode())

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        payloads = [str(number).encode() for number in numbers]
        await self.queries.enqueue(["work"] * len(payloads), payloads, [0] * len(payloads))

    async def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        payloads = [str(number).encode() for number in numbers]
        count = len(payloads)
        after = [timedelta(seconds=when - time())] * count
        await self.queries.enqueue(["work"] * count, payloads, [0] * count, after)


@asynccontextmanager
async def opened() -> AsyncIterator[App]:
    connection = await asyncpg.connect(DSN)
    try:
        yield App(Queries(AsyncpgDriver(connection)))
    finally:
        await connection.close()

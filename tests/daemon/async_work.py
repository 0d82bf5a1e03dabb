"""The async def jobs that the tests of the shared loop run."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import transaction
from pyramid.threadlocal import get_current_request
from sqlalchemy import update

from pyramid_durable import Cancel, Retry, current_job, job, routine
from tests.web.site import Rental

waiting: list[str] = []
peak: list[int] = []
threads: set[str] = set()
mixed: list[str] = []
ended: list[str] = []


def clear() -> None:
    for one in (waiting, peak, threads, mixed, ended):
        one.clear()


async def meet(number: int) -> int:
    """Wait until so many have come, all at once."""
    waiting.append(current_job().id)
    peak.append(len(waiting))
    threads.add(threading.current_thread().name)
    while len(waiting) < number:
        await asyncio.sleep(0.01)
    return len(waiting)


@job(pass_request=True)
async def look_around(request: Any, steps: int) -> str:
    """Look at each step whether all that is current is this job's own."""
    own = current_job().id
    manager = transaction.manager.manager
    for _ in range(steps):
        seen = (
            get_current_request() is request,
            transaction.manager.manager is manager and manager is request.tm,
            current_job().id == own,
        )
        if not all(seen):
            mixed.append(f"{own}: {seen}")
        await asyncio.sleep(0.001)
    return own


@job(pass_request=True)
async def rent(request: Any, ski: str, then: str = "") -> str:
    request.dbsession.add(Rental(ski=ski))
    request.dbsession.flush()
    await asyncio.sleep(0.01)
    if then == "fail":
        raise ValueError("after it has written")
    if then == "retry" and current_job().attempt == 1:
        raise Retry(0)
    if then == "cancel":
        raise Cancel("no more")
    return ski


async def endure(seconds: float) -> None:
    waiting.append(current_job().id)
    try:
        await asyncio.sleep(seconds)
    finally:
        ended.append(current_job().id)


async def stubborn() -> None:
    """Ignore the first CancelledError."""
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        ended.append("asked")


@routine(trigger_name="later")
class Later:
    def __init__(self, word: str) -> None:
        if word == "unknown":
            raise LookupError(word)
        self.word = word

    async def run(self) -> str:
        await asyncio.sleep(0)
        return self.word


@job(pass_request=True)
async def hold(request: Any, ski: str, seconds: float) -> None:
    """Hold the transaction open over an await, as others want the same lock."""
    request.dbsession.execute(update(Rental).values(ski=Rental.ski))
    request.dbsession.add(Rental(ski=ski))
    request.dbsession.flush()
    await asyncio.sleep(seconds)
    request.dbsession.execute(update(Rental).values(ski=Rental.ski))


async def ask_and_wait(seconds: float) -> None:
    get_current_request().scheduler.add_async_job(nothing)
    await asyncio.sleep(seconds)


def nothing() -> None:
    """Do nothing."""

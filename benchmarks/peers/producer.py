"""python -m benchmarks.peers.producer MODULE: enqueues, in the contender's own environment.

MODULE is its app.py. Reads requests from standard input and answers on standard output, a line of JSON
each, until the input ends. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from importlib import import_module, metadata
from inspect import isawaitable
from typing import Any, TextIO

from .witness import witness

BATCH = 1000
"""Jobs in one call of a contender's bulk API."""

PATIENCE = 30.0
"""Seconds that an idle worker may take for the start of one job."""

Answer = dict[str, Any]


class Producing:
    """The requests, each a method. ``app`` is what the contender's ``opened`` gave."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def each(self, first: int, count: int) -> Answer:
        """Enqueue one by one, each its own commit."""
        start = time.perf_counter()
        for number in range(first, first + count):
            await done(self.app.enqueue(number))
        return {"seconds": time.perf_counter() - start}

    async def many(self, first: int, count: int) -> Answer:
        """Enqueue through the bulk API."""
        numbers = range(first, first + count)
        start = time.perf_counter()
        for at in range(0, count, BATCH):
            await done(self.app.enqueue_many(numbers[at : at + BATCH]))
        return {"seconds": time.perf_counter() - start}

    async def at(self, first: int, count: int, when: float) -> Answer:
        """Enqueue for one instant, in seconds since the epoch."""
        numbers = range(first, first + count)
        for at in range(0, count, BATCH):
            await done(self.app.enqueue_at(numbers[at : at + BATCH], when))
        return {"ended": time.time()}

    async def probe(self, first: int, count: int, pause: float) -> Answer:
        """Enqueue one by one; when each was asked for, before the call.

        The next one follows ``pause`` seconds later, or when the last has started, if that is later.
        """
        asked = []
        for number in range(first, first + count):
            asked.append(time.time())
            await done(self.app.enqueue(number))
            end = time.monotonic() + PATIENCE
            time.sleep(pause)
            while not witness().starts[number]:
                if time.monotonic() > end:
                    raise RuntimeError(f"waited {PATIENCE:.0f} s for the start of job {number}")
                time.sleep(pause)
        return {"asked": asked}

    async def request_cost(self) -> Answer:
        """What a job adds to a web request."""
        return {"microseconds": await done(self.app.request_cost())}

    async def versions(self, packages: list[str]) -> Answer:
        return {name: metadata.version(name) for name in packages}


async def done(answer: Any) -> Any:
    """The answer of a library that may be asynchronous."""
    return await answer if isawaitable(answer) else answer


async def serve(opened: Callable[[], Any], answers: TextIO) -> None:
    """Answer requests until there are no more."""
    async with AsyncExitStack() as stack:
        entered = opened()
        if hasattr(entered, "__aenter__"):
            app = await stack.enter_async_context(entered)
        else:
            app = stack.enter_context(entered)
        producing = Producing(app)
        for line in sys.stdin:
            request = json.loads(line)
            answer = await getattr(producing, request.pop("do"))(**request)
            print(json.dumps(answer), file=answers, flush=True)


def run(app: Any, answers: TextIO) -> None:
    """Serve; by the app's ``run`` where the library is asynchronous, on no event loop otherwise."""
    serving = serve(app.opened, answers)
    if hasattr(app, "run"):
        app.run(serving)
        return
    # Some synchronous libraries mind a running loop, and a coroutine that never waits needs none.
    with suppress(StopIteration):
        serving.send(None)
        raise RuntimeError(f"{app.__name__} is asynchronous and has no `run`")


if __name__ == "__main__":
    # Whatever the library prints belongs into the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = import_module(sys.argv[1])
    if sys.argv[2:] == ["setup"]:
        if hasattr(module, "setup"):
            module.setup()
    else:
        run(module, answers)

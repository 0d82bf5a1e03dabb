"""The event loop that a daemon's ``async def`` jobs share, hundreds of them waiting at once (daemon)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from .current import use_job

if TYPE_CHECKING:
    from .attempt import Attempt
    from .outcomes import Outcome
    from .runner import Runner

MOST: Final = 1000
"""Jobs in the loop at once. Each has a request and its transaction; the next one waits on the
daemon's thread that has claimed it."""

ENDERS: Final = 4
"""Threads that commit what coroutines did: a commit waits for the database, and must not keep all
the others waiting. Some, so that one that waits for a lock does not hold up the rest."""

LAST_STEPS: Final = 1.0
"""Seconds that cancelled coroutines get for their ``finally`` blocks when the daemon stops."""


class AsyncJobs:
    """Awaits attempts in one loop, on a thread of its own that starts with the first of them.

    Pyramid's threadlocals and the thread's transaction manager are the job's own while its
    coroutine takes a step, and nobody's in between.
    """

    def __init__(self, runner: Runner, *, most: int = MOST) -> None:
        self._runner = runner
        self._places = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._enders: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, attempt: Attempt, done: Callable[[Outcome], None]) -> None:
        """Await the code of an open attempt; ``done`` is called in another thread when it has ended.

        Waits for a place where there is none.
        """
        self._places.acquire()
        loop = self._running_loop()
        loop.call_soon_threadsafe(self._begin, attempt, done, context=contextvars.Context())

    def stop(self) -> None:
        """Cancel what still runs, and end the threads."""
        with self._lock:
            loop, thread, enders = self._loop, self._thread, self._enders
            self._loop = self._thread = self._enders = None
        if loop is None or thread is None or enders is None:
            return
        ended = asyncio.run_coroutine_threadsafe(self._cancel_all(), loop)
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            ended.result(2 * LAST_STEPS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LAST_STEPS)
        enders.shutdown(wait=False, cancel_futures=True)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._enders = ThreadPoolExecutor(ENDERS, thread_name_prefix="durable-async-end")
                self._thread = threading.Thread(
                    target=self._work, args=(self._loop,), name="durable-async", daemon=True
                )
                self._thread.start()
            return self._loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    # In the loop's thread.

    def _begin(self, attempt: Attempt, done: Callable[[Outcome], None]) -> None:
        assert attempt.current is not None
        # The context is this job's own, and its task's: nothing has to be taken back.
        use_job(attempt.current).__enter__()
        task = asyncio.get_running_loop().create_task(self._await(attempt, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await(self, attempt: Attempt, done: Callable[[Outcome], None]) -> None:
        result, error = None, None
        try:
            made = self._runner.call_in_loop(attempt)
            if inspect.iscoroutine(made):
                result = await attempt.guard.wait(_Steps(made, self._runner, attempt))
            else:
                result = made
        except BaseException as raised:  # noqa: BLE001 - it is the job's own, whatever it is
            error = raised
        enders = self._enders
        if enders is not None:
            with contextlib.suppress(RuntimeError):  # it shuts down: the claim is given back
                enders.submit(self._end, attempt, result, error, done)

    def _end(
        self,
        attempt: Attempt,
        result: Any,
        error: BaseException | None,
        done: Callable[[Outcome], None],
    ) -> None:
        try:
            done(self._runner.conclude(attempt, result, error))
        finally:
            self._places.release()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_STEPS)


class _Steps(Awaitable[Any]):
    """A coroutine whose every step is taken with its job's request as the current one."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], runner: Runner, attempt: Attempt
    ) -> None:
        self._coroutine = coroutine
        self._runner = runner
        self._attempt = attempt

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    with self._runner.current(self._attempt):
                        if error is None:
                            waited = self._coroutine.send(value)
                        else:
                            waited = self._coroutine.throw(error)
                except StopIteration as end:
                    return end.value
                try:
                    value, error = (yield waited), None
                except GeneratorExit:
                    raise
                except BaseException as thrown:  # noqa: BLE001 - handed on to the job's code
                    value, error = None, thrown
        finally:
            with self._runner.current(self._attempt):
                self._coroutine.close()

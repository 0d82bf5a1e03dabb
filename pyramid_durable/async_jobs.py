"""The event loop that a daemon's ``async def`` jobs share, hundreds of them waiting at once (daemon)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from .current import use_job

if TYPE_CHECKING:
    from .attempt import Attempt
    from .outcomes import Outcome
    from .runner import Runner

log = logging.getLogger(__name__)

MOST: Final = 1000
"""Jobs in the loop at once; each has a request. What is claimed beyond them is given back."""

ENDERS: Final = 2
"""Threads that commit what coroutines did: a commit waits for the database, and must not keep all
the others waiting."""

LAST_STEPS: Final = 1.0
"""Seconds that cancelled coroutines get for their ``finally`` blocks when the daemon stops."""

Done = Callable[["Outcome"], None]


class AsyncJobs:
    """Awaits attempts in one loop, on a thread of its own that starts with the first of them.

    Pyramid's threadlocals and the thread's transaction manager are the job's own while its
    coroutine takes a step, and nobody's in between.

    While a job has a transaction open, no other takes a step. Sessions block: one that waited, in
    the loop's thread, for a lock or a connection that a suspended job holds would wait for ever.
    """

    def __init__(self, runner: Runner, *, most: int = MOST) -> None:
        self._runner = runner
        self._most = most
        self._lock = threading.Lock()
        self._closed = False
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._over: SimpleQueue[tuple[Attempt, Any, BaseException | None, Done] | None]
        self._over = SimpleQueue()
        self._enders: list[threading.Thread] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: Attempt | None = None
        self._turn: asyncio.Event

    def take(self, attempt: Attempt, done: Done) -> bool:
        """Await the code of an open attempt; ``done`` is called in another thread when it has ended.

        False where there is no room, or the daemon stops: then nothing of it has run.
        """
        with self._lock:
            if self._closed or self._number >= self._most:
                return False
            loop = self._loop or self._start()
            self._number += 1
        loop.call_soon_threadsafe(self._begin, attempt, done, context=contextvars.Context())
        return True

    def stop(self) -> None:
        """Cancel what still runs, undo it, and end the threads."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        ended = asyncio.run_coroutine_threadsafe(self._cancel_all(), loop)
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            ended.result(2 * LAST_STEPS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LAST_STEPS)
        for _ in self._enders:
            self._over.put(None)
        for ender in self._enders:
            ender.join(LAST_STEPS)

    def _start(self) -> asyncio.AbstractEventLoop:
        # Daemon threads of our own: a pool's are ended by Python before a web process's last jobs.
        loop = asyncio.new_event_loop()
        self._turn = asyncio.Event()
        thread = threading.Thread(
            target=self._work, args=(loop,), name="durable-async", daemon=True
        )
        enders = [
            threading.Thread(target=self._end_all, name=f"durable-async-end-{n}", daemon=True)
            for n in range(ENDERS)
        ]
        for one in (*enders, thread):
            one.start()
        self._loop, self._thread, self._enders = loop, thread, enders
        return loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    # In the loop's thread.

    def _begin(self, attempt: Attempt, done: Done) -> None:
        assert attempt.current is not None
        # The context is this job's own, and its task's: nothing has to be taken back.
        use_job(attempt.current).__enter__()
        task = asyncio.get_running_loop().create_task(self._await(attempt, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await(self, attempt: Attempt, done: Done) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = await attempt.guard.wait(_Steps(self, attempt))
        except BaseException as raised:  # noqa: BLE001 - it is the job's own, whatever it is
            error = raised
        self._over.put((attempt, result, error, done))

    def may_step(self, attempt: Attempt) -> bool:
        """Whether no other job has a transaction open."""
        return self._writing is None or self._writing is attempt

    async def turn(self) -> None:
        """Wait until it is worth asking again whether a step may be taken."""
        await self._turn.wait()

    def step(self, attempt: Attempt, take: Callable[[], Any]) -> Any:
        """Let a coroutine take a step with its request as the current one."""
        try:
            with self._runner.current(attempt):
                return take()
        finally:
            # Also of a job that is over: until it has been committed.
            self._note_writing(attempt)

    def _note_writing(self, attempt: Attempt) -> None:
        if attempt.has_transaction():
            self._writing = attempt
            self._turn.clear()
        elif self._writing is attempt:
            self._release(attempt)

    def _release(self, attempt: Attempt) -> None:
        if self._writing is attempt:
            self._writing = None
            self._turn.set()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_STEPS)

    # In the threads that end attempts.

    def _end_all(self) -> None:
        while (item := self._over.get()) is not None:
            self._end(*item)

    def _end(self, attempt: Attempt, result: Any, error: BaseException | None, done: Done) -> None:
        try:
            if self._closed and isinstance(error, asyncio.CancelledError):
                done(self._runner.give_up(attempt))
            else:
                done(self._runner.conclude(attempt, result, error))
        except Exception:
            log.critical(
                "job %s: ending it failed",
                attempt.claim.id,
                exc_info=True,
                extra={"action": "runner_failed", "job": attempt.claim.id},
            )
        finally:
            with self._lock:
                self._number -= 1
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # closed: the daemon has stopped
                    self._loop.call_soon_threadsafe(self._release, attempt)


class _Steps(Awaitable[Any]):
    """An attempt's coroutine, every step of it taken by ``AsyncJobs.step`` when it may be."""

    def __init__(self, jobs: AsyncJobs, attempt: Attempt) -> None:
        self._jobs = jobs
        self._attempt = attempt

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine: Coroutine[Any, Any, Any] = self._attempt.coroutine
        jobs, attempt = self._jobs, self._attempt
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    while error is None and not jobs.may_step(attempt):
                        yield from jobs.turn().__await__()
                except asyncio.CancelledError as cancelled:
                    error = cancelled
                try:
                    if error is None:
                        given = value
                        waited = jobs.step(attempt, lambda given=given: coroutine.send(given))  # type: ignore[misc]
                    else:
                        thrown = error
                        waited = jobs.step(attempt, lambda thrown=thrown: coroutine.throw(thrown))  # type: ignore[misc]
                except StopIteration as end:
                    return end.value
                try:
                    value, error = (yield waited), None
                except GeneratorExit:
                    raise
                except BaseException as raised:  # noqa: BLE001 - handed on to the job's code
                    value, error = None, raised
        finally:
            jobs.step(attempt, coroutine.close)

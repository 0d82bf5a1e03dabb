"""A timeout or a cancel, raised in the user's code while it runs and nowhere else (daemon)."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from .exceptions import JobTimeout
from .retry import Cancel

log = logging.getLogger(__name__)

T = TypeVar("T")

CANCEL_GRACE: Final = 5.0
"""Seconds from the moment a job can see that it is asked to stop until it is stopped: enough to
finish a step and clean up, and people who pressed a button still wait for it."""

LINGER: Final = 1.0
"""Seconds that the watching thread stays when there is nothing to watch: jobs come in bursts, and
nobody has to stop it."""

LONGEST_PAUSE: Final = 60.0
"""Seconds that one wait may take: what it waited for may be gone meanwhile, and with it the work."""

ASKED_TO_STOP: Final = "asked to stop"


def timeout_text(timeout: float) -> str:
    """What is said of an attempt that took longer than its timeout, in seconds."""
    return f"it was stopped after its timeout of {timeout:g} s"


class Stopper:
    """The interruptions of one daemon's jobs, and the thread that raises them when it is time.

    The thread starts with the first job that has a timeout or is asked to stop, and ends when there
    has been none for a while. ``grace`` is the time in seconds between asking and stopping.
    """

    def __init__(
        self, *, grace: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.grace = CANCEL_GRACE if grace is None else grace
        self.clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Event()
        # No more of them than jobs run at a time, so looking at all is cheaper than keeping order.
        self._watched: set[Guard] = set()
        self._wake_at = math.inf
        self._thread: threading.Thread | None = None

    def guard(self, timeout: float | None = None) -> Guard:
        """Make what one attempt's code is called through."""
        return Guard(self, timeout)

    def watch(self, guard: Guard) -> None:
        """Interrupt it when its time comes."""
        with self._lock:
            self._watched.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="durable-stopper", daemon=True
                )
                self._thread.start()
            if guard.due_at < self._wake_at:
                self._changed.set()

    def forget(self, guard: Guard) -> None:
        """Its code is not running any more."""
        with self._lock:
            self._watched.discard(guard)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._changed.clear()
                now = self.clock()
                due = [guard for guard in self._watched if guard.due_at <= now]
                self._watched.difference_update(due)
                self._wake_at = min((guard.due_at for guard in self._watched), default=math.inf)
                pause = min(self._wake_at - now, LONGEST_PAUSE)
            for guard in due:
                guard.fire()
            if due or self._changed.wait(pause if self._watched else LINGER):
                continue
            with self._lock:
                if not self._watched:
                    self._thread = None
                    return


class Guard:
    """Lets the code of one attempt be interrupted, while it runs and at no other moment.

    It interrupts once: then an exception may come at any place in this thread until it has been
    seen, or called back under the lock.
    """

    __slots__ = (
        "_armed",
        "_deliver",
        "_lock",
        "_missed",
        "_raised",
        "_stop_at",
        "_stopper",
        "_thread",
        "_timeout",
        "_timeout_at",
        "_watched",
    )

    def __init__(self, stopper: Stopper, timeout: float | None) -> None:
        self._stopper = stopper
        self._lock = threading.Lock()
        self._armed = False
        self._watched = False
        self._thread = 0
        self._timeout = timeout
        self._timeout_at = self._stop_at = math.inf
        self._deliver: Callable[[type[Stop]], None] | None = None  # in the thread
        self._raised: type[Stop] | None = None
        self._missed = False

    @property
    def due_at(self) -> float:
        """When it is to interrupt, by the monotonic clock."""
        return min(self._timeout_at, self._stop_at)

    def ask_to_stop(self) -> None:
        """Stop the code when the grace is over and it has not ended by itself. From any thread."""
        with self._lock:
            if self._stop_at < math.inf:
                return
            self._stop_at = self._stopper.clock() + self._stopper.grace
            if self._armed:
                self._watched = True
                self._stopper.watch(self)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call the attempt's code; returns and raises what it does.

        Raises JobTimeout or Cancel where it was interrupted. Code that catches that and returns,
        or raises something else, has the last word.
        """
        try:
            try:
                self._arm()
                result = function(*args)
            finally:
                self._disarm()
        except BaseException:
            # It may have come on the way out, before anything was disarmed; it comes only once.
            self._disarm()
            raise
        if self._missed and self._raised is not None:
            raise self._raised
        return result

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, within ``call``: it is interrupted as tasks are, by CancelledError."""
        with self._lock:
            # The loop's own first and last steps are not the job's: what comes then waits.
            self._deliver = _wait
        try:
            return asyncio.run(self._await(coroutine))
        except asyncio.CancelledError:
            if self._raised is not None:
                raise self._raised from None
            raise
        finally:
            coroutine.close()  # where it was interrupted before it could begin

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Await the attempt's code in a loop that others use too; otherwise like ``call``."""
        # The loop's thread is everybody's: nothing is ever raised in it but by a task's cancel().
        self._deliver = _wait
        self._arm()
        try:
            result = await self._await(awaitable)
        except asyncio.CancelledError:
            if self._raised is not None:
                raise self._raised from None
            raise
        finally:
            self._disarm()
        if self._missed and self._raised is not None:
            raise self._raised
        return result

    def fire(self) -> None:
        """Interrupt the code, if it still runs and has not been interrupted."""
        with self._lock:
            if not self._armed or self._raised is not None:
                return
            if self._stop_at <= self._timeout_at:
                self._raised = _stop_class(Cancel, ASKED_TO_STOP)
            else:
                assert self._timeout is not None
                self._raised = _stop_class(JobTimeout, timeout_text(self._timeout))
            (self._deliver or self._raise_in_thread)(self._raised)

    def _arm(self) -> None:
        self._thread = threading.get_ident()
        self._armed = True
        # Whoever asks it to stop says so first and looks then; so one of the two sees the other.
        if self._timeout is not None or self._stop_at < math.inf:
            with self._lock:
                if self._timeout is not None:
                    self._timeout_at = self._stopper.clock() + self._timeout
                self._watched = True
                self._stopper.watch(self)

    def _disarm(self) -> None:
        was_armed, self._armed = self._armed, False
        if not self._watched:
            return  # and so nothing can have been raised; most jobs end here, without a lock
        with self._lock:
            if was_armed and self._raised is not None:
                _set_exception(self._thread, None)
                self._missed = not self._raised.delivered
        self._stopper.forget(self)

    def _raise_in_thread(self, raised: type[Stop]) -> None:
        _set_exception(self._thread, raised)

    async def _await(self, coroutine: Awaitable[T]) -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel(raised: type[Stop]) -> None:
            raised.delivered = True
            task.cancel()

        with self._lock:
            if self._raised is not None:
                raise self._raised
            self._deliver = lambda raised: _soon(loop, cancel, raised)
        try:
            return await coroutine
        finally:
            with self._lock:
                self._deliver = _wait


class Stop(BaseException):
    """What the classes that are raised have in common: they tell whether they arrived."""

    delivered = False


def _stop_class(kind: type[Exception], text: str) -> type[Stop]:
    """Make the class of one interruption: Python raises a class in a thread, without arguments."""

    def arrive(self: Any, *args: Any) -> None:
        type(self).delivered = True
        kind.__init__(self, text)

    names = {
        "__init__": arrive,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__reduce__": lambda self: (kind, (text,)),
    }
    return type(kind.__name__, (kind, Stop), names)


def _wait(raised: type[Stop]) -> None:
    """Deliver nothing: it is raised when the code is over."""


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        log.debug("the loop of an interrupted job is closed already")


def _set_exception(thread: int, kind: type[BaseException] | None) -> None:
    """Let a thread raise this at its next step in Python code; None takes back what it has not."""
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)

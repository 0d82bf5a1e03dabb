"""Children that begin with the application their supervisor has loaded: they are forked (daemon)."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Collection
from typing import NoReturn

from .exceptions import DurableError
from .lifeline import Lifeline, TiedChild


class Forks:
    """Forks the children of a supervisor from its own process.

    ``work`` is what a child does, with its end of the lifeline; what it returns is the child's exit
    code, as is what ``sys.exit`` is given in it. ``signals`` are those that the supervisor handles:
    a child dies of them until it handles them itself.
    """

    def __init__(
        self, work: Callable[[Lifeline], int], *, signals: Collection[signal.Signals]
    ) -> None:
        self._work = work
        self._signals = signals
        self._ends: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def spawn(self, number: int) -> TiedChild:
        """Fork the child of a number; returns in the supervisor only.

        Raises OSError, and DurableError while threads run beside this one.
        """
        check_threads()
        ours, theirs = socket.socketpair()
        self._ends.add(ours)
        # What is left in a buffer both would write.
        _flush_logs()
        _flush()
        with theirs:
            # Whoever is signalled in between hears it afterwards, by a handler of its own.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
            try:
                pid = os.fork()
                if pid == 0:
                    _live(lambda: self._be_child(Lifeline(theirs.detach(), number), before))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return TiedChild(_Fork(pid), ours)

    def _be_child(self, lifeline: Lifeline, mask: Collection[int]) -> int:
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.setsid()
        # As long as one of them is open anywhere, its child takes the supervisor for alive.
        for end in self._ends:
            end.close()
        _read_nothing()
        _forget_exits()
        return self._work(lifeline)


def check_threads() -> None:
    """Raise DurableError while threads run beside this one: a forked process is without them."""
    this = threading.current_thread()
    others = sorted(thread.name for thread in threading.enumerate() if thread is not this)
    if others:
        raise DurableError(
            f"--preload cannot fork while other threads run: {', '.join(others)}; expected an "
            "application that starts none when it is loaded, since the forked processes would be "
            "without them; let it start them at their first use, or leave --preload out"
        )


class _Fork:
    """A forked process, as subprocess shows those that it starts."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # It is gone, and where SIGCHLD is ignored nobody learns how.
                self._code = 0
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # Never to a process that was given the number of one that has ended.
        if self.poll() is None:
            os.kill(self.pid, number)


def _live(work: Callable[[], int]) -> NoReturn:
    """Work, and end as Python does, but for what belongs to the supervisor."""
    code = 1
    try:
        code = _code_of(work)
        _code_of(_finish)
    finally:
        os._exit(code)


def _code_of(work: Callable[[], int]) -> int:
    """What is the exit code where Python itself calls this; errors are printed."""
    try:
        return work() & 0xFF
    except SystemExit as end:
        if end.code is None:
            return 0
        if isinstance(end.code, int):
            return end.code & 0xFF
        sys.stderr.write(f"{end.code}\n")
    except BaseException as error:  # noqa: BLE001 - nothing may get into the supervisor's frames
        sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _finish() -> int:
    # In Python's own order; multiprocessing ends its forks by these too.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _flush()
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # There may be none, or nobody who reads it.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


def _flush_logs() -> None:
    # The list that logging.shutdown goes over; there is no other way to all handlers before 3.12.
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if handler is not None:
            with contextlib.suppress(OSError, ValueError):
                handler.flush()


def _read_nothing() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)


def _forget_exits() -> None:
    """Leave what was registered for the supervisor's end to it: temporary folders, say, which
    are in use. What ends the child's own things is registered anew."""
    atexit._clear()
    atexit.register(logging.shutdown)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    # The next one made registers what runs them at the end.
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import process, util

        # Those of the supervisor, which would be ended too.
        process._children = set()  # type: ignore[attr-defined]
        atexit.register(util._exit_function)  # type: ignore[attr-defined]

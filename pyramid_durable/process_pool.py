"""One process for jobs, as its daemon sees it; Pebble starts it, and anew when it is gone (daemon)."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, Final

from pebble import ProcessExpired, ProcessPool

from .bootstrapping import Ini
from .process_child import READY, STARTED, UNABLE, Report, begin, run_claim
from .records import Claim

TICK: Final = 0.2
"""Seconds between two looks at a process. What it answers is taken at once: this is for deadlines,
and for a death that nobody tells of."""


TICKS_TO_TELL: Final = 5
"""Looks at a process that is gone before we say so. Pebble tells of most deaths at once, but takes
exit code 0 for an end that was wished for."""


class CannotStart(Exception):
    """Raised when a process does not get ready to run jobs; the job has not begun."""


class ChildDied(Exception):
    """Raised when the process ended under its job. ``code`` is its exit code, where it is known."""

    def __init__(self, code: int | None) -> None:
        super().__init__("the process that ran it died" + _how(code))
        self.code = code


class Child:
    """A process that loads the application from its ini and runs jobs, one at a time.

    A pool of one: whoever is ended, or dies, concerns nobody else, and the pool replaces it. (In a
    larger one Pebble starts all processes at the first task, and gives out no task while it waits
    for one of them to end.)
    """

    def __init__(self, ini: Ini) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, self._theirs = context.Pipe()
        self._pool = ProcessPool(
            max_workers=1, initializer=begin, initargs=(ini, self._theirs), context=context
        )
        self._pid: int | None = None
        self._unheard: list[tuple[str, Any]] = []
        self._closing = False

    @property
    def is_usable(self) -> bool:
        """Whether jobs can be given to it: it is alive, or about to be."""
        return not self._closing and self._pool.active

    def await_ready(self) -> None:
        """Wait until it has loaded the application. Raises CannotStart."""
        # Starts it, the first time.
        while self.is_usable:
            self._hear(0.0)
            if self._process() is not None:
                return
            self._hear(TICK)
        self._hear(0.0)
        raise CannotStart("a process for it ended before it was ready")

    def run(
        self,
        claim: Claim,
        waited: float,
        look: Callable[[bool], Any],
        on_start: Callable[[Claim], None] | None = None,
    ) -> Report:
        """Let it run a job claimed ``waited`` seconds ago; returns how that ended.

        ``look`` is called now and then, and told whether the job has begun; ``on_start`` once, soon
        after its own code was reached. Raises ChildDied where the process ended meanwhile,
        CannotStart where it had ended before.
        """
        # What a claim without options shares is no dict, and fits into no pickle.
        claim = claim._replace(options=dict(claim.options))
        try:
            args = (claim, waited, time.time(), on_start is not None)
            future = self._pool.schedule(run_claim, args=args)
        except RuntimeError as error:
            raise CannotStart(str(error)) from error
        gone = 0
        while not wait([future], timeout=TICK).done:
            self._hear_start(claim, on_start)
            look(future.running())
            gone += self._process() is None
            if gone > TICKS_TO_TELL:
                future.cancel()
        self._hear_start(claim, on_start)
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise CannotStart(str(error)) from error
        except ProcessExpired as error:
            raise ChildDied(error.exitcode) from error
        except CancelledError as error:
            raise ChildDied(None) from error

    def ask_to_stop(self, id: str) -> None:
        """Let the job it runs know that it is asked to stop. From one thread only."""
        with contextlib.suppress(OSError):
            self._line.send(id)

    def kill(self) -> None:
        """End the process at once, whatever it does. Pebble's way takes up to three seconds."""
        process = self._process()
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process and the pool. From any thread."""
        if self._closing:
            return
        self._closing = True
        self._pool.stop()
        self.kill()
        # One that is not ready yet ends when its line does.
        self._line.close()
        self._pool.join()
        self._theirs.close()

    def _process(self) -> BaseProcess | None:
        """The process, if it is ready and lives."""
        if self._pid is None:
            return None
        living = multiprocessing.active_children()
        found = next((process for process in living if process.pid == self._pid), None)
        if found is None:
            self._pid = None
        return found

    def _hear(self, timeout: float) -> None:
        while (heard := self._next_word(timeout)) is not None:
            word, what = heard
            if word == UNABLE:
                raise CannotStart(f"a process for it cannot load the application: {what}")
            if word == READY:
                self._pid = what
            timeout = 0.0

    def _hear_start(self, claim: Claim, on_start: Callable[[Claim], None] | None) -> None:
        """Pass on that a job has started; what else is heard is about the next process."""
        if on_start is None:
            return
        others: list[tuple[str, Any]] = []
        while (heard := self._next_word(0.0)) is not None:
            if heard == (STARTED, claim.id):
                on_start(claim)
            else:
                others.append(heard)
        self._unheard = others

    def _next_word(self, timeout: float) -> tuple[str, Any] | None:
        if self._unheard:
            return self._unheard.pop(0)
        try:
            if self._line.poll(timeout):
                heard: tuple[str, Any] = self._line.recv()
                return heard
        except (OSError, EOFError):
            # Closed from another thread, as is_usable tells.
            pass
        return None


def shut_down_before_pebble(shutdown: Callable[[], Any]) -> None:
    """Let a daemon stop gracefully when Python ends: Pebble, asked later, comes first otherwise,
    and ends the processes under their jobs."""
    atexit.register(shutdown)


def _how(code: int | None) -> str:
    if code is None:
        return ""
    return f" of signal {-code}" if code < 0 else f" with exit code {code}"

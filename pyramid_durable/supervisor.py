"""Several daemon processes as one: started, replaced, stopped together (the daemon's supervisor)."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final, Protocol

from .exceptions import DurableError

log = logging.getLogger(__name__)

POLL: Final = 0.2
"""Seconds between two looks at the children. A look is a system call or two for each, and jobs of a
child that died wait for the lease anyway."""

STEADY: Final = 10.0
"""Seconds of work after which the end of a child counts as an accident of its own, and it is
replaced at once; what ends sooner ends again, probably."""

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
"""Seconds before a child that ends at once is replaced: double each time, up to what a store that
comes back after an outage may find bearable."""

MARGIN: Final = 20.0
"""Seconds that a child gets beyond ``shutdown_timeout``: its last writes take up to 5 seconds each
when the store is away (daemon.LAST_WRITES), and Python ends after them."""


class Child(Protocol):
    """A child as its supervisor sees it."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code (minus the signal that killed it), None while it lives."""

    def has_started(self) -> bool:
        """Whether it ever said that it is at work."""

    def stop(self) -> None:
        """Let it finish what it runs, and end."""

    def hurry(self) -> None:
        """Let it end without waiting for what it runs."""

    def kill(self) -> None:
        """End it at once."""

    def close(self) -> None:
        """Let go of what tied it to the supervisor."""


@dataclass(kw_only=True)
class _Place:
    """One of the N: the child that fills it, or when the next one is due."""

    number: int
    child: Child | None = None
    due: float = float("-inf")
    working_since: float | None = None
    quick_ends: int = 0
    proven: bool = False


class Supervisor:
    """Keeps a number of children running until it is asked to stop.

    ``spawn`` starts the child of a number, from 1; it raises OSError where it cannot at this moment,
    DurableError where it never will. A child may take ``patience`` seconds to end, and MARGIN
    beyond. ``on_signal`` is for ``signal.signal``.
    """

    def __init__(
        self,
        spawn: Callable[[int], Child],
        *,
        processes: int,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spawn = spawn
        self._places = [_Place(number=number) for number in range(1, processes + 1)]
        self._patience = patience
        self._clock = clock
        # Not an Event: set in a handler, it may find its lock taken by the very wait that the
        # signal interrupted.
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopping = False
        self._deadline = float("inf")
        self._graceful = True
        self._failure: str | None = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Ask to stop; a second signal, unless it is SIGHUP, does not wait for what is running."""
        self._signals.put(number)

    def run(self) -> bool:
        """Supervise until all children have ended; True when they ended by themselves.

        Raises DurableError when a first child could not start: what stops it stops the next one.
        Also when a later one never will; the others may finish before.
        """
        while self.tick():
            with contextlib.suppress(queue.Empty):
                number = self._signals.get(timeout=POLL)
                if number != signal.SIGHUP or not self._stopping:
                    self.ask_to_stop()
        if self._failure is not None:
            raise DurableError(self._failure)
        return self._graceful

    def ask_to_stop(self) -> None:
        """Stop the children gracefully; asked again, hurry them."""
        if self._stopping:
            self._deadline = min(self._deadline, self._clock() + MARGIN)
            for child in self._children():
                child.hurry()
            return
        self._stopping = True
        self._deadline = self._clock() + self._patience + MARGIN
        log.info("stopping %d processes", len(self._children()), extra={"action": "stopping"})
        for child in self._children():
            child.stop()

    def tick(self) -> bool:
        """Look after each child once; False when all is over."""
        now = self._clock()
        for place in self._places:
            if place.child is not None:
                self._look_after(place, place.child, now)
            if place.child is None and not self._stopping and now >= place.due:
                self._start(place, now)
        if now >= self._deadline:
            self._kill()
        return not self._stopping or bool(self._children())

    def _children(self) -> list[Child]:
        return [place.child for place in self._places if place.child is not None]

    def _start(self, place: _Place, now: float) -> None:
        place.working_since = None
        try:
            place.child = self._spawn(place.number)
        except OSError as error:
            self._ended(place, f"could not be started ({error})", now)
            return
        except DurableError as error:
            # It does not pass: whoever looks after this process is to see it end.
            self._fail(f"process {place.number} could not be started: {error}")
            return
        log.info(
            "process %d started: pid %d",
            place.number,
            place.child.pid,
            extra={"action": "process_started", "pid": place.child.pid},
        )

    def _look_after(self, place: _Place, child: Child, now: float) -> None:
        # In this order: a child that is gone by now has said all it had to say.
        code = child.poll()
        if place.working_since is None and child.has_started():
            place.proven, place.working_since = True, now
        if code is None:
            return
        child.close()
        place.child = None
        how = f"(pid {child.pid}) ended with {_shown(code)}"
        if not self._stopping:
            self._ended(place, how, now)
        elif code != 0 and place.working_since is not None:
            self._graceful = False
            log.error("process %d %s", place.number, how, extra={"action": "process_ended"})

    def _ended(self, place: _Place, how: str, now: float) -> None:
        """Decide what becomes of a place whose child ended without being asked to."""
        if not place.proven:
            self._fail(f"process {place.number} {how} before it was at work")
            return
        since = place.working_since
        steady = since is not None and now - since >= STEADY
        place.quick_ends = 0 if steady else place.quick_ends + 1
        pause = 0.0 if steady else min(FIRST_PAUSE * 2 ** (place.quick_ends - 1), LONGEST_PAUSE)
        place.due = now + pause
        log.warning(
            "process %d %s; the next one starts %s",
            place.number,
            how,
            f"in {pause:g} s" if pause else "now",
            extra={"action": "process_ended"},
        )

    def _fail(self, why: str) -> None:
        self._failure = why
        if not self._stopping:
            self.ask_to_stop()

    def _kill(self) -> None:
        self._graceful = False
        self._deadline = float("inf")
        for child in self._children():
            log.error("process %d does not end: killed", child.pid, extra={"action": "killed"})
            child.kill()


def _shown(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

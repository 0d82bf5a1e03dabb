"""The background thread that publishes (both): nobody waits for a socket longer than they said."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection

from .address import Address
from .wire import Wire

log = logging.getLogger(__name__)

# Seconds between two announcements of one process. A daemon's claim takes about as long, so
# more of them would wake nobody earlier; the first one after a pause goes out at once.
ANNOUNCEMENT_GAP = 0.005

# Seconds a failure keeps announcements from trying again: a restart of the broker costs few of
# them, and a day without it one attempt each half minute.
BREAKER_FIRST = 1.0
BREAKER_CEILING = 30.0


class Breaker:
    """Says whether the broker is worth trying. Pure: the caller reads the clock."""

    def __init__(self, first: float = BREAKER_FIRST, ceiling: float = BREAKER_CEILING) -> None:
        self._first = first
        self._ceiling = ceiling
        self._pause = 0.0
        self._opens_again = 0.0

    def is_open(self, now: float) -> bool:
        return now < self._opens_again

    def failed(self, now: float) -> float:
        """Note a failure; return for how long the breaker is open now."""
        self._pause = min(self._pause * 2 or self._first, self._ceiling)
        self._opens_again = now + self._pause
        return self._pause

    def succeeded(self) -> bool:
        """Note a success; return whether it ended a time of failures."""
        recovered = self._pause > 0
        self._pause = self._opens_again = 0.0
        return recovered


class _Call:
    """Something a caller waits for, for a while."""

    def __init__(self, work: Callable[[Wire], None]) -> None:
        self.work = work
        self.is_begun = False
        self.is_given_up = False
        self.ended = threading.Event()
        self.error: BaseException | None = None


class Publisher:
    """Owns one connection and the thread that uses it, in one process.

    Announcements are a set of queue names, so any number of them weighs no more than one each.
    Calls (messages, commands, probes) wait in line, and for the connection; what its caller has
    given up by then is not sent any more.
    """

    def __init__(
        self,
        address: Address,
        *,
        compressor: str | None,
        exit_patience: float,
        clock: Callable[[], float],
    ) -> None:
        self._address = address
        self._compressor = compressor
        self._exit_patience = exit_patience
        self._clock = clock
        self._breaker = Breaker()
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._announced: set[str] = set()
        self._calls: deque[_Call] = deque()
        self._busy = False
        self._closing = False
        self._closes_at_exit = False
        self._thread: threading.Thread | None = None
        self._wire: Wire | None = None
        self._last_error: BaseException | None = None

    def announce(self, queues: Collection[str]) -> None:
        with self._changed:
            if self._breaker.is_open(self._clock()):
                return
            self._ensure_thread()
            if self._announced.issuperset(queues):
                return  # the thread knows, and waits for the gap to be over
            self._announced.update(queues)
            self._changed.notify_all()

    def call(self, work: Callable[[Wire], None], deadline: float) -> None:
        """Do ``work`` on the connection; raise BrokerUnavailable after ``deadline`` seconds."""
        call = _Call(work)
        with self._changed:
            try:
                self._ensure_thread()
            except RuntimeError as exc:  # no more threads, or the interpreter is ending
                raise self._address.unavailable(exc) from exc
            self._calls.append(call)
            self._changed.notify_all()
        if not call.ended.wait(deadline):
            with self._changed:
                call.is_given_up = True
                if call in self._calls:
                    self._calls.remove(call)
            if not call.ended.is_set():
                raise self._address.unavailable(self._explain(deadline, begun=call.is_begun))
        if call.error is not None:
            raise self._address.unavailable(call.error)

    def flush(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def close(self, timeout: float) -> None:
        """Flush, then end the thread; gives up on both after ``timeout`` seconds."""
        if self._pid != os.getpid():
            return
        ends = time.monotonic() + timeout
        self.flush(timeout)
        with self._changed:
            thread, self._closing = self._thread, True
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.05, ends - time.monotonic()))

    def _is_idle(self) -> bool:
        return not (self._announced or self._calls or self._busy)

    def _explain(self, deadline: float, *, begun: bool) -> str:
        reason = f"no answer within {deadline:g} s"
        if begun:
            reason += " (what was sent may arrive all the same)"
        last = self._last_error
        return f"{reason}; before that: {self._address.redact(last)}" if last else reason

    def _ensure_thread(self) -> None:
        self._closing = False
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._run, name="durable-publisher", daemon=True)
        thread.start()
        self._thread = thread
        if not self._closes_at_exit:
            self._closes_at_exit = True
            _close_at_exit(self, self._exit_patience)

    def _run(self) -> None:
        next_announcement = 0.0
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                pause = self._pause(next_announcement)
                while not self._calls and not self._closing and (pause is None or pause > 0):
                    self._changed.wait(pause)
                    pause = self._pause(next_announcement)
                if self._closing and not self._calls:
                    self._announced.clear()
                    self._thread = None
                    wire, self._wire = self._wire, None
                    break
                self._busy = True
                call = self._calls.popleft() if self._calls else None
                queues: set[str] = set()
                if pause is not None and pause <= 0:
                    queues, self._announced = self._announced, queues
            if call is not None:
                self._answer(call)
            if queues:
                self._publish(queues)
                next_announcement = time.monotonic() + ANNOUNCEMENT_GAP
        if wire is not None:
            _guarded(wire.close)

    def _pause(self, next_announcement: float) -> float | None:
        """Return the seconds until there is something to announce, None where there is not."""
        return next_announcement - time.monotonic() if self._announced else None

    def _answer(self, call: _Call) -> None:
        def work(wire: Wire) -> None:
            with self._changed:
                # It took long to connect: the transaction that wanted it may be rolled back.
                if call.is_given_up:
                    return
                call.is_begun = True
            call.work(wire)

        call.error = self._try(work)
        call.ended.set()

    def _publish(self, queues: set[str]) -> None:
        def work(wire: Wire) -> None:
            for queue in sorted(queues):
                wire.announce(queue)

        self._try(work)

    def _try(self, work: Callable[[Wire], None]) -> BaseException | None:
        """Do ``work``; where an old connection fails, once more on a new one."""
        for is_fresh in (self._wire is None, True):
            try:
                if self._wire is None:
                    self._wire = Wire(self._address, self._compressor)
                work(self._wire)
            except Exception as exc:  # noqa: BLE001 - drivers raise anything, and we report it
                self._abandon_wire()
                if is_fresh:
                    self._note_failure(exc)
                    return exc
            else:
                self._note_success()
                return None
        raise AssertionError("unreachable")

    def _note_failure(self, exc: Exception) -> None:
        is_first = self._last_error is None
        self._last_error = exc
        pause = self._breaker.failed(self._clock())
        with self._changed:
            self._announced.clear()
        log.log(
            logging.WARNING if is_first else logging.DEBUG,
            "cannot publish to %s, announcements pause for %g s: %s",
            self._address.shown,
            pause,
            self._address.redact(exc),
            extra={"action": "breaker_opened"},
        )

    def _note_success(self) -> None:
        self._last_error = None
        if self._breaker.succeeded():
            log.info(
                "publishing to %s again",
                self._address.shown,
                extra={"action": "breaker_closed"},
            )

    def _abandon_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            _guarded(wire.abandon)


def _guarded(end: Callable[[], None]) -> None:
    """End a connection, which may fail in any way where it is broken."""
    try:
        end()
    except Exception:
        log.debug("a connection did not close", exc_info=True)


def _close_at_exit(publisher: Publisher, patience: float) -> None:
    """Let the last announcements of a script out, without keeping the publisher alive for it."""
    reference = weakref.ref(publisher)

    def close() -> None:
        found = reference()
        if found is not None:
            found.close(patience)

    atexit.register(close)

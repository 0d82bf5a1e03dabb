"""The thread that calls listeners: they never hold up a job, or the daemon (daemon)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from .events import DurableEvent

log = logging.getLogger(__name__)

LARGEST_BACKLOG: Final = 10_000
"""Events that wait to be told, some megabytes, before jobs are started more slowly; and as many
more until those that come are dropped."""

PATIENCE: Final = 0.5
"""Seconds that the start of a job waits for listeners that are behind: a burst is over by then. It
is a small part of any lease."""


class EventQueue:
    """Tells events one after the other, in the order of ``put``, in a thread of its own.

    The thread starts with the first event. Listeners that are slower than the jobs hold those up a
    little at first; when that does not help, events are dropped, and the number is logged.
    """

    def __init__(self, tell: Callable[[DurableEvent], None]) -> None:
        self._tell = tell
        # An Event of threading is set when all before it is told; None ends the thread.
        self._queue: SimpleQueue[DurableEvent | threading.Event | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._has_room = threading.Event()
        self._has_room.set()
        self._hopeless = False
        self._dropped = 0
        self._closed = False

    def put(self, event: DurableEvent) -> None:
        """Hand over an event; returns at once."""
        backlog = self._queue.qsize()
        if backlog >= LARGEST_BACKLOG:
            self._has_room.clear()
            if backlog >= 2 * LARGEST_BACKLOG:
                self._drop()
                return
        if self._closed:
            return
        self._queue.put(event)
        if self._thread is None:
            self._start()

    def wait_for_room(self) -> None:
        """Wait a moment if listeners are far behind. Called before a job starts."""
        if self._queue.qsize() < LARGEST_BACKLOG or self._hopeless:
            return
        if not self._has_room.wait(PATIENCE):
            self._hopeless = True

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was handed over is told; False when the time was up first.

        Without a ``timeout`` it waits for as long as that takes.
        """
        if self._thread is None or self._is_own_thread():
            return self._queue.empty()
        told = threading.Event()
        self._queue.put(told)
        return told.wait(timeout)

    def stop(self, timeout: float | None) -> bool:
        """Tell what is left and end the thread; False when the time was up first."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return True
        self._queue.put(None)
        if self._is_own_thread():
            return False  # a listener stops the daemon: the rest is told when it returns
        thread.join(timeout)
        if not thread.is_alive():
            return True
        left = self._queue.qsize()
        while not self._queue.empty():
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._queue.put(None)
        log.error(
            "%d events could not be told before the end: a listener takes too long",
            left,
            extra={"action": "events_lost", "number": left},
        )
        return False

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._closed:
                return
            thread = threading.Thread(target=self._work, name="durable-events", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # Of this job's concerns it is the last: the next event tries again.
                log.error("events wait for a thread: %s", error, extra={"action": "events_wait"})
                return
            self._thread = thread

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._tell(item)
            if not self._has_room.is_set() and self._queue.qsize() <= LARGEST_BACKLOG // 2:
                self._note_room()

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1
            first = self._dropped == 1
        if first:
            log.error(
                "listeners are %d events behind; events are dropped until they catch up",
                self._queue.qsize(),
                extra={"action": "events_dropped"},
            )

    def _note_room(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            self._hopeless = False
            self._has_room.set()
        if dropped:
            log.error(
                "listeners have caught up; %d events were dropped meanwhile",
                dropped,
                extra={"action": "events_go_on", "number": dropped},
            )

"""The threads that work off one deque, as many of them as it takes (daemon)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from .pacing import FIRST_LOOK, LONGEST_LOOK, needs_another
from .runs import Run

STOP_GRACE: Final = 1.0
"""Seconds for idle threads to leave when they are told to: they only have to wake up."""


class Worker(threading.Thread):
    """One thread of the crew, what it is running and what it has measured.

    The counters are written by this thread alone and read by others: no lock for each job.
    """

    def __init__(self, work: Callable[[Worker], None], number: int) -> None:
        super().__init__(target=work, args=(self,), name=f"durable-worker-{number}", daemon=True)
        self.parked = threading.Lock()
        self.parked.acquire()
        self.run_now: Run | None = None
        self.since = 0.0
        self.jobs = 0
        self.seconds = 0.0


class Crew:
    """Threads that take what is ``waiting``; ``work`` is what each of them does, asking ``next``.

    A future for each job, and a lock around each hand-over, would cost more than many a job.
    Deques and lists are changed only by their atomic methods; a thread that finds nothing lies
    down on its own lock until a submitter, or another thread that saw more work, wakes it.

    Where others work already, the one that was woken stands by at first, and one at a time does:
    jobs that only compute are done soonest by a single thread, those that wait by all of them. It
    looks every few milliseconds which it is.
    """

    def __init__(self, work: Callable[[Worker], None], *, threads: int) -> None:
        self.waiting: deque[Run] = deque()
        self.workers = [Worker(work, number) for number in range(threads)]
        self._idle: list[Worker] = []
        self._standing_by = threading.Lock()
        self._too_many = False
        self._stopping = False

    def start(self) -> None:
        """Start the threads."""
        for worker in self.workers:
            worker.start()

    def stop(self, *, wait: bool) -> None:
        """Let the threads end, with ``wait`` when their jobs are over."""
        self._stopping = True
        while self._idle:
            self._wake()
        for worker in self.workers:
            if worker.ident is not None and (wait or worker.run_now is None):
                worker.join(None if wait else STOP_GRACE)

    def call(self) -> None:
        """See to it that what waits is taken, or watched."""
        if self._idle and not self._is_watched():
            self._wake()

    def call_another(self) -> None:
        """Likewise, by a thread that works."""
        if self._idle and not self._standing_by.locked():
            self._wake()

    def next(self, worker: Worker) -> Run | None:
        """The next run to execute; waits for one. None when the executor stops."""
        while True:
            at_work = worker.run_now is not None and not self._too_many
            if at_work or self._may_go_on(worker):
                try:
                    return self.waiting.popleft()
                except IndexError:
                    pass
            worker.run_now = None
            if self._stopping:
                return None
            self._idle.append(worker)
            if (self.waiting and not self._is_watched()) or self._stopping:
                # Something came between the look and lying down. If somebody has picked this
                # thread to be woken meanwhile, that call is waited for.
                try:
                    self._idle.remove(worker)
                    continue
                except ValueError:
                    pass
            worker.parked.acquire()

    def busy(self) -> int:
        """How many threads are at work."""
        return sum(1 for worker in self.workers if worker.run_now is not None)

    def jobs(self) -> int:
        """How many jobs the threads have ended."""
        return sum(worker.jobs for worker in self.workers)

    def _is_watched(self) -> bool:
        """Whether a thread watches others that work; where none does, it may sleep for long yet."""
        return self._standing_by.locked() and self.busy() > 0

    def _may_go_on(self, worker: Worker) -> bool:
        """Whether a thread is to take what waits: one that did not work until now, or one that did
        while there were too many."""
        if worker.run_now is not None:
            self._too_many = False
            return False
        if not self.busy():
            return True
        if not self._standing_by.acquire(blocking=False):
            return False
        try:
            return self._stand_by()
        finally:
            self._standing_by.release()

    def _stand_by(self) -> bool:
        """Watch the threads that work while something waits; True when one more is worth it."""
        pause = FIRST_LOOK
        while self.waiting and not self._stopping:
            jobs, since = self.jobs(), time.monotonic()
            time.sleep(pause)  # how late it ends tells whether the interpreter is busy
            seconds = time.monotonic() - since
            busy = self.busy()
            if not busy or needs_another(self.jobs() - jobs, seconds=seconds, late=seconds - pause):
                return True
            self._too_many = busy > 1
            pause = min(pause * 2, LONGEST_LOOK)
        return False

    def _wake(self) -> None:
        try:
            worker = self._idle.pop()
        except IndexError:
            return
        worker.parked.release()

"""The threads that run claimed jobs, and how many jobs to claim for them (daemon)."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor

from .crew import Crew, Worker
from .outcomes import Outcome
from .pacing import (
    BUFFERED_SECONDS,
    LONG_RUNNING,
    LONGEST_WAIT,
    Pace,
    buffer_size,
    room,
)
from .policies import SUSPECT_CRASHES
from .records import Claim
from .runs import Handful, Run

log = logging.getLogger(__name__)

Leave = Callable[[], "Callable[[Outcome], None]"]


class DurableThreadExecutor(BaseExecutor):
    """Runs jobs on a crew of threads, and says how many to claim for it.

    ``perform`` runs one claim, which waited so many seconds, and never raises. It may return None
    and have the job run elsewhere, after it has called its third argument for what to call when
    that has ended. ``may_start`` tells, by the monotonic clock, that the claim's lease is safely held.
    """

    def __init__(
        self,
        perform: Callable[[Claim, float, Leave], Outcome | None],
        *,
        threads: int,
        may_start: Callable[[Claim], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._perform = perform
        self._may_start = may_start
        self._clock = clock
        self._crew = Crew(self._work, threads=threads)
        self._waiting = self._crew.waiting
        self._workers = self._crew.workers
        self._withdrawn: deque[Run] = deque()
        self._elsewhere: dict[str, tuple[Run, float]] = {}
        self._pace = Pace()
        self._measured = (0, 0.0)
        self._useful = threads
        self._buffer = 0
        self._hungry = False
        self._alone: Run | None = None
        self._closed = False

    # What APScheduler calls.

    def start(self, scheduler: Any, alias: str) -> None:
        """Start the threads."""
        super().start(scheduler, alias)
        self._alias = alias
        self._crew.start()

    def shutdown(self, wait: bool = True) -> None:
        """Let the threads end; with ``wait`` when their jobs are over. Waiting claims are kept."""
        self.close()
        self._crew.stop(wait=wait)

    def submit_job(self, job: Handful, run_times: list[datetime]) -> None:
        """Take runs; how many a schedule may have is counted in the store, so not here."""
        self._do_submit_job(job, run_times)

    def _do_submit_job(self, job: Handful, run_times: list[datetime]) -> None:
        runs = job.id
        if runs[0].claim.crashes >= SUSPECT_CRASHES:
            self._alone = runs[0]  # it was claimed alone
        if self._closed:
            self._withdrawn.extend(runs)
            return
        self._waiting.extend(runs)
        if len(self._waiting) <= len(runs):
            # Behind others they are seen by whoever takes the one before them.
            self._crew.call()

    # What the job store asks, from the loop's thread.

    def room(self) -> int:
        """How many jobs to claim now.

        From here on a thread that runs dry wakes the scheduler, until ``fed`` says that there was
        less to claim than room. Said first: a job may end while its thread is still being counted.
        """
        self._hungry = True
        now = self._clock()
        alone = self._alone
        if self._closed or (alone is not None and now - alone.taken_at < LONG_RUNNING):
            return 0
        busy = [worker.since for worker in self._workers if worker.run_now is not None]
        stuck = sum(1 for since in busy if now - since > BUFFERED_SECONDS)
        self._measure()
        if self._waiting and busy:
            # How many threads are worth it for jobs like these; else it stays what it was.
            self._useful = len(busy)
        moving = min(self._useful, len(self._workers) - stuck)
        self._buffer = buffer_size(self._pace, moving=moving)
        idle = len(self._workers) - len(busy)
        waiting = len(self._waiting)
        return room(idle=idle, busy=len(busy), waiting=waiting, buffer=self._buffer)

    def is_quiet(self) -> bool:
        """Whether a suspect can be run: nothing waits, and what runs has proved harmless."""
        return not self._waiting and not any(
            seconds < LONG_RUNNING or run.claim.crashes for run, seconds in self.running()
        )

    def fed(self, *, full: bool) -> None:
        """Note whether the claim filled the room, so that there is probably more."""
        self._hungry = full

    @property
    def waiting(self) -> int:
        """How many claims wait for a thread."""
        return len(self._waiting)

    @property
    def starting(self) -> int:
        """How many more claims would start at once: one, where no thread works. A second may wait
        for the first."""
        return int(not self._waiting and not self._crew.busy())

    def take_back(self) -> list[Claim]:
        """The claims that are to be given back: overdue behind slow jobs, or refused."""
        horizon = math.inf if self._closed else self._clock() - LONGEST_WAIT
        while self._waiting:
            try:
                run = self._waiting.popleft()
            except IndexError:
                break
            if run.taken_at > horizon:
                # Only this thread appends, so the one put back is still the eldest.
                self._waiting.appendleft(run)
                self._crew.call()
                break
            self._withdrawn.append(run)
        claims: list[Claim] = []
        while self._withdrawn:
            try:
                run = self._withdrawn.popleft()
            except IndexError:
                break  # the daemon's stop takes claims back beside the loop
            if run is self._alone:
                self._alone = None
            claims.append(run.claim)
        return claims

    def _measure(self) -> None:
        jobs = self._crew.jobs()
        seconds = sum(worker.seconds for worker in self._workers)
        jobs_before, seconds_before = self._measured
        self._pace = self._pace.after(jobs - jobs_before, seconds - seconds_before)
        self._measured = (jobs, seconds)

    # What the daemon asks.

    def running(self) -> list[tuple[Run, float]]:
        """The runs being executed, and for how many seconds."""
        now = self._clock()
        pairs = [(worker.run_now, now - worker.since) for worker in self._workers]
        running = [(run, seconds) for run, seconds in pairs if run is not None]
        # Asked for last: a run is there before its thread lets go of it.
        elsewhere = self._elsewhere.copy().values()
        known = {run.id for run, _ in running}
        return running + [(run, now - since) for run, since in elsewhere if run.id not in known]

    def holding(self) -> set[tuple[str, int]]:
        """The claims in this executor's hands, as (id, claim_no).

        Looked at in the order in which a claim moves on, so that none slips past.
        """
        runs = [*self._waiting.copy(), *(run for run, _ in self.running())]
        runs += self._withdrawn.copy()
        return {(run.claim.id, run.claim.claim_no) for run in runs}

    def close(self) -> None:
        """Start nothing any more; what waits, and what still comes, is to be given back."""
        self._closed = True
        while self._waiting:
            try:
                self._withdrawn.append(self._waiting.popleft())
            except IndexError:
                break

    def wait(self, timeout: float, hurry: threading.Event) -> bool:
        """Wait until nothing is running; False when ``timeout`` or ``hurry`` came first."""
        deadline = self._clock() + timeout
        while self.running():
            left = deadline - self._clock()
            if left <= 0 or hurry.wait(min(left, 0.02)):
                return not self.running()
        return True

    # The threads.

    def _work(self, worker: Worker) -> None:
        now = self._clock()
        while (run := self._crew.next(worker)) is not None:
            if worker.run_now is None:
                now = self._clock()
            worker.since = now
            worker.run_now = run
            if self._waiting:
                self._crew.call_another()
            events = self._execute(run, now - run.taken_at)
            if events is not None:
                self._over(run, events)
            now = self._clock()
            worker.jobs += 1
            worker.seconds += now - worker.since
            if self._hungry and len(self._waiting) <= self._buffer // 2:
                worker.run_now = None
                self._hungry = False
                self._scheduler.wakeup()

    def _leave(self, run: Run) -> Callable[[Outcome], None]:
        """Note that a run goes on elsewhere; returns what to call when it has ended."""
        self._elsewhere[run.id] = (run, self._clock())

        def come_back(outcome: Outcome) -> None:
            del self._elsewhere[run.id]
            alone = run is self._alone
            self._over(run, self._events(run, outcome))
            if alone:
                self._scheduler.wakeup()

        return come_back

    def _over(self, run: Run, events: Sequence[JobExecutionEvent]) -> None:
        for event in events:
            self._scheduler._dispatch_event(event)
        if run is self._alone:
            self._alone = None

    def _execute(self, run: Run, waited: float) -> Sequence[JobExecutionEvent] | None:
        """Perform a run; None where it is not over: withdrawn, which take_back counts, or left."""
        if self._closed or not self._may_start(run.claim):
            self._withdrawn.append(run)
            if run is self._alone:
                self._alone = None
            return None
        try:
            outcome = self._perform(run.claim, waited, partial(self._leave, run))
        except BaseException as error:
            self._elsewhere.pop(run.id, None)
            # The runner turns what a job raises into an outcome; this is a defect of ours, and
            # must not cost the daemon a thread. The heartbeat finds the claim and gives it back.
            log.critical(
                "job %s: the runner failed: %r",
                run.claim.id,
                error,
                exc_info=True,
                extra={"action": "runner_failed", "job": run.claim.id, "queue": run.claim.queue},
            )
            return ()
        return None if outcome is None else self._events(run, outcome)

    def _events(self, run: Run, outcome: Outcome) -> Sequence[JobExecutionEvent]:
        """What APScheduler's own listeners hear."""
        if not self._scheduler._listeners:
            return ()
        code = EVENT_JOB_EXECUTED if outcome.error is None else EVENT_JOB_ERROR
        event = JobExecutionEvent(
            code, run.id, self._alias, run.due_at, outcome.result, outcome.error
        )
        return (event,)

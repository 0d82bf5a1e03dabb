"""executor="process": jobs run in processes of their own, which can be ended for good (daemon)."""

from __future__ import annotations

import importlib.util
import logging
import math
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final

from .bootstrapping import Ini
from .exceptions import (
    BrokenJob,
    InvalidSetting,
    JobTimeout,
    LostClaim,
    RemoteError,
)
from .outcomes import Outcome, broken, note, raised
from .records import RUNNING, SCHEDULED, Claim
from .retry import Cancel
from .stopping import ASKED_TO_STOP, CANCEL_GRACE, timeout_text
from .telling import SILENT, Telling

if TYPE_CHECKING:
    from .process_child import Report
    from .process_pool import Child, ChildDied

log = logging.getLogger(__name__)

PROCESS: Final = "process"

HARD_GRACE: Final = 1.0
"""Seconds that a job is given after it was interrupted as on a thread, and before its process is
ended: to roll back and tell where it was. Code that does not return from C gets no further."""

START_PAUSE: Final = 5.0
"""Seconds until a job is tried again for which no process could be started: what keeps the
application from loading, a database that is away above all, takes some time to go."""


class Processes:
    """Runs jobs in processes of their own, as many as run at a time, started when needed.

    ``ini`` is what they load the application from. ``may_start`` tells that a claim's lease is
    safely held.
    """

    def __init__(
        self,
        scheduler: Any,
        ini: Ini | None,
        *,
        may_start: Callable[[Claim], bool],
        telling: Telling = SILENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._settings = scheduler.settings
        self._ini = None if ini is None else ini.absolute()
        self._may_start = may_start
        self._telling = telling
        self._clock = clock
        self._rng = Random()
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._running: set[_Run] = set()
        self._closed = False
        self.is_default = self._settings.executor == PROCESS

    def wants(self, claim: Claim) -> bool:
        """Whether this job is to run in a process of its own."""
        return bool(claim.options.get("executor", self._settings.executor) == PROCESS)

    def check(self) -> None:
        """Raise InvalidSetting where processes are the default, and cannot be started."""
        if self.is_default and (reason := self.why_not()):
            raise InvalidSetting(f"scheduler.executor = process: {reason}")

    def why_not(self) -> str | None:
        """Say why no process can be started here; None where it can."""
        if self._ini is None:
            return (
                "this daemon does not know the ini that a process is to load the application from; "
                "expected pscheduler, or scheduler.config_uri = %(__file__)s in the ini"
            )
        if importlib.util.find_spec("pebble") is None:
            return "Pebble is not installed; expected pip install 'pyramid_durable[process]'"
        return None

    def run(self, claim: Claim, *, waited: float) -> Outcome:
        """Run a job that was claimed ``waited`` seconds ago. Never raises what the job does."""
        reason = self.why_not()
        if reason is not None:
            outcome = broken(claim, BrokenJob(f"executor 'process': {reason}"))
            note(log, claim, outcome)
            return outcome
        run = _Run(claim, waited, began=self._clock())
        with self._lock:
            self._running.add(run)
        try:
            return self._run(run)
        finally:
            with self._lock:
                self._running.discard(run)

    def ask_to_cancel(self, ids: Collection[str]) -> None:
        """Let running jobs know that they are asked to stop, and end them when they do not."""
        with self._lock:
            asked = [run for run in self._running if run.claim.id in ids]
        for run in asked:
            run.stop_at = min(run.stop_at, self._clock() + CANCEL_GRACE + HARD_GRACE)
            if run.child is not None:
                run.child.ask_to_stop(run.claim.id)

    def has_begun(self, claim: Claim) -> bool:
        """Whether a process has begun with this job, or is just about to."""
        with self._lock:
            return any(run.claim is claim and run.handed_over for run in self._running)

    def cut_off(self) -> None:
        """End what still runs; its claims are given back by the daemon."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for run in running:
            run.is_cut_off = True
            if run.child is not None:
                run.child.close()

    def stop(self) -> None:
        """End all processes; none is started any more."""
        with self._lock:
            self._closed = True
            children = list(self._children)
            self._children.clear()
        for child in children:
            child.close()

    # One job.

    def _run(self, run: _Run) -> Outcome:
        from .process_pool import CannotStart, ChildDied

        claim = run.claim
        try:
            run.child = self._take()
            run.child.await_ready()
            if not self._may_start(claim):
                return Outcome(state=SCHEDULED, give_back=0.0)
            run.waited += self._clock() - run.began
            run.handed_over = True
            report = run.child.run(
                claim, run.waited, lambda begun: self._look(run, begun), self._telling.starting()
            )
            return self._outcome(report)
        except CannotStart as error:
            return self._given_back(run, error)
        except ChildDied as error:
            return self._ended(run, error)
        finally:
            if run.child is not None:
                self._put_back(run.child)

    def _look(self, run: _Run, begun: bool) -> None:
        """End the process of a job whose time is up, some time after it was told so."""
        now = self._clock()
        if begun and not run.begun:
            run.begun = True
            if run.timeout is not None:
                run.timeout_at = now + run.timeout + HARD_GRACE
        if now < min(run.timeout_at, run.stop_at) or run.child is None:
            return
        if run.verdict is None:
            if run.stop_at <= run.timeout_at or run.timeout is None:
                run.verdict = Cancel(ASKED_TO_STOP)
            else:
                run.verdict = JobTimeout(timeout_text(run.timeout))
        run.child.kill()

    def _outcome(self, report: Report) -> Outcome:
        serializer = self._scheduler.serializer
        return Outcome(
            state=report.state,
            result=None if report.result is None else serializer.loads(report.result),
            error=None if report.error is None else RemoteError(report.error, report.reason),
            completion=report.completion,
            give_back=report.give_back,
            crashed=report.crashed,
            started=report.started,
        )

    def _given_back(self, run: _Run, error: Exception) -> Outcome:
        if run.is_cut_off:
            return _cut_off(run.claim)
        log.error(
            "job %s: %s; it is tried again in %g s",
            run.claim.id,
            error,
            START_PAUSE,
            extra={"action": "process_unable", "job": run.claim.id, "queue": run.claim.queue},
        )
        return Outcome(state=SCHEDULED, error=error, give_back=START_PAUSE)

    def _ended(self, run: _Run, error: ChildDied) -> Outcome:
        """What becomes of a job whose process is gone: it was ended by us, or it crashed."""
        if run.is_cut_off:
            return _cut_off(run.claim)
        claim = run.claim
        if run.verdict is None:
            extra = {"action": "process_died", "job": claim.id, "queue": claim.queue}
            log.error("job %s: %s; it runs again, a few times", claim.id, error, extra=extra)
            return Outcome(
                state=SCHEDULED,
                error=RemoteError(str(error), str(error)),
                give_back=0.0,
                crashed=True,
                started=True,
            )
        outcome = raised(
            claim,
            run.verdict,
            started_at=run.started_at,
            userdata=claim.userdata,
            rng=self._rng,
            zone=self._settings.zone,
            asked_to_stop=run.stop_at < math.inf,
        )
        note(log, claim, outcome)
        return outcome

    # The processes.

    def _take(self) -> Child:
        """A process that has nothing to do. Raises CannotStart when the daemon stops."""
        from .process_pool import CannotStart, Child, shut_down_before_pebble

        assert self._ini is not None
        with self._lock:
            if self._closed:
                raise CannotStart("the daemon stops")
            idle = [child for child in self._idle if child.is_usable]
            dead = [child for child in self._idle if child not in idle]
            child = idle.pop() if idle else Child(self._ini)
            self._idle = idle
            if not self._children:
                shut_down_before_pebble(self._scheduler.shutdown)
            self._children.add(child)
            self._children.difference_update(dead)
        for one in dead:
            one.close()
        return child

    def _put_back(self, child: Child) -> None:
        with self._lock:
            if child.is_usable and not self._closed:
                self._idle.append(child)
                return
            self._children.discard(child)
        child.close()


class _Run:
    """One job in another process. Times are the monotonic clock's."""

    def __init__(self, claim: Claim, waited: float, *, began: float) -> None:
        self.claim = claim
        self.waited = waited
        self.began = began
        self.timeout: float | None = claim.options.get("timeout")
        self.timeout_at = self.stop_at = math.inf
        self.handed_over = self.begun = False
        self.child: Child | None = None
        self.verdict: Exception | None = None
        self.is_cut_off = False

    @property
    def started_at(self) -> datetime:
        """When the job began, by the store's clock."""
        return self.claim.claimed_at + timedelta(seconds=self.waited)


def _cut_off(claim: Claim) -> Outcome:
    error = LostClaim(f"job {claim.id} did not end in time; its process was ended")
    return Outcome(state=RUNNING, error=error)

"""What happens to jobs, as events in the order in which it happened (daemon; run_due)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from .event_queue import EventQueue
from .events import (
    DaemonStarted,
    DaemonStopping,
    Described,
    DurableEvent,
    JobBroken,
    JobCancelled,
    JobCreated,
    JobExpired,
    JobFailed,
    JobRemoved,
    JobRetrying,
    JobStarted,
    JobSucceeded,
    MessageReceived,
    event_job,
)
from .listeners import NOBODY, Listeners
from .outcomes import Outcome, is_deleted_after, reason_of
from .records import (
    BROKEN,
    CANCELLED,
    EXPIRED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    Claim,
    Completion,
)
from .store import Rescued
from .store.retention import Removed

Fence = tuple[str, int]

NEVER_STARTED: Final = (BROKEN, EXPIRED)
"""The ends that come instead of a start."""

DAEMON_GONE: Final = "its daemon is gone"
CUT_OFF: Final = "its daemon stopped and did not wait for it any longer"


class _End(NamedTuple):
    """How an attempt ended that is not written yet."""

    claim: Claim
    outcome: Outcome


class Telling:
    """Takes note of what the parts of a daemon do, and tells those who listen.

    An end is told when it is in the store, under the fence of its claim; of a claim that was lost
    nothing more is told. For what nobody hears no event is made. Any thread may call; nothing here
    waits for a listener, or raises.
    """

    def __init__(self, listeners: Listeners = NOBODY) -> None:
        self._listeners = listeners
        self._queue = EventQueue(listeners.tell)
        self._started: set[Fence] = set()
        self._ends: dict[Fence, _End] = {}
        self._cut_off: set[Fence] = set()
        self.wait_for_room = self._queue.wait_for_room
        self.flush = self._queue.flush
        self.stop = self._queue.stop

    # The daemon itself.

    def daemon_started(self, name: str, queues: tuple[str, ...]) -> None:
        """The daemon takes jobs."""
        self._listeners.refresh()
        self._tell(DaemonStarted, daemon=name, queues=queues)

    def daemon_stopping(self, name: str, queues: tuple[str, ...]) -> None:
        """The daemon takes no more jobs from now on."""
        self._listeners.refresh()
        self._tell(DaemonStopping, daemon=name, queues=queues)

    def message(self, text: str, queue: str) -> None:
        """Somebody has sent a message."""
        self._listeners.refresh()
        self._tell(MessageReceived, text=text, queue=queue)

    # A job, from its claim to its end.

    def claimed(self, claims: Iterable[Claim]) -> None:
        """Jobs were claimed; they have not been handed on yet."""
        self._listeners.refresh()
        if JobCreated in self._listeners.heard:
            for claim in claims:
                if claim.claim_no == 1:
                    self._tell_of(JobCreated, claim, 0)

    def starting(self) -> Callable[[Claim], None] | None:
        """What to call when a job's own code comes next; None where nobody wants to know."""
        return self._start if JobStarted in self._listeners.heard else None

    def ended(self, claim: Claim, outcome: Outcome, *, deleted: bool = False) -> None:
        """An attempt has ended.

        What the outcome leaves to be written is told when ``written`` or ``given_back`` is called.
        ``deleted``: also a job without ``delete_after`` is gone when it has succeeded.
        """
        if not (self._listeners.heard or self._started or self._cut_off):
            return
        fence = (claim.id, claim.claim_no)
        has_started = self._has_started(fence)
        if not self._listeners.heard or outcome.state == RUNNING:
            return
        counts = outcome.give_back is None or outcome.crashed or outcome.started
        if counts and not has_started and outcome.state not in NEVER_STARTED:
            # It failed on its way to its own code, or a delegator has run it.
            self._tell_of(JobStarted, claim, claim.attempt + 1)
        if outcome.completion is not None:
            self._ends[fence] = _End(claim, outcome)
        elif outcome.give_back is None:
            self._tell_end(claim, outcome, None, deleted=deleted or is_deleted_after(claim))

    def cut_off(self, claim: Claim, *, started: bool) -> None:
        """A job is given back although it has not ended; ``given_back`` is called when it is."""
        fence = (claim.id, claim.claim_no)
        if started and not self._has_started(fence):
            self._tell_of(JobStarted, claim, claim.attempt + 1)
        # It may end all the same, and sooner than it is given back.
        self._cut_off.add(fence)

    def written(self, completions: Iterable[Completion], accepted: Collection[Fence]) -> None:
        """Ends were written; those of ``accepted`` were still ours to write."""
        if not self._ends:
            return
        for completion in completions:
            fence = (completion.id, completion.claim_no)
            end = self._ends.pop(fence, None)
            if end is not None and fence in accepted:
                self._tell_end(end.claim, end.outcome, completion, deleted=completion.delete)

    def given_back(self, claim: Claim, reason: str, delay: float) -> None:
        """An attempt was cut short and does not count; the job is due again after ``delay`` s."""
        self._tell_of(JobRetrying, claim, claim.attempt + 1, reason=reason, delay=delay)

    def rescued(self, jobs: Iterable[Rescued], reason: str = DAEMON_GONE) -> None:
        """Jobs were taken from a daemon that is gone, or a process, or a connection."""
        for job in jobs:
            self._listeners.refresh()
            if not job.started:
                continue
            why = f"{reason} (crash {job.crashes})"
            if job.cancelled:
                why = f"it was asked to stop, and {reason}"
                self._tell_of(JobCancelled, job, job.attempt + 1, reason=why)
            elif job.ended:
                error = f"{why}; it was the last one allowed (scheduler.poison_limit)"
                self._tell_of(JobFailed, job, job.attempt + 1, error=error)
            else:
                self._tell_of(JobRetrying, job, job.attempt + 1, reason=why, delay=0.0)

    def removed(self, jobs: Iterable[Removed]) -> None:
        """The rows of these jobs are gone."""
        self._listeners.refresh()
        if JobRemoved in self._listeners.heard:
            for job in jobs:
                self._tell_of(JobRemoved, job, job.attempt)

    def _has_started(self, fence: Fence) -> bool:
        """Whether the start was told; looked at once, when the attempt ends."""
        told = fence in self._started
        if told:
            self._started.discard(fence)
        return told or fence in self._cut_off

    def _start(self, claim: Claim) -> None:
        self._started.add((claim.id, claim.claim_no))
        self._tell_of(JobStarted, claim, claim.attempt + 1)

    def _tell_end(
        self, claim: Claim, outcome: Outcome, completion: Completion | None, *, deleted: bool
    ) -> None:
        # What was written instead of an end that the database could not take is what counts.
        state = outcome.state if completion is None else completion.state
        attempt = claim.attempt + (state not in NEVER_STARTED)
        event, describe = ENDS[state]
        if event in self._listeners.heard:
            self._tell_of(event, claim, attempt, **describe(outcome, completion))
        if deleted:
            self._tell_of(JobRemoved, claim, attempt)

    def _tell_of(
        self, event: type[DurableEvent], job: Described, attempt: int, **fields: Any
    ) -> None:
        if event in self._listeners.heard:
            self._queue.put(event(job=event_job(job, attempt=attempt), **fields))  # type: ignore[call-arg]

    def _tell(self, event: type[DurableEvent], **fields: Any) -> None:
        if event in self._listeners.heard:
            self._queue.put(event(**fields))


SILENT: Final = Telling()
"""Tells nobody anything."""


def _success(outcome: Outcome, completion: Completion | None) -> dict[str, Any]:
    return {"result": outcome.result}


def _retry(outcome: Outcome, completion: Completion | None) -> dict[str, Any]:
    assert completion is not None
    return {
        "reason": reason_of(outcome.error),
        "error": _last_error(completion),
        "delay": completion.delay if completion.due_at is None else None,
        "due_at": completion.due_at,
    }


def _failure(outcome: Outcome, completion: Completion | None) -> dict[str, Any]:
    return {"error": _last_error(completion), "exception": outcome.error}


def _cancel(outcome: Outcome, completion: Completion | None) -> dict[str, Any]:
    return {"reason": reason_of(outcome.error)}


def _expiry(outcome: Outcome, completion: Completion | None) -> dict[str, Any]:
    return {"reason": _last_error(completion)}


def _breakage(outcome: Outcome, completion: Completion | None) -> dict[str, Any]:
    return {"error": _last_error(completion)}


ENDS: Final[dict[str, tuple[type[DurableEvent], Callable[..., dict[str, Any]]]]] = {
    SUCCEEDED: (JobSucceeded, _success),
    SCHEDULED: (JobRetrying, _retry),
    FAILED: (JobFailed, _failure),
    CANCELLED: (JobCancelled, _cancel),
    EXPIRED: (JobExpired, _expiry),
    BROKEN: (JobBroken, _breakage),
}
"""The event of each end, and what it says beside the job."""


def _last_error(completion: Completion | None) -> str:
    """The text of the error that this attempt has added."""
    errors = json.loads((completion and completion.errors) or "[]")
    return str(errors[-1]) if errors else ""

"""How an attempt ended, and what of it goes into the store: pure functions of the claim (daemon)."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import datetime, timedelta, tzinfo
from random import Random
from typing import Any, Final, NamedTuple

from .behaviors import KEY_OPTION, binds_success
from .exceptions import BrokenJob, LostClaim, RemoteError
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
from .retry import Cancel, Retry, decide_retry
from .times import parse_date, utcnow

LONGEST_ERROR: Final = 16_000
"""Characters of one traceback that are kept: the head says where it began, the tail what it was."""
HEAD_OF_ERROR: Final = 4_000

LONGEST_REASON: Final = 200
"""Characters of an exception's message that are said in a reason: it is one line."""

ASKED_FOR: Final = "it asked for another attempt"

KEPT_ERRORS: Final = 50
"""Attempts whose tracebacks are kept, the latest ones: the row is written anew at each attempt."""


NOTES: Final = {
    SUCCEEDED: (logging.DEBUG, "job %s succeeded%s"),
    SCHEDULED: (logging.WARNING, "job %s is tried again: %s"),
    FAILED: (logging.ERROR, "job %s failed: %s"),
    BROKEN: (logging.ERROR, "job %s is broken: %s"),
    CANCELLED: (logging.INFO, "job %s was cancelled: %s"),
    EXPIRED: (logging.WARNING, "job %s expired%s"),
    RUNNING: (logging.WARNING, "job %s was lost: %s"),
}
"""What is logged of an outcome, with its error. Success is silent but for debugging: at ten
thousand jobs a second a line for each would be most of the work."""


class Outcome(NamedTuple):
    """How one attempt ended.

    ``state`` is the job's, ``scheduled`` for another attempt. ``completion`` is None where nothing
    is to be written any more: it was committed with the job's own transaction, or the claim was
    lost. ``give_back`` is set where the attempt does not count: the seconds until it is due again.
    With ``crashed`` it counts against the poison limit, as if its daemon had died; ``started`` tells
    whether the job's own code had been reached by then.
    """

    state: str
    result: Any = None
    error: BaseException | None = None
    completion: Completion | None = None
    give_back: float | None = None
    crashed: bool = False
    started: bool = False


def too_late(claim: Claim, now: datetime) -> str | None:
    """Say why a job must not run any more at ``now``; None where it may.

    An expired one never runs. The misfire grace is for the first attempt: a retry, or what a crash
    left behind, had been in time.
    """
    expires = claim.options.get("expires")
    if expires is not None:
        end = (
            datetime.fromisoformat(expires)
            if isinstance(expires, str)
            else claim.run_at + timedelta(seconds=expires)
        )
        if now > end:
            return f"expired at {end.isoformat(' ', 'seconds')}, before it could run"
    grace = claim.options.get("misfire_grace_time")
    if grace is not None and claim.attempt == 0 and claim.crashes == 0:
        late = (now - claim.run_at).total_seconds()
        if late > grace:
            return f"{late:.0f} s late, its misfire_grace_time is {grace:g} s"
    return None


def expired(claim: Claim, reason: str) -> Outcome:
    """The outcome of a job that came too late."""
    completion = completion_of(claim, EXPIRED, attempt=claim.attempt, error=reason)
    return Outcome(state=EXPIRED, completion=completion)


def broken(claim: Claim, error: BaseException, started_at: datetime | None = None) -> Outcome:
    """The outcome of a job that could not even be called: it is kept, and uses up no attempt."""
    completion = completion_of(
        claim, BROKEN, attempt=claim.attempt, started_at=started_at, error=describe_error(error)
    )
    return Outcome(state=BROKEN, error=error, completion=completion)


def succeeded(
    claim: Claim,
    result: Any,
    *,
    text: str | None,
    started_at: datetime,
    userdata: str | None = None,
    delete: bool = False,
) -> Outcome:
    """The outcome of a job that returned ``result``, which is stored as ``text``."""
    completion = completion_of(
        claim,
        SUCCEEDED,
        attempt=claim.attempt + 1,
        started_at=started_at,
        result=text,
        userdata=userdata,
        delete=delete,
    )
    return Outcome(SUCCEEDED, result, None, completion)


def raised(
    claim: Claim,
    error: BaseException,
    *,
    started_at: datetime,
    userdata: str | None,
    rng: Random,
    zone: tzinfo,
    as_of: datetime | None = None,
    asked_to_stop: bool = False,
) -> Outcome:
    """The outcome of a job that raised: another attempt, or its end.

    The next attempt's time counts from ``as_of`` where that took the clock's place. One that was
    asked to stop is not tried again.
    """
    if isinstance(error, LostClaim):
        return Outcome(state=RUNNING, error=error)
    if isinstance(error, BrokenJob):
        return broken(claim, error, started_at)
    fields: dict[str, Any] = {"attempt": claim.attempt + 1, "started_at": started_at}
    fields["userdata"] = userdata
    if isinstance(error, Cancel):
        completion = completion_of(claim, CANCELLED, error=str(error), **fields)
        return Outcome(state=CANCELLED, error=error, completion=completion)
    fields["error"] = describe_error(error)
    due_at = None
    try:
        again = decide_retry(
            error,
            attempt=claim.attempt + 1,
            max_attempts=claim.max_attempts,
            backoff=claim.options.get("backoff"),
            rng=rng,
        )
        if again is not None and again.date is not None:
            due_at = parse_date(again.date, now=as_of or utcnow(), zone=zone)
        elif again is not None and as_of is not None:
            due_at = as_of + timedelta(seconds=again.delay or 0.0)
    except (ValueError, TypeError, OverflowError) as unreadable:
        # The date of a Retry, or a stored backoff: what cannot be followed ends the job, and says so.
        again, error = None, unreadable
        fields["error"] += f"{unreadable}\n"
    if again is not None and asked_to_stop:
        completion = completion_of(claim, CANCELLED, **fields)
        return Outcome(state=CANCELLED, error=error, completion=completion)
    if again is None:
        return Outcome(state=FAILED, error=error, completion=completion_of(claim, FAILED, **fields))
    completion = completion_of(
        claim,
        SCHEDULED,
        due_at=due_at,
        delay=again.delay,
        max_attempts=again.max_attempts,
        **fields,
    )
    return Outcome(state=SCHEDULED, error=error, completion=completion)


def note(log: logging.Logger, claim: Claim, outcome: Outcome) -> None:
    """Log how an attempt ended."""
    level, text = NOTES[outcome.state]
    if not log.isEnabledFor(level):
        return
    log.log(
        level,
        text,
        claim.id,
        "" if outcome.error is None else repr(outcome.error),
        exc_info=outcome.error if outcome.state == FAILED else None,
        extra={"action": outcome.state, "job": claim.id, "queue": claim.queue},
    )


def completion_of(
    claim: Claim,
    state: str,
    *,
    attempt: int,
    started_at: datetime | None = None,
    result: str | None = None,
    error: str | None = None,
    userdata: str | None = None,
    due_at: datetime | None = None,
    delay: float | None = None,
    delete: bool = False,
    **bound: int | None,
) -> Completion:
    """The completion of this claim; userdata and errors that are not given stay as they were.

    ``error`` is the text of one more error, ``max_attempts`` another bound for the job. A job whose
    row is to go when it has ended goes; a broken one has not run yet, and is kept.
    """
    once_key = None
    if claim.options and state not in (SCHEDULED, BROKEN):
        delete = delete or is_deleted_after(claim)
        if state == SUCCEEDED and binds_success(claim.options):
            once_key = claim.options.get(KEY_OPTION)
    # By place, as the fields stand: by name it takes three times as long, for every job.
    return Completion(
        claim.id,
        claim.owner,
        claim.claim_no,
        state,
        attempt,
        started_at,
        due_at,
        delay,
        bound["max_attempts"] if bound else claim.max_attempts,
        result,
        claim.errors if error is None else with_error(claim.errors, error),
        claim.userdata if userdata is None else userdata,
        None if userdata is None else claim.schedule_id,
        delete,
        once_key,
    )


def is_deleted_after(claim: Claim) -> bool:
    """Tell whether the row goes when the job ends."""
    return bool(
        claim.options.get("delete_after")
        or claim.options.get("behavior") == "DELETE_AFTER_PROCESSING"
    )


def with_error(errors: str | None, text: str) -> str:
    """The stored JSON list of an attempt's errors, with one more.

    NUL and lone surrogates come out escaped, so that every database takes them.
    """
    try:
        before = list(json.loads(errors or "[]"))
    except ValueError:
        before = [str(errors)]
    return json.dumps([*before, shortened(text)][-KEPT_ERRORS:])


def reason_of(error: BaseException | None) -> str:
    """Why an attempt did not succeed, in a line."""
    if isinstance(error, RemoteError):
        return error.reason
    if error is None or isinstance(error, Retry):
        return ASKED_FOR
    if isinstance(error, Cancel):
        return str(error)
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if len(text) > LONGEST_REASON:
        text = f"{text[:LONGEST_REASON]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shortened(text: str) -> str:
    """A text of bounded size, cut in its middle."""
    if len(text) <= LONGEST_ERROR:
        return text
    tail = LONGEST_ERROR - HEAD_OF_ERROR
    cut = len(text) - LONGEST_ERROR
    return f"{text[:HEAD_OF_ERROR]}\n... {cut} characters left out ...\n{text[-tail:]}"


def describe_error(error: BaseException) -> str:
    """The traceback as people read it, beginning at the job's own code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _is_ours(frames: Any) -> bool:
    name = frames.tb_frame.f_globals.get("__name__", "")
    return str(name).startswith("pyramid_durable.")

"""Running what is due here and now, in the calling thread (web, scripts, tests)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from .endings import GiveBack, ending_of, give_back
from .exceptions import StoreUnavailable
from .heartbeat import Heartbeat
from .interfaces import IScheduler
from .outcomes import Outcome
from .records import BROKEN, EXPIRED, FAILED, SCHEDULED, Claim, JobInfo
from .retry import Retry
from .runner import Runner, is_ctrl_c
from .settings import checked_queues
from .telling import Telling

log = logging.getLogger(__name__)

CTRL_C: Final = "the command that ran it was interrupted"


def run_due(
    registry: Any,
    *,
    now: datetime | None = None,
    delete_completed: bool = False,
    ignore_errors: bool = True,
    queues: Sequence[str] | None = None,
    blame: Callable[[BaseException], None] | None = None,
) -> list[JobInfo]:
    """Run what is due in this thread, one job at a time, by priority, then time; see the facade.

    Each job runs once: one that is due again by then, for its next attempt, is left waiting. While
    it works it is a daemon like others, with a lease of its own. A KeyboardInterrupt ends it: the
    job that was running is undone and given back, which uses up no attempt. ``blame`` is called with
    a job's own error before that is raised: it may be of any kind, also of those that we raise.
    """
    scheduler = registry.getUtility(IScheduler)
    settings, store = scheduler.settings, scheduler.store
    queues = checked_queues(queues, settings.queues)
    telling = Telling(scheduler.listeners)
    runner = Runner(registry, telling)
    heart = Heartbeat(
        store,
        queues=queues,
        label=settings.id,
        interval=settings.heartbeat,
        lease=settings.lease,
        poison_limit=settings.poison_limit,
        running=runner.running,
        cancel=runner.ask_to_cancel,
        rescued=telling.rescued,
        removed=telling.removed,
    )
    done: dict[str, JobInfo] = {}
    due_again: dict[str, datetime | None] = {}
    left: list[Claim] = []  # claimed for the next attempt
    cut_short: Claim | None = None
    heart.start()
    try:
        while (claim := _claim_one(store, queues, heart.incarnation, now, telling)) is not None:
            if claim.id in done:
                left.append(claim)
                continue
            before = scheduler.get_job(claim.id)
            outcome = runner.run(claim, now=now, delete_completed=delete_completed)
            telling.ended(claim, outcome, deleted=delete_completed)
            if outcome.error is not None and is_ctrl_c(outcome.error):
                cut_short = claim if outcome.started else None
                raise outcome.error
            _record(store, settings, claim, outcome, telling)
            telling.flush(None)
            if outcome.completion is not None:
                due_again[claim.id] = outcome.completion.due_at
            if outcome.state == EXPIRED:
                continue
            done[claim.id] = scheduler.get_job(claim.id) or replace(
                before, state=outcome.state, attempt=claim.attempt + 1, result=outcome.result
            )
            if not ignore_errors and is_failure(outcome) and outcome.error is not None:
                if blame is not None:
                    blame(outcome.error)
                raise outcome.error
    finally:
        try:
            pairs = [(claim, due_again.get(claim.id)) for claim in left]
            unfinished = _give_back(store, heart.incarnation, pairs)
            if cut_short is not None and (cut_short.id, cut_short.claim_no) in unfinished:
                telling.given_back(cut_short, CTRL_C, 0.0)
        except StoreUnavailable as error:
            log.warning(
                "claims cannot be given back (%s); others take them when the lease ends",
                error,
                extra={"action": "give_back_failed"},
            )
        heart.stop()
        telling.stop(None)
    return list(done.values())


def _give_back(
    store: Any, owner: str, left: Sequence[tuple[Claim, datetime | None]]
) -> set[tuple[str, int]]:
    """Give back these, and what else is ours; returns the (id, claim_no) of the latter."""
    with store.begin() as connection:
        for claim, due_at in left:
            store.holdings.release(connection, [claim], due_at=due_at)
        # What was claimed when an exception came in between, such as Ctrl-C.
        unfinished: set[tuple[str, int]] = store.holdings.owned(connection, owner)
        if unfinished:
            store.holdings.release_owned(connection, owner, unfinished)
    return unfinished


def is_failure(outcome: Outcome) -> bool:
    """Whether the job went wrong; one that asked for another attempt, or cancelled itself, not."""
    if isinstance(outcome.error, Retry):
        return outcome.state == FAILED
    return outcome.state in (FAILED, BROKEN, SCHEDULED)


def _claim_one(
    store: Any, queues: Sequence[str], owner: str, now: datetime | None, telling: Telling
) -> Claim | None:
    as_of = {} if now is None else {"now": now}
    aside: list[Claim] = []
    with store.read() as connection:
        look = store.looks.look(connection, queues, **as_of)
    if look.idle:
        return None
    with store.begin() as connection:
        claims = store.claims.take(connection, owner, look, 1, aside=aside)
    telling.claimed([*aside, *claims])
    return claims[0] if claims else None


def _record(store: Any, settings: Any, claim: Claim, outcome: Outcome, telling: Telling) -> None:
    ending = ending_of(claim, outcome)
    if isinstance(ending, GiveBack):
        give_back(store, [ending], poison_limit=settings.poison_limit, telling=telling)
    elif ending is not None:
        with store.begin() as connection:
            accepted = store.completions.write(connection, [ending])
        telling.written([ending], accepted)

"""What is left to be written of an attempt: how it ended, or that it is given back (daemon)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .outcomes import Outcome, reason_of
from .records import Claim, Completion
from .store import Rescued
from .telling import Telling

LOST: Final = "its process, or its connection to the store, was lost"
"""What is said of an attempt that was cut short before its own code was reached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveBack:
    """A claim to be given back, due again after ``delay`` seconds.

    It had not started, or counts as if it had not; where it was ``crashed`` it runs again at once
    and that counts against the poison limit, as when its daemon dies. ``reason`` says in a line what
    cut it short; None where it had not started.
    """

    claim: Claim
    delay: float = 0.0
    crashed: bool = False
    reason: str | None = None


Ending = Completion | GiveBack


def ending_of(claim: Claim, outcome: Outcome) -> Ending | None:
    """What is to be written of an outcome; None where nothing is any more."""
    if outcome.completion is not None:
        return outcome.completion
    if outcome.give_back is None:
        return None
    reason = reason_of(outcome.error) if outcome.started else None
    return GiveBack(claim=claim, delay=outcome.give_back, crashed=outcome.crashed, reason=reason)


def fence_of(ending: Ending) -> tuple[str, int]:
    """The claim an ending is about, as (id, claim_no)."""
    about = ending.claim if isinstance(ending, GiveBack) else ending
    return about.id, about.claim_no


def size_of(completion: Completion) -> int:
    """The characters of its texts."""
    texts = completion.result, completion.errors, completion.userdata
    return sum(len(text) for text in texts if text)


def give_back(
    store: Any, given_back: Sequence[GiveBack], *, poison_limit: int, telling: Telling
) -> None:
    """Give claims back, in one transaction, and tell of those that had started and were still ours."""
    unstarted: dict[float, list[Claim]] = defaultdict(list)
    started: list[GiveBack] = []
    crashed: dict[tuple[str, int], GiveBack] = {}
    for ending in given_back:
        if ending.crashed:
            crashed[fence_of(ending)] = ending
        elif ending.reason is not None:
            started.append(ending)
        else:
            unstarted[ending.delay].append(ending.claim)
    with store.begin() as connection:
        for delay, claims in unstarted.items():
            store.holdings.release(connection, claims, delay=delay)
        # Few, and one by one: of each it is to be known whether it was still ours.
        freed = [
            ending
            for ending in started
            if store.holdings.release(connection, [ending.claim], delay=ending.delay)
        ]
        rescued: Sequence[Rescued] = ()
        if crashed:
            lost = [ending.claim for ending in crashed.values()]
            rescued = store.daemons.interrupt(connection, lost, poison_limit=poison_limit)
    for ending in freed:
        telling.given_back(ending.claim, ending.reason or LOST, ending.delay)
    for job in rescued:
        telling.rescued([job], crashed[job.id, job.claim_no].reason or LOST)

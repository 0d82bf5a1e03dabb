"""Decisions about schedules and crashes, as pure functions of their input (daemon)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .triggers import Trigger

CATCH_UP_LIMIT = 1000
"""Fire times that one claim makes up for; the next claim goes on from there. It bounds the
transaction of a schedule that fires every second and was away for a day."""


@dataclass(frozen=True, kw_only=True)
class FirePlan:
    """What a due schedule does now.

    ``fires`` are the fire times that become jobs; ``passed`` counts those that do not, by reason
    (``coalesced``, ``overlap``). ``next_at`` is None when the schedule has ended.
    """

    fires: tuple[datetime, ...]
    passed: dict[str, int]
    next_at: datetime | None
    iterations_left: int | None


def plan_fires(
    trigger: Trigger,
    *,
    next_run_at: datetime,
    now: datetime,
    coalesce: bool,
    max_instances: int | None,
    alive: int,
    iterations_left: int | None,
    end_date: datetime | None,
) -> FirePlan:
    """Decide which of the fire times up to ``now`` become jobs.

    With ``coalesce`` several missed ones become the latest of them. ``alive`` is the number of the
    schedule's jobs that have not ended; fire times beyond ``max_instances`` are passed over. The
    end date beats the iterations.
    """
    times: list[datetime] = []
    at: datetime | None = next_run_at
    while at is not None and at <= now and len(times) < CATCH_UP_LIMIT:
        if end_date is not None and at > end_date:
            at = None
            break
        times.append(at)
        at = trigger.next_after(at)
    if at is not None and end_date is not None and at > end_date:
        at = None
    passed: dict[str, int] = {}
    fires = times
    if coalesce and len(times) > 1:
        passed["coalesced"] = len(times) - 1
        fires = times[-1:]
    if max_instances is not None:
        room = max(max_instances - alive, 0)
        if len(fires) > room:
            passed["overlap"] = len(fires) - room
            fires = fires[len(fires) - room :]
    if iterations_left is not None:
        fires = fires[:iterations_left]
        iterations_left -= len(fires)
        if iterations_left <= 0:
            at = None
    return FirePlan(fires=tuple(fires), passed=passed, next_at=at, iterations_left=iterations_left)

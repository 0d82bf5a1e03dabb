"""APScheduler's view of the store: getting due jobs is claiming them (daemon)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NoReturn

from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore

from .exceptions import DurableError, StoreUnavailable
from .pacing import (
    FIRST_CLAIM,
    HEAD_START,
    HUSH,
    HUSH_LOOK,
    LONGEST_WAIT,
    SHARES,
    Takes,
    fair_room,
)
from .policies import SUSPECT_CRASHES
from .promptness import Promptness
from .records import SCHEDULED, Claim
from .runs import Handful, Run, Runs, View, view_of_job, view_of_schedule
from .store import LOOKING

log = logging.getLogger(__name__)

LARGEST_VIEW: Final = 1000
"""Waiting jobs that get_jobs() and print_jobs() show: they hold APScheduler's lock meanwhile."""


class DurableJobStore(BaseJobStore):
    """The job store of the daemon's APScheduler instance, over a Store.

    ``get_due_jobs`` claims as many jobs as the executor can soon start; what it returns are their
    runs, by the handful, which APScheduler hands to the executor. What its loop calls never raises,
    since an exception there ends APScheduler's thread. For people it is there to be read; changes
    go through ``registry.scheduler``.

    ``owner`` gives the incarnation to claim for, ``held`` tells whether its lease is held,
    ``claimed`` is told what was claimed, before anybody has it, and also what was given back at once.
    """

    def __init__(
        self,
        store: Any,
        *,
        queues: Sequence[str],
        executor: Takes,
        owner: Callable[[], str],
        held: Callable[[], bool],
        poll_interval: float,
        claimed: Callable[[Sequence[Claim]], None] = lambda claims: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._store = store
        self._queues = tuple(queues)
        self._executor = executor
        self._owner = owner
        self._held = held
        self._poll_interval = poll_interval
        self._claimed = claimed
        self._clock = clock
        self._wake_at: datetime | None = None
        self._closed = False
        self._hush_until = float("-inf")
        self._promptness = Promptness()
        self._complaint: str | None = None

    # What APScheduler's loop calls.

    def get_due_jobs(self, now: datetime) -> list[Handful]:
        """Claim what is due, within the executor's room; one job for all of it."""
        if runs := self.take(now):
            return [Handful(runs, now)]
        return []

    def take(self, now: datetime) -> Runs:
        """Claim what is due, within the executor's room."""
        if self._closed:
            self._wake_in(None)
            return Runs()
        try:
            claims = self._claim(now)
        except StoreUnavailable as error:
            self._complain(f"waiting for the store: {error}", "store_away")
            self._wake_in(self._poll_interval)
            return Runs()
        except Exception as error:  # noqa: BLE001 - it would end APScheduler's thread
            self._complain(f"claiming failed: {error!r}", "claim_failed", with_traceback=True)
            self._wake_in(self._poll_interval)
            return Runs()
        if claims is None:
            return Runs()
        self._recovered()
        taken_at = self._clock()
        return Runs([Run(claim, now, taken_at) for claim in claims])

    def get_next_run_time(self) -> datetime | None:
        """When to look again, unless something wakes the scheduler before."""
        return self._wake_at

    # What the daemon calls.

    def announced(self) -> None:
        """Be told that something was stored, from any thread."""
        self._promptness.tell()
        self._scheduler.wakeup()

    def close(self) -> None:
        """Claim nothing any more."""
        self._closed = True

    def give_back(self) -> int:
        """Give back the claims the executor will not start; returns how many were still ours."""
        claims = self._executor.take_back()
        if not claims:
            return 0
        with self._store.begin() as connection:
            released: int = self._store.holdings.release(connection, claims)
        if released:
            log.info(
                "%d claimed jobs that could not start soon were given back",
                released,
                extra={"action": "given_back", "number": released},
            )
        return released

    def _claim(self, now: datetime) -> Sequence[Claim] | None:
        """Claim what is due; None where the store was not asked."""
        self.give_back()
        if not self._held():
            self._wake_in(self._poll_interval)
            return None
        room = self._executor.room()
        if room > 0 and self._clock() < self._hush_until and not self._executor.is_quiet():
            self._wake_in(LONGEST_WAIT)
            return None
        if room <= 0:
            # A thread that falls idle wakes the loop; what nothing announces is found by the poll.
            self._wake_in(LONGEST_WAIT if self._executor.waiting else self._poll_interval)
            return None
        if self._promptness.is_wanted(idle=self._is_idle(now)) and self._store.prompt.possible:
            return self._take_promptly()
        return self._look_and_take(room)

    def _is_idle(self, now: datetime) -> bool:
        """Whether a job could start at once, and none was expected by now."""
        looks_later = self._wake_at is not None and now < self._wake_at
        hushed = self._clock() < self._hush_until
        return looks_later and not hushed and self._executor.starting > 0

    def _take_promptly(self) -> Sequence[Claim]:
        """Claim what was announced, without a look; that comes when the job has had its start."""
        claims: Sequence[Claim] = ()
        if self._promptness.goes_first:
            try:
                claims = self._store.prompt.take(self._owner(), self._queues)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - a look may do what this cannot
                self._complain(f"claiming at once failed: {error!r}", "prompt_claim_failed")
            self._promptness.tried(found=bool(claims))
        if claims:
            self._claimed(claims)
        self._executor.fed(full=False)
        looks_at = self._wake_at
        self._wake_in(HEAD_START)
        # However many are announced, a look is not put off.
        self._wake_at = min(filter(None, (looks_at, self._wake_at)))
        return claims

    def _look_and_take(self, room: int) -> Sequence[Claim]:
        claims: Sequence[Claim] = ()
        aside: list[Claim] = []
        with self._store.begin(LOOKING) as connection:
            look = self._store.looks.look(connection, self._queues)
            share = room
            if not look.idle:
                share = self._share(connection, look, room)
                claims = self._take(connection, look, share, aside)
        pause = self._poll_interval
        if look.next_at is not None:
            pause = min(pause, (look.next_at - look.now).total_seconds())
        if not look.idle:
            self._claimed([*aside, *claims])
            if not claims:
                # Locked by others, or paused in this moment: looking at once would spin.
                pause = self._poll_interval
        # Of those found some may have ended, or were put off: there is probably more all the same.
        full = 2 * len(claims) > share
        self._promptness.looked(found=bool(claims), full=full)
        self._executor.fed(full=full)
        self._wake_in(min(pause, LONGEST_WAIT) if claims or self._executor.waiting else pause)
        return claims

    def _share(self, connection: Any, look: Any, room: int) -> int:
        """How many to claim: of many only a share, since other daemons may be free too."""
        if room <= FIRST_CLAIM:
            return room
        due = self._store.looks.number_due(connection, look, room * SHARES)
        return fair_room(room, due)

    def _take(self, connection: Any, look: Any, room: int, aside: list[Claim]) -> Sequence[Claim]:
        """Claim; what is given back at once is put ``aside``."""
        claims: Sequence[Claim] = self._store.claims.take(
            connection,
            self._owner(),
            look,
            room,
            starting=self._executor.starting,
            aside=aside,
        )
        suspect = bool(claims) and claims[0].crashes >= SUSPECT_CRASHES
        if suspect and not self._executor.is_quiet():
            self._store.holdings.release(connection, claims, delay=self._hush())
            aside += claims
            return ()
        return claims

    def _hush(self) -> float:
        """Make room for a suspect, or let the others go first; returns when to look at it again."""
        now = self._clock()
        if now < self._hush_until + HUSH:
            return HUSH
        self._hush_until = now + HUSH
        return HUSH_LOOK

    def _wake_in(self, seconds: float | None) -> None:
        if seconds is None:
            self._wake_at = None
        else:
            self._wake_at = datetime.now(timezone.utc) + timedelta(seconds=max(seconds, 0.0))

    def _complain(self, text: str, action: str, *, with_traceback: bool = False) -> None:
        """Log a kind of failure once, however often it is met before the next success."""
        if action != self._complaint:
            log.error(
                "%s; trying again every %g s",
                text,
                self._poll_interval,
                exc_info=with_traceback,
                extra={"action": action},
            )
        self._complaint = action

    def _recovered(self) -> None:
        if self._complaint is not None:
            log.info("the store is there again, jobs go on", extra={"action": "store_back"})
        self._complaint = None

    # What people call.

    def lookup_job(self, job_id: str) -> View | None:
        """A stored job or schedule, to look at; None where there is none. Or StoreUnavailable."""
        with self._store.read() as connection:
            job = self._store.jobs.get(connection, job_id)
            if job is not None:
                return view_of_job(job, self._scheduler, self._alias)
            schedule = self._store.schedules.get(connection, job_id)
        if schedule is None:
            return None
        return view_of_schedule(schedule, self._scheduler, self._alias)

    def get_all_jobs(self) -> list[View]:
        """Schedules and waiting jobs, to look at, by next run time. May raise StoreUnavailable."""
        with self._store.read() as connection:
            jobs = self._store.jobs.list(connection, state=SCHEDULED, limit=LARGEST_VIEW)
            schedules = self._store.schedules.list(connection)
        views = [view_of_job(job, self._scheduler, self._alias) for job in jobs]
        views += [view_of_schedule(found, self._scheduler, self._alias) for found in schedules]
        far = datetime.max.replace(tzinfo=timezone.utc)
        return sorted(views, key=lambda view: view.next_run_time or far)

    def add_job(self, job: Job) -> NoReturn:
        """Refuse: raises DurableError naming the way."""
        _refuse(f"adding {job.name!r}", "add_async_job, add_date_job, add_interval_job, ...")

    def remove_job(self, job_id: str) -> NoReturn:
        """Refuse: raises DurableError naming the way."""
        _refuse(f"removing {job_id!r}", "remove_job(id) or cancel_job(id)")

    def update_job(self, job: Job) -> NoReturn:
        """Refuse: raises DurableError naming the way."""
        _refuse(f"changing {job.id!r}", "modify_job, reschedule_job, pause_job or resume_job")

    def remove_all_jobs(self) -> NoReturn:
        """Refuse: raises DurableError naming the way."""
        _refuse("removing all jobs", "remove_job(id)")


def _refuse(what: str, instead: str) -> NoReturn:
    raise DurableError(
        f"{what} through APScheduler is refused: its view of the store is for reading; "
        f"use registry.scheduler: {instead}"
    )

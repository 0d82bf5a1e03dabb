"""The verbs that look: at jobs, schedules, fire times and figures; nothing is changed (both)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from types import MappingProxyType
from typing import Any

from .bound import Bound
from .exceptions import InvalidJob
from .job_infos import upcoming
from .records import CRON, INTERVAL, STATES, JobInfo, QueueStats, ScheduleInfo, Stats
from .times import get_zone, parse_date, utcnow
from .triggers import fire_times


class Looking(Bound):
    """Each answer is how things are at the moment of the question, this transaction included.

    Raises DurableError where the store is out of reach (``producer = broker``), StoreUnavailable.
    """

    def get_job(self, id: str) -> JobInfo | None:
        """The job as it is now, None if there is none by that id."""
        scheduler = self._scheduler
        with scheduler.reading(self._request()) as connection:
            job = scheduler.store.jobs.get(connection, str(id))
        return None if job is None else scheduler.infos.job(job)

    def get_jobs(
        self,
        queue: str | None = None,
        state: str | Collection[str] | None = None,
        func: Any = None,
        group: str | None = None,
        limit: int | None = None,
        *,
        schedule_id: str | None = None,
        before: str | None = None,
        offset: int = 0,
    ) -> list[JobInfo]:
        """The jobs that match, newest first. ``state`` is one or several of records.STATES.

        ``limit`` is the length of a page (default: all), ``before`` the last id of the page before.
        Raises InvalidJob for a state that does not exist.
        """
        for name in [state] if isinstance(state, str) else state or ():
            if name not in STATES:
                raise InvalidJob(f"state {name!r} does not exist; there are: {', '.join(STATES)}")
        scheduler = self._scheduler
        with scheduler.reading(self._request()) as connection:
            jobs = scheduler.store.jobs.list(
                connection,
                queue=queue,
                state=state,
                func=None if func is None else scheduler.specs.reference(func),
                group=group,
                schedule_id=schedule_id,
                before=before,
                limit=limit,
                offset=offset,
            )
        return [scheduler.infos.job(job) for job in jobs]

    def get_schedules(
        self,
        queue: str | None = None,
        func: Any = None,
        group: str | None = None,
        limit: int | None = None,
        *,
        paused: bool | None = None,
        offset: int = 0,
    ) -> list[ScheduleInfo]:
        """The schedules that match, by id; ``paused`` True or False: only such."""
        scheduler = self._scheduler
        with scheduler.reading(self._request()) as connection:
            found = scheduler.store.schedules.list(
                connection,
                queue=queue,
                func=None if func is None else scheduler.specs.reference(func),
                group=group,
                paused=paused,
                limit=limit,
                offset=offset,
            )
        return [scheduler.infos.schedule(schedule) for schedule in found]

    def get_schedule(self, id: str) -> ScheduleInfo | None:
        """The schedule as it is now, None if there is none by that id."""
        scheduler = self._scheduler
        with scheduler.reading(self._request()) as connection:
            schedule = scheduler.store.schedules.get(connection, str(id))
        return None if schedule is None else scheduler.infos.schedule(schedule)

    def stats(self) -> Stats:
        """How the queues are doing: jobs by state, the oldest due one, daemons, whether paused.

        Of the configured queues, in their order, and of others that have jobs. It is told by the
        indexes, so what it costs does not grow with the jobs' arguments and results.
        """
        scheduler = self._scheduler
        with scheduler.reading(self._request()) as connection:
            store = scheduler.store
            jobs = store.stats.counts(connection)
            names = list(dict.fromkeys((*scheduler.settings.queues, *sorted(jobs))))
            oldest = store.stats.oldest_due(connection, names)
            paused = store.queues.paused(connection)
            now = store.now(connection)
            daemons = [
                daemon
                for daemon in store.daemons.list(connection)
                if (now - (daemon.heartbeat_at or now)).total_seconds() < scheduler.settings.lease
            ]
        queues = {
            name: QueueStats(
                name=name,
                paused=name in paused,
                jobs=MappingProxyType(jobs.get(name, {})),
                oldest_due=_age(*oldest[name]),
                daemons=sum(name in daemon.queues for daemon in daemons),
            )
            for name in names
        }
        return Stats(queues=MappingProxyType(queues), daemons=len(daemons))

    def next_run_times(
        self, id_or_kind: str, count: int = 10, after: Any = None, **trigger: Any
    ) -> list[datetime]:
        """The next ``count`` fire times after ``after`` (default: now), in the schedule's zone.

        Of a schedule by id, or of a trigger: ``("cron", crontab="0 3 * * *", timezone=...)``.
        Raises InvalidJob where there is no such schedule, TypeError for a field that the trigger
        does not have, and for any beside an id.
        """
        scheduler = self._scheduler
        now = utcnow()
        start = now if after is None else parse_date(after, now=now, zone=scheduler.settings.zone)
        if id_or_kind in (CRON, INTERVAL):
            made = scheduler.specs.trigger(id_or_kind, trigger, now=now)
            return [
                time.astimezone(get_zone(made.timezone)) for time in fire_times(made, start, count)
            ]
        if trigger:
            raise TypeError(
                f"next_run_times({id_or_kind!r}, {next(iter(trigger))}=...): a schedule has its "
                f"trigger; fields of one are taken after {CRON!r} or {INTERVAL!r}"
            )
        with scheduler.reading(self._request()) as connection:
            schedule = scheduler.store.schedules.get(connection, id_or_kind)
        if schedule is None:
            raise InvalidJob(
                f"there is no schedule {id_or_kind!r}; expected the id of one, or {CRON!r} or "
                f"{INTERVAL!r} with the fields of a trigger"
            )
        return upcoming(schedule, start, count)


def _age(now: datetime, due_at: datetime | None) -> float | None:
    if due_at is None or due_at > now:
        return None
    return (now - due_at).total_seconds()

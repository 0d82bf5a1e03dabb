"""The verbs that applications call: registry.scheduler and request.scheduler share them (both)."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .calls import Call, spec_call
from .enqueue import is_in_transaction
from .exceptions import DurableError, InvalidJob, InvalidQueue
from .interfaces import IRunDue
from .job_infos import upcoming
from .placing import place
from .records import ASYNC, CRON, INTERVAL, STATES, JobInfo, JobSpec, ScheduleInfo
from .times import get_zone, parse_date, utcnow
from .triggers import fire_times

if TYPE_CHECKING:
    from .scheduler import Scheduler

Args = Sequence[Any] | None
Kwargs = Mapping[str, Any] | None


class Facade(ABC):
    """What can be asked of the scheduler. Each verb joins the transaction of ``_request()``.

    Every ``add_*`` returns the id. Inside a transaction the job exists exactly if the transaction
    commits; outside one, at once.

    Raises InvalidJob for what cannot be stored, InvalidQueue for an unknown queue, TypeError for
    an unknown option, DuplicateJob for an id that is taken, StoreUnavailable.
    """

    @property
    @abstractmethod
    def _scheduler(self) -> Scheduler: ...

    @abstractmethod
    def _request(self) -> Any: ...

    def add_async_job(
        self,
        func: Any,
        args: Args = None,
        kwargs: Kwargs = None,
        queue: str | None = None,
        **options: Any,
    ) -> str:
        """Run ``func`` as soon as a daemon has room for it.

        With ``executor="inline"`` this process runs it, after the commit, and waits for its end.
        """
        call = Call("add_async_job", func, args, kwargs, queue, options)
        return self._add(self._scheduler.specs.async_job(call))

    def add_date_job(
        self,
        func: Any,
        date: Any,
        args: Args = None,
        kwargs: Kwargs = None,
        queue: str | None = None,
        **options: Any,
    ) -> str:
        """Run ``func`` at ``date``: datetime, epoch, timedelta from now, "5d", ISO 8601 text."""
        call = Call("add_date_job", func, args, kwargs, queue, options)
        return self._add(self._scheduler.specs.date_job(call, date))

    def add_interval_job(
        self,
        func: Any,
        start_date: Any = None,
        args: Args = None,
        kwargs: Kwargs = None,
        queue: str | None = None,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        **options: Any,
    ) -> str:
        """Run ``func`` again and again, first at ``start_date``, else an interval from now."""
        call = Call("add_interval_job", func, args, kwargs, queue, options)
        fields = {
            "weeks": weeks,
            "days": days,
            "hours": hours,
            "minutes": minutes,
            "seconds": seconds,
        }
        return self._add_schedule(call, INTERVAL, start_date, fields)

    def add_cron_job(
        self,
        func: Any,
        start_date: Any = None,
        args: Args = None,
        kwargs: Kwargs = None,
        queue: str | None = None,
        year: Any = None,
        month: Any = None,
        day: Any = None,
        week: Any = None,
        day_of_week: Any = None,
        hour: Any = None,
        minute: Any = None,
        second: Any = None,
        crontab: str | None = None,
        **options: Any,
    ) -> str:
        """Run ``func`` whenever the fields, or the ``crontab``, match; not before ``start_date``."""
        call = Call("add_cron_job", func, args, kwargs, queue, options)
        fields = {
            "year": year,
            "month": month,
            "day": day,
            "week": week,
            "day_of_week": day_of_week,
            "hour": hour,
            "minute": minute,
            "second": second,
            "crontab": crontab,
        }
        return self._add_schedule(call, CRON, start_date, fields)

    def add_jobs(self, specs: Iterable[Mapping[str, Any]]) -> list[str]:
        """Add many at once, all or none: one dict for each, with the arguments of an ``add_*``.

        ``date`` makes a date job, fields of a trigger a schedule, neither an async job. Returns
        the ids in the order of ``specs``; an error names the entry.
        """
        maker = self._scheduler.specs
        jobs: list[JobSpec] = []
        schedules: list[tuple[int, Call, str, Any, dict[str, Any]]] = []
        ids: list[str] = []
        for number, spec in enumerate(specs):
            with _naming(number):
                call, kind, date, fields = spec_call(spec)
                if fields:
                    schedules.append((number, call, kind, date, fields))
                    ids.append("")
                    continue
                job = maker.async_job(call) if kind == ASYNC else maker.date_job(call, date)
                jobs.append(job)
                ids.append(job.id)
        if not ids:
            return ids
        with self._scheduler.outbox(self._request()) as outbox:
            made = []
            for number, call, kind, date, fields in schedules:
                with _naming(number):
                    made.append(maker.schedule(call, kind, date, fields, now=outbox.now()))
                ids[number] = made[-1].id
            place(self._scheduler, self._request(), outbox, jobs, made)
        return ids

    def cancel_job(self, id: str, queue: str | None = None) -> bool:
        """Cancel a job that waits, ask one that runs to stop, end a schedule.

        With ``queue`` only there. True if it changed anything; an unknown id is no error.
        """
        with self._scheduler.outbox(self._request()) as outbox:
            return outbox.cancel(str(id), queue)

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
        offset: int = 0,
    ) -> list[JobInfo]:
        """The jobs that match, newest first. ``state`` is one or several of records.STATES.

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
                limit=limit,
                offset=offset,
            )
        return [scheduler.infos.job(job) for job in jobs]

    def get_schedules(
        self, queue: str | None = None, limit: int | None = None
    ) -> list[ScheduleInfo]:
        """The schedules, by id."""
        scheduler = self._scheduler
        with scheduler.reading(self._request()) as connection:
            found = scheduler.store.schedules.list(connection, queue=queue, limit=limit)
        return [scheduler.infos.schedule(schedule) for schedule in found]

    def next_run_times(
        self, id_or_kind: str, count: int = 10, after: Any = None, **trigger: Any
    ) -> list[datetime]:
        """The next ``count`` fire times after ``after`` (default: now), in the schedule's zone.

        Of a schedule by id, or of a trigger: ``("cron", crontab="0 3 * * *", timezone=...)``.
        Raises InvalidJob where there is no such schedule.
        """
        scheduler = self._scheduler
        now = utcnow()
        start = now if after is None else parse_date(after, now=now, zone=scheduler.settings.zone)
        if id_or_kind in (CRON, INTERVAL):
            made = scheduler.specs.trigger(id_or_kind, trigger, now=now)
            return [
                time.astimezone(get_zone(made.timezone)) for time in fire_times(made, start, count)
            ]
        with scheduler.reading(self._request()) as connection:
            schedule = scheduler.store.schedules.get(connection, id_or_kind)
        if schedule is None:
            raise InvalidJob(
                f"there is no schedule {id_or_kind!r}; expected the id of one, or {CRON!r} or "
                f"{INTERVAL!r} with the fields of a trigger"
            )
        return upcoming(schedule, start, count)

    def send_message(self, text: str, queue: str | None = None) -> None:
        """Send ``text`` to every living daemon of ``queue`` (default: the default queue).

        Best effort: nothing is kept. Raises BrokerUnavailable, InvalidQueue.
        """
        scheduler = self._scheduler
        scheduler.broker.send_message(text, scheduler.specs.queue(queue))

    def run_due(
        self, now: Any = None, delete_completed: bool = False, ignore_errors: bool = True
    ) -> list[JobInfo]:
        """Run what is due here and now, one job at a time, by priority, then time.

        ``now`` takes the clock's place for what is due, expired or too late, and for when a job is
        tried again. Returns the jobs that were run. With ``ignore_errors=False`` the first failure
        stops it and is raised. Ctrl-C stops it too: the running job is undone and given back.

        Raises DurableError inside a transaction: the jobs would not see what it has written, and
        might wait for it forever.
        """
        scheduler = self._scheduler
        if is_in_transaction(self._request(), scheduler.settings.dbsession):
            raise DurableError(
                "run_due() inside a transaction: each job needs one of its own; "
                "call it after the commit, or outside of a request"
            )
        if now is not None:
            now = parse_date(now, now=utcnow(), zone=scheduler.settings.zone)
        run: Any = scheduler.registry.getUtility(IRunDue)
        done: list[JobInfo] = run(
            scheduler.registry,
            now=now,
            delete_completed=delete_completed,
            ignore_errors=ignore_errors,
        )
        return done

    def _add(self, job: JobSpec) -> str:
        with self._scheduler.outbox(self._request()) as outbox:
            place(self._scheduler, self._request(), outbox, (job,))
        return job.id

    def _add_schedule(
        self, call: Call, kind: str, start_date: Any, fields: Mapping[str, Any]
    ) -> str:
        scheduler = self._scheduler
        with scheduler.outbox(self._request()) as outbox:
            schedule = scheduler.specs.schedule(call, kind, start_date, fields, now=outbox.now())
            outbox.add((), (schedule,))
        return schedule.id


@contextlib.contextmanager
def _naming(number: int) -> Iterator[None]:
    """Name the entry of add_jobs that an error is about."""
    try:
        yield
    except (InvalidJob, InvalidQueue, TypeError) as error:
        raise type(error)(f"specs[{number}]: {error}") from error

"""The verbs that applications call: registry.scheduler and request.scheduler share them (both)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .calls import Call, spec_call
from .changing import Changing
from .enqueue import is_in_transaction
from .exceptions import DurableError, InvalidJob, InvalidQueue
from .interfaces import IRunDue
from .looking import Looking
from .patterns import Batch
from .placing import place, place_one
from .records import ASYNC, CRON, INTERVAL, JobInfo, JobSpec
from .times import parse_date, utcnow

NAMED: Final = (InvalidJob, InvalidQueue, TypeError)
"""Errors about an entry of add_jobs, which say which one it is."""

Args = Sequence[Any] | None
Kwargs = Mapping[str, Any] | None


class Facade(Looking, Changing):
    """What can be asked of the scheduler. Each verb joins the transaction of its request.

    What is added stands here; Looking has what is asked, Changing what becomes of it.

    Every ``add_*`` returns the id. Inside a transaction the job exists exactly if the transaction
    commits; outside one, at once.

    Raises InvalidJob for what cannot be stored, InvalidQueue for an unknown queue, TypeError for
    an unknown option, DuplicateJob for an id that is taken, StoreUnavailable.
    """

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
        specs = list(specs)
        batch = Batch(len(specs))
        jobs: list[JobSpec] = []
        schedules: list[tuple[int, Call, str, Any, dict[str, Any]]] = []
        ids: list[str] = []
        for number, spec in enumerate(specs):
            try:
                call, kind, date, fields = spec_call(spec)
                if fields:
                    schedules.append((number, call, kind, date, fields))
                    ids.append("")
                    continue
                if kind == ASYNC:
                    job = maker.async_job(call, batch)
                else:
                    job = maker.date_job(call, date, batch)
            except NAMED as error:
                raise _named(number, error) from error
            jobs.append(job)
            ids.append(job.id)
        if not ids:
            return ids
        with self._scheduler.outbox(self._request()) as outbox:
            made = []
            for number, call, kind, date, fields in schedules:
                try:
                    made.append(maker.schedule(call, kind, date, fields, now=outbox.now()))
                except NAMED as error:
                    raise _named(number, error) from error
                ids[number] = made[-1].id
            place(self._scheduler, self._request(), outbox, jobs, made)
        return ids

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
        place_one(self._scheduler, self._request(), job)
        return job.id

    def _add_schedule(
        self, call: Call, kind: str, start_date: Any, fields: Mapping[str, Any]
    ) -> str:
        scheduler = self._scheduler
        with scheduler.outbox(self._request()) as outbox:
            schedule = scheduler.specs.schedule(call, kind, start_date, fields, now=outbox.now())
            outbox.add((), (schedule,))
        return schedule.id


def _named(number: int, error: Exception) -> Exception:
    """The error with the entry of add_jobs that it is about."""
    return type(error)(f"specs[{number}]: {error}")

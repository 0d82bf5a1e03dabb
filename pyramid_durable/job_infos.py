"""Rows of the store as people see them: texts read back into values (web and daemon)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from .exceptions import BrokenJob, InvalidSetting
from .records import SCHEDULED, JobInfo, ScheduleInfo, StoredJob, StoredSchedule
from .serializers import Serializer, stored_serializer
from .times import get_zone
from .triggers import Trigger, fire_times, from_json

UNREADABLE: Final = (BrokenJob, InvalidSetting)
"""Of a text that is damaged, and of one whose serializer is not there any more."""


class Infos:
    """Shows rows of the store. What cannot be read is left empty: a list never fails over one row.

    Texts that json or pickle wrote are read by these, also when another serializer is set by now.
    """

    def __init__(self, serializer: Serializer, secrets: tuple[str, ...]) -> None:
        self._own = serializer
        self._serializers: dict[str, Serializer] = {}
        self._secrets = secrets

    def _serializer(self, codec: str) -> Serializer:
        if codec not in self._serializers:
            self._serializers[codec] = stored_serializer(codec, self._own, self._secrets)
        return self._serializers[codec]

    def job(self, job: StoredJob) -> JobInfo:
        """Show a job."""
        args, kwargs, unread = self._call(job.payload, job.codec)
        errors = tuple(str(error) for error in json.loads(job.errors or "[]"))
        return JobInfo(
            id=job.id,
            name=job.name or job.func,
            func=job.func,
            args=args,
            kwargs=kwargs,
            queue=job.queue,
            priority=job.priority,
            state=job.state,
            kind=job.kind,
            # A job that waits for another attempt is due later than it first was.
            run_at=job.due_at if job.state == SCHEDULED and job.due_at else job.run_at,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            error=errors[-1] if errors else unread,
            errors=errors,
            result=self._value(job.result, job.codec),
            userdata=self._value(job.userdata, job.codec) or {},
            progress=job.progress,
            group=job.group,
            schedule_id=job.schedule_id,
            expires_at=_expiry(job.options.get("expires"), job.run_at),
            daemon=job.daemon,
            paused=job.paused,
        )

    def schedule(self, schedule: StoredSchedule) -> ScheduleInfo:
        """Show a schedule."""
        args, kwargs, _ = self._call(schedule.job.payload, schedule.job.codec)
        return ScheduleInfo(
            id=schedule.id,
            name=schedule.job.name or schedule.id,
            func=schedule.job.func,
            args=args,
            kwargs=kwargs,
            queue=schedule.job.queue,
            trigger=schedule.trigger,
            timezone=schedule.timezone,
            next_run_at=schedule.next_run_at,
            last_run_at=schedule.last_run_at,
            paused=schedule.paused,
            iterations_left=schedule.iterations_left,
            start_date=schedule.start_date,
            end_date=schedule.end_date,
        )

    def _call(
        self, payload: str, codec: str
    ) -> tuple[tuple[Any, ...], Mapping[str, Any], str | None]:
        try:
            args, kwargs = self._serializer(codec).load_call(payload)
        except UNREADABLE as error:
            return (), {}, f"the arguments cannot be read: {error}"
        return args, kwargs, None

    def _value(self, text: str | None, codec: str) -> Any:
        if text is None:
            return None
        try:
            return self._serializer(codec).loads(text)
        except UNREADABLE:
            return None


def upcoming(schedule: StoredSchedule, after: datetime, count: int) -> list[datetime]:
    """The next fire times of a stored schedule that are later than ``after``, in its zone."""
    first = schedule.next_run_at
    if first is None:
        return []
    trigger = from_json(schedule.trigger)
    if schedule.iterations_left is None:
        times = [first] if first > after else []
        times += fire_times(trigger, max(first, after), count - len(times))
    else:
        times = _counted(trigger, first, schedule.iterations_left, after, count)
    zone = get_zone(schedule.timezone)
    return [time.astimezone(zone) for time in times[:count]]


def _counted(
    trigger: Trigger, first: datetime, left: int, after: datetime, count: int
) -> list[datetime]:
    """Those of the last ``left`` times from ``first`` on that are later than ``after``.

    The ones before have to be gone through: they use up iterations.
    """
    times: list[datetime] = []
    at: datetime | None = first
    while at is not None and left > 0 and len(times) < count:
        if at > after:
            times.append(at)
        at = trigger.next_after(at)
        left -= 1
    return times


def _expiry(expires: Any, run_at: datetime) -> datetime | None:
    if expires is None:
        return None
    if isinstance(expires, str):
        return datetime.fromisoformat(expires)
    try:
        return run_at + timedelta(seconds=expires)
    except OverflowError:
        return None  # beyond the year 9999: never

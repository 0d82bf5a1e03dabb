"""When schedules fire: interval and cron triggers, pure of clocks and randomness (web and daemon).

All times given and returned are aware; those returned are in UTC.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from random import Random
from typing import Any, ClassVar, Final

from .calendar_walk import Calendar, next_instant
from .cron_fields import FIELD_NAMES, normalize_fields, read_crontab, read_fields
from .exceptions import InvalidJob
from .records import CRON, INTERVAL
from .times import get_zone, parse_date, parse_duration, zone_name

MICROSECOND: Final = timedelta(microseconds=1)

_UNITS: Final = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60))


@dataclass(frozen=True, kw_only=True)
class Trigger(ABC):
    """The fire times of a schedule, from ``start_date`` to ``end_date``, both inclusive.

    ``jitter`` is the number of seconds by which apply_jitter delays a run at most; fire times are
    without it. ``timezone`` is the name of the zone in which wall-clock times are meant.
    """

    kind: ClassVar[str]

    start_date: datetime | None = None
    end_date: datetime | None = None
    jitter: float | None = None
    timezone: str = "UTC"

    def next_after(self, after: datetime) -> datetime | None:
        """The first fire time later than ``after``; None where there is none."""
        if self.start_date is not None and after < self.start_date:
            after = self.start_date - MICROSECOND
        found = self._next(after)
        if found is None or (self.end_date is not None and found > self.end_date):
            return None
        return found

    def first(self, now: datetime) -> datetime | None:
        """The first fire time of a schedule made at ``now``, which it may be itself."""
        return self.next_after(now - MICROSECOND)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values from which from_json makes an equal trigger."""
        values: dict[str, Any] = {"kind": self.kind, "timezone": self.timezone}
        for name, date in (("start_date", self.start_date), ("end_date", self.end_date)):
            if date is not None:
                values[name] = date.isoformat()
        if self.jitter is not None:
            values["jitter"] = self.jitter
        return values | self._own_json()

    @abstractmethod
    def _next(self, after: datetime) -> datetime | None: ...

    @abstractmethod
    def _own_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class IntervalTrigger(Trigger):
    """Fires at ``start_date`` and every ``interval`` of elapsed time after it."""

    kind: ClassVar[str] = INTERVAL

    start_date: datetime
    interval: timedelta

    def __post_init__(self) -> None:
        if self.interval < MICROSECOND:
            given = "weeks, days, hours, minutes or seconds"
            raise InvalidJob(f"interval {self.interval} is not above zero; expected {given}")

    def _next(self, after: datetime) -> datetime | None:
        passed = (after - self.start_date) // self.interval
        try:
            return self.start_date + (passed + 1) * self.interval
        except OverflowError:
            return None

    def _own_json(self) -> dict[str, Any]:
        return {"seconds": self.interval.total_seconds()}


@dataclass(frozen=True, kw_only=True)
class CronTrigger(Trigger):
    """Fires at wall-clock times, named by ``crontab`` or else by APScheduler's ``fields``."""

    kind: ClassVar[str] = CRON

    crontab: str | None = None
    fields: tuple[tuple[str, str], ...] = ()

    def _next(self, after: datetime) -> datetime | None:
        return next_instant(self.calendar(), after, get_zone(self.timezone))

    def calendar(self) -> Calendar:
        """The times it names. Raises InvalidJob where they cannot be read."""
        return read_fields(self.fields) if self.crontab is None else read_crontab(self.crontab)

    def _own_json(self) -> dict[str, Any]:
        if self.crontab is None:
            return {"fields": dict(self.fields)}
        return {"crontab": self.crontab}


def interval_trigger(
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    start_date: Any = None,
    end_date: Any = None,
    timezone: str | tzinfo | None = None,
    jitter: Any = None,
    now: datetime,
    zone: tzinfo,
) -> IntervalTrigger:
    """A trigger that fires in steps of the sum of the given units, daylight saving or not.

    Its first time is ``start_date`` (anything parse_date reads; in the past it still sets the
    phase), or else one interval after ``now``. ``timezone`` (default ``zone``) is that of naive
    dates. Raises InvalidJob where a value cannot be read or the interval is not above zero.
    """
    units = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    interval = _read_interval(units)
    zone = zone if timezone is None else get_zone(timezone)
    # An end before an implied start is no slip: declared schedules end between two deployments.
    start = None if start_date is None else parse_date(start_date, now=now, zone=zone)
    return IntervalTrigger(
        interval=interval,
        start_date=parse_date(interval, now=now, zone=zone) if start is None else start,
        end_date=_read_end(end_date, start, now, zone),
        jitter=_read_jitter(jitter),
        timezone=_name_or_utc(zone),
    )


def cron_trigger(
    *,
    year: int | str | None = None,
    month: int | str | None = None,
    day: int | str | None = None,
    week: int | str | None = None,
    day_of_week: int | str | None = None,
    hour: int | str | None = None,
    minute: int | str | None = None,
    second: int | str | None = None,
    crontab: str | None = None,
    start_date: Any = None,
    end_date: Any = None,
    timezone: str | tzinfo | None = None,
    jitter: Any = None,
    now: datetime,
    zone: tzinfo,
) -> CronTrigger:
    """A trigger that fires at the wall-clock times of ``timezone`` (default ``zone``).

    Either ``crontab`` or fields with APScheduler's meaning are given. Raises InvalidJob where a
    value cannot be read, both or none are given, or the schedule could never fire.
    """
    given = (year, month, day, week, day_of_week, hour, minute, second)
    fields = normalize_fields(dict(zip(FIELD_NAMES, given, strict=True)))
    zone = zone if timezone is None else get_zone(timezone)
    start = None if start_date is None else parse_date(start_date, now=now, zone=zone)
    return _checked(
        CronTrigger(
            crontab=crontab,
            fields=fields,
            start_date=start,
            end_date=_read_end(end_date, start, now, zone),
            jitter=_read_jitter(jitter),
            timezone=zone_name(zone),
        )
    )


def from_json(values: Mapping[str, Any]) -> Trigger:
    """The trigger that Trigger.to_json wrote. Raises InvalidJob for anything else."""
    try:
        rest = dict(values)
        kind = rest.pop("kind")
        common: dict[str, Any] = {
            "timezone": rest.pop("timezone"),
            "jitter": rest.pop("jitter", None),
            "start_date": _from_iso(rest.pop("start_date", None)),
            "end_date": _from_iso(rest.pop("end_date", None)),
        }
        if kind == INTERVAL and set(rest) == {"seconds"} and common["start_date"] is not None:
            return IntervalTrigger(interval=timedelta(seconds=rest["seconds"]), **common)
        if kind == CRON and set(rest) == {"crontab"}:
            return _checked(CronTrigger(crontab=rest["crontab"], **common))
        if kind == CRON and set(rest) == {"fields"}:
            return _checked(CronTrigger(fields=normalize_fields(rest["fields"]), **common))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidJob(f"trigger {values!r} cannot be read ({error!r})") from error
    raise InvalidJob(
        f"trigger {values!r} cannot be read; expected kind 'interval' with 'seconds', or kind "
        "'cron' with 'crontab' or 'fields': was it written by a newer version?"
    )


def fire_times(trigger: Trigger, after: datetime, count: int) -> list[datetime]:
    """The next fire times later than ``after``: ``count`` of them, or fewer where it ends."""
    times: list[datetime] = []
    latest = trigger.next_after(after)
    while latest is not None and len(times) < count:
        times.append(latest)
        latest = trigger.next_after(latest)
    return times


def apply_jitter(trigger: Trigger, fire_time: datetime, rng: Random) -> datetime:
    """When the run of that fire time is due: up to ``jitter`` seconds later, not past the end."""
    due = fire_time + timedelta(seconds=rng.uniform(0, trigger.jitter or 0))
    return due if trigger.end_date is None else min(due, trigger.end_date)


def describe(trigger: Trigger) -> str:
    """The trigger in a few words, such as "every 1h30m" or "cron 0 3 * * * Europe/Berlin"."""
    if isinstance(trigger, IntervalTrigger):
        rest, parts = trigger.interval.total_seconds(), []
        for unit, length in _UNITS:
            number, rest = divmod(rest, length)
            if number:
                parts.append(f"{number:.0f}{unit}")
        return "every " + "".join(parts) + (f"{rest:g}s" if rest else "")
    if isinstance(trigger, CronTrigger):
        fields = " ".join(f"{name}={text}" for name, text in trigger.fields)
        return f"cron {trigger.crontab or fields} {trigger.timezone}"
    return trigger.kind


def _checked(trigger: CronTrigger) -> CronTrigger:
    # Read here, where the one who wrote it sees the error, and not first when it fires.
    if (trigger.crontab is None) == (not trigger.fields):
        given = "both crontab and fields" if trigger.fields else "neither crontab nor fields"
        raise InvalidJob(
            f"a cron schedule was given {given}; expected either, such as crontab='0 3 * * *' or "
            "hour=3, day_of_week='mon-fri'"
        )
    if not isinstance(trigger.crontab, (str, type(None))):
        raise InvalidJob(f"crontab {trigger.crontab!r} is not text; expected '0 3 * * *' or so")
    trigger.calendar()
    get_zone(trigger.timezone)
    return trigger


def _read_interval(units: Mapping[str, Any]) -> timedelta:
    for name, value in units.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise InvalidJob(f"interval {name}={value!r} cannot be read; expected a number >= 0")
    try:
        return timedelta(**units)
    except OverflowError as error:
        raise InvalidJob(f"interval {dict(units)!r} is too long: {error}") from error


def _read_end(value: Any, start: datetime | None, now: datetime, zone: tzinfo) -> datetime | None:
    if value is None:
        return None
    end = parse_date(value, now=now, zone=zone)
    if start is not None and end < start:
        raise InvalidJob(f"end_date {end} is before start_date {start}: it would never fire")
    return end


def _read_jitter(value: Any) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise InvalidJob(f"jitter: {error}") from error


def _name_or_utc(zone: tzinfo) -> str:
    # Elapsed time needs no zone, so a machine whose zone has no name may have intervals.
    with suppress(InvalidJob):
        return zone_name(zone)
    return "UTC"


def _from_iso(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

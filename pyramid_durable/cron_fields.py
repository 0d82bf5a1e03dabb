"""Reads cron schedules, crontab text and keyword fields, into calendars (web and daemon)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Final

from .calendar_walk import LAST, Calendar, DayRule
from .exceptions import InvalidJob

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_POSITIONS: Final = {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "last": LAST}


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    more: str = ""

    @property
    def forms(self) -> str:
        named = f", {'/'.join(self.names)}" if self.names else ""
        return (
            f"numbers {self.low}-{self.high}{named}, ranges 'a-b', steps '*/n' or 'a-b/n', "
            f"lists 'a,b'{self.more}, or '*'"
        )


_YEAR: Final = _Field(name="year", low=1970, high=9999)
_MONTH: Final = _Field(name="month", low=1, high=12, names=_MONTHS)
_DAY: Final = _Field(
    name="day", low=1, high=31, more=", '1st mon' to '5th sun', 'last fri', 'last'"
)
_WEEK: Final = _Field(name="week", low=1, high=53)
_DAY_OF_WEEK: Final = _Field(
    name="day_of_week", low=0, high=6, names={n: i for i, n in enumerate(_WEEKDAYS)}
)
_HOUR: Final = _Field(name="hour", low=0, high=23)
_MINUTE: Final = _Field(name="minute", low=0, high=59)
_SECOND: Final = _Field(name="second", low=0, high=59)
_KEYWORDS: Final = (_YEAR, _MONTH, _DAY, _WEEK, _DAY_OF_WEEK, _HOUR, _MINUTE, _SECOND)
# What stands for an omitted field that is smaller than all given ones; larger ones are "*".
_LOWEST: Final = {"month": "1", "day": "1", "hour": "0", "minute": "0", "second": "0"}
FIELD_NAMES: Final = tuple(field.name for field in _KEYWORDS)

# Crontab counts weekdays from Sunday, which is 0 and 7.
_CRON_DAY: Final = _Field(name="day of month", low=1, high=31, more=", 'l' (last day)")
_CRON_WEEKDAY: Final = _Field(
    name="day of week",
    low=0,
    high=7,
    names={name: number % 7 for number, name in enumerate(_WEEKDAYS, 1)},
    more=", 'fri#2' (second), 'fril' (last)",
)
_CRONTAB: Final = (_MINUTE, _HOUR, _CRON_DAY, _MONTH, _CRON_WEEKDAY, _SECOND)
_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_PART: Final = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]{1,4}))?", re.ASCII)
_NTH: Final = re.compile(r"(1st|2nd|3rd|4th|5th|last) +([a-z]+)")
_CRON_NTH: Final = re.compile(r"(\w+)#([1-5])", re.ASCII)
_CRON_LAST: Final = re.compile(r"l([0-7]|[a-z]{3})|([0-7]|[a-z]{3})l")


# Every claim of a schedule reads its text again; a deployment has few different ones.
@lru_cache(maxsize=1024)
def read_crontab(text: str) -> Calendar:
    """The calendar of "minute hour day month weekday [second]", or of a nickname as "@daily".

    Where both day fields are restricted, a day that fits one of them is enough. Raises InvalidJob
    where a field cannot be read, or the schedule would never fire.
    """
    parts = _NICKNAMES.get(text.strip().lower(), text).lower().split()
    if len(parts) not in (5, 6):
        raise InvalidJob(
            f"crontab {text!r} has {len(parts)} fields; expected 5 (minute, hour, day of month, "
            f"month, day of week), a 6th for seconds, or one of {', '.join(_NICKNAMES)}"
        )
    minute, hour, day, month, weekday, second = parts if len(parts) == 6 else [*parts, "0"]
    calendar = Calendar(
        years=None,
        months=_read_numbers(_MONTH, month),
        month_days=_read_cron_days(day),
        weekdays=_read_cron_weekdays(weekday),
        weeks=None,
        # As in Vixie's cron, "*/2" counts as unrestricted too.
        either=not (day.startswith("*") or weekday.startswith("*")),
        hours=_read_numbers(_HOUR, hour),
        minutes=_read_numbers(_MINUTE, minute),
        seconds=_read_numbers(_SECOND, second),
        elapsed=minute.startswith("*") or hour.startswith("*"),
    )
    return _check_fires(calendar, f"crontab {text!r}")


@lru_cache(maxsize=1024)
def read_fields(fields: tuple[tuple[str, str], ...]) -> Calendar:
    """The calendar of APScheduler's keyword fields, given as (name, text) pairs.

    An omitted field is "*" where a smaller one is given, else its lowest value; every given field
    must fit. Raises InvalidJob as read_crontab does.
    """
    given = dict(fields)
    smallest = max(FIELD_NAMES.index(name) for name in given)
    texts = {
        name: given.get(name, "*" if index < smallest else _LOWEST.get(name, "*"))
        for index, name in enumerate(FIELD_NAMES)
    }
    calendar = Calendar(
        years=None if texts["year"] == "*" else _read_numbers(_YEAR, texts["year"]),
        months=_read_numbers(_MONTH, texts["month"]),
        month_days=_read_days(texts["day"]),
        weekdays=DayRule(weekdays=frozenset(_read_numbers(_DAY_OF_WEEK, texts["day_of_week"]))),
        weeks=None if texts["week"] == "*" else frozenset(_read_numbers(_WEEK, texts["week"])),
        either=False,
        hours=_read_numbers(_HOUR, texts["hour"]),
        minutes=_read_numbers(_MINUTE, texts["minute"]),
        seconds=_read_numbers(_SECOND, texts["second"]),
        elapsed=texts["minute"].startswith("*") or texts["hour"].startswith("*"),
    )
    return _check_fires(calendar, "cron " + " ".join(f"{n}={text!r}" for n, text in fields))


def normalize_fields(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """The given (not None) keyword fields as read_fields wants them. Raises InvalidJob.

    A negative number is read as uWSGI reads it: -1 any, -n every n.
    """
    for name, value in values.items():
        if name not in FIELD_NAMES:
            raise InvalidJob(f"cron field {name!r} is unknown; expected {', '.join(FIELD_NAMES)}")
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, str))):
            raise InvalidJob(f"cron field {name}={value!r} is neither text nor a whole number")
    return tuple(
        (name, " ".join(_field_text(values[name]).lower().split()))
        for name in FIELD_NAMES
        if values.get(name) is not None
    )


def _field_text(value: object) -> str:
    """A field as text; in uWSGI's way -1 is any and -n is every n."""
    if isinstance(value, int) and value < 0:
        return "*" if value == -1 else f"*/{-value}"
    return str(value)


def _check_fires(calendar: Calendar, shown: str) -> Calendar:
    first_year = calendar.years[0] if calendar.years else 2000
    if calendar.next_day(date(first_year, 1, 1)) is None:
        raise InvalidJob(f"{shown} names no day that exists, so it would never fire")
    return calendar


def _read_numbers(spec: _Field, text: str) -> tuple[int, ...]:
    return tuple(sorted({n for part in _parts(text) for n in _numbers(spec, part)}))


def _read_days(text: str) -> DayRule:
    dates: set[int] = set()
    nth: set[tuple[int, int]] = set()
    parts = _parts(text)
    for part in parts:
        match = _NTH.fullmatch(part)
        if match and match[2] in _WEEKDAYS:
            nth.add((_WEEKDAYS.index(match[2]), _POSITIONS[match[1]]))
        elif part != "last":
            dates.update(_numbers(_DAY, part))
    return DayRule(dates=frozenset(dates), nth=frozenset(nth), last="last" in parts)


def _read_cron_days(text: str) -> DayRule:
    parts = _parts(text)
    dates = frozenset(n for part in parts if part != "l" for n in _numbers(_CRON_DAY, part))
    return DayRule(dates=dates, last="l" in parts)


def _read_cron_weekdays(text: str) -> DayRule:
    weekdays: set[int] = set()
    nth: set[tuple[int, int]] = set()
    for part in _parts(text):
        position, last = _CRON_NTH.fullmatch(part), _CRON_LAST.fullmatch(part)
        if position:
            nth.add((_from_sunday(_number(_CRON_WEEKDAY, position[1], part)), int(position[2])))
        elif last:
            nth.add((_from_sunday(_number(_CRON_WEEKDAY, last[1] or last[2], part)), LAST))
        else:
            weekdays.update(map(_from_sunday, _numbers(_CRON_WEEKDAY, part)))
    return DayRule(weekdays=frozenset(weekdays), nth=frozenset(nth))


def _from_sunday(number: int) -> int:
    return (number - 1) % 7


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _numbers(spec: _Field, part: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise _unread(spec, part)
    first_text, last_text, step_text = match.groups()
    first = spec.low if first_text is None else _number(spec, first_text, part)
    if last_text is not None:
        last = _number(spec, last_text, part)
        if spec is _CRON_WEEKDAY and last == 0 < first:
            last = 7  # "fri-sun"
    else:
        last = first if first_text is not None and step_text is None else spec.high
    step = int(step_text or 1)
    # A step past the end would never be taken: "*/90" minutes is not every 90 minutes.
    if last < first or not 0 < step <= spec.high - spec.low + 1:
        raise _unread(spec, part)
    return range(first, last + 1, step)


def _number(spec: _Field, text: str, part: str) -> int:
    number = spec.names.get(text)
    if number is None and text.isdigit() and len(text) <= 4:
        number = int(text)
    if number is None or not spec.low <= number <= spec.high:
        raise _unread(spec, part)
    return number


def _unread(spec: _Field, part: str) -> InvalidJob:
    return InvalidJob(f"cron field {spec.name}: {part!r} cannot be read; expected {spec.forms}")

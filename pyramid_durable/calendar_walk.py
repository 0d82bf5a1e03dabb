"""Which wall-clock times a cron schedule names, and the instants they stand for (web and daemon).

Two kinds of schedule walk differently around a change of the clocks. Most name times of the wall
clock: each runs once, at its first occurrence, or at the end of the gap that swallowed it. Those
that follow elapsed time run at every instant at which the clock shows one of their times.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from .times import UTC, find_transition, resolve_wall, wall_time

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)

# The position of the last weekday of a month, where "1" is the first.
LAST = -1

# Gregorian dates, their weekdays and their ISO weeks repeat after 400 years, so what does not
# occur within them never does.
CYCLE = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class DayRule:
    """Days that one field of a schedule names; a day that is any of these is named.

    ``weekdays`` count from 0 for Monday; ``nth`` holds (weekday, position in the month).
    """

    dates: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    nth: frozenset[tuple[int, int]] = frozenset()
    last: bool = False

    def names(self, day: int, weekday: int, month_length: int) -> bool:
        return (
            day in self.dates
            or weekday in self.weekdays
            or (self.last and day == month_length)
            or (weekday, (day + 6) // 7) in self.nth
            or (day + 7 > month_length and (weekday, LAST) in self.nth)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calendar:
    """The wall-clock times of a schedule: sorted numbers, and rules for the days.

    ``years`` and ``weeks`` (of ISO 8601) are None where any will do. With ``either`` a day that
    one of the two day rules names is enough.
    """

    years: tuple[int, ...] | None
    months: tuple[int, ...]
    month_days: DayRule
    weekdays: DayRule
    weeks: frozenset[int] | None
    either: bool
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    elapsed: bool

    def has_day(self, day: date) -> bool:
        """Whether the schedule has times on that day."""
        return (
            (self.years is None or day.year in self.years)
            and day.month in self.months
            and self._names(day, monthrange(day.year, day.month)[1])
        )

    def _names(self, day: date, month_length: int) -> bool:
        weekday = day.weekday()
        by_date = self.month_days.names(day.day, weekday, month_length)
        by_weekday = self.weekdays.names(day.day, weekday, month_length)
        if not (by_date or by_weekday if self.either else by_date and by_weekday):
            return False
        return self.weeks is None or day.isocalendar()[1] in self.weeks

    def next_day(self, start: date) -> date | None:
        """The first day with times that is not before ``start``."""
        for year in self._years_from(start.year):
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                first = start.day if (year, month) == (start.year, start.month) else 1
                length = monthrange(year, month)[1]
                for number in range(first, length + 1):
                    day = date(year, month, number)
                    if self._names(day, length):
                        return day
        return None

    def _years_from(self, year: int) -> Iterable[int]:
        if self.years is not None:
            return self.years[bisect_left(self.years, year) :]
        return range(year, min(year + CYCLE, date.max.year) + 1)

    def next_wall(self, start: datetime) -> datetime | None:
        """The first wall-clock time that is not before ``start``; both are naive."""
        if self.has_day(start.date()):
            found = self._next_time(start.hour, start.minute, start.second)
            if found is not None:
                return datetime.combine(start, found)
        if start.date() == date.max:
            return None
        day = self.next_day(start.date() + DAY)
        if day is None:
            return None
        return datetime.combine(day, time(self.hours[0], self.minutes[0], self.seconds[0]))

    def _next_time(self, hour: int, minute: int, second: int) -> time | None:
        at_second = _at_least(self.seconds, second)
        at_minute = _at_least(self.minutes, minute if at_second is not None else minute + 1)
        at_hour = _at_least(self.hours, hour if at_minute is not None else hour + 1)
        if at_hour is None:
            return None
        if at_minute is None or at_hour > hour:
            return time(at_hour, self.minutes[0], self.seconds[0])
        if at_second is None or at_minute > minute:
            return time(at_hour, at_minute, self.seconds[0])
        return time(at_hour, at_minute, at_second)


def _at_least(numbers: tuple[int, ...], low: int) -> int | None:
    index = bisect_left(numbers, low)
    return numbers[index] if index < len(numbers) else None


def next_instant(calendar: Calendar, after: datetime, zone: tzinfo) -> datetime | None:
    """The first instant of the schedule that is later than ``after``, in UTC; None: no more.

    ``after`` is aware.
    """
    try:
        if calendar.elapsed:
            return _next_elapsed(calendar, after.astimezone(UTC), zone)
        return _next_wall_clock(calendar, after.astimezone(UTC), zone)
    except OverflowError:
        # Past the year 9999.
        return None


def _next_wall_clock(calendar: Calendar, after: datetime, zone: tzinfo) -> datetime | None:
    shown = wall_time(after, zone)
    first = resolve_wall(shown, zone).astimezone(UTC)
    if first < after:
        # The clocks show these times for the second time: go on where they were set back.
        turn = find_transition(first, after, zone)
        start = shown + (turn - first)
    else:
        start = shown.replace(microsecond=0) + SECOND
    found = calendar.next_wall(start)
    return None if found is None else resolve_wall(found, zone).astimezone(UTC)


def _next_elapsed(calendar: Calendar, after: datetime, zone: tzinfo) -> datetime | None:
    now = after.replace(microsecond=0) + SECOND
    while True:
        shown = wall_time(now, zone)
        found = calendar.next_wall(shown)
        candidate = None if found is None else now + (found - shown)
        # Right as long as the clocks are not changed before: a change within a day may show times
        # before `shown` once more, or step over `found`.
        horizon = now + DAY if candidate is None else min(candidate, now + DAY)
        if wall_time(horizon, zone) - shown != horizon - now:
            now = find_transition(now, horizon, zone)
        elif candidate is None or candidate == horizon:
            return candidate
        else:
            # No time of the schedule lies before `found`, and two days before it are enough to
            # meet any change of the clocks that moves it.
            now = max(horizon, candidate - 2 * DAY)

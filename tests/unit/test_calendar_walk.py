"""Fire times around changes of the clocks, against an oracle that looks at every minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable.calendar_walk import Calendar, next_instant
from pyramid_durable.cron_fields import normalize_fields, read_crontab, read_fields
from pyramid_durable.times import UTC

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# Changes of an hour, of half an hour, of two, three and twenty-four; at midnight, in the night and
# at noon; to the east and to the west of the date line; by law and by the moon; and none at all.
ZONES = (
    "UTC", "Europe/Berlin", "Europe/London", "Europe/Dublin", "Europe/Lisbon", "Europe/Istanbul",
    "Europe/Moscow", "Europe/Volgograd", "America/New_York", "America/St_Johns", "America/Santiago",
    "America/Havana", "America/Sao_Paulo", "America/Asuncion", "America/Caracas", "America/Nuuk",
    "America/Scoresbysund", "America/Anchorage", "Africa/Casablanca", "Africa/Cairo",
    "Africa/Windhoek", "Antarctica/Troll", "Antarctica/Casey", "Asia/Beirut", "Asia/Gaza",
    "Asia/Tehran", "Asia/Kathmandu", "Asia/Pyongyang", "Asia/Colombo", "Asia/Amman",
    "Australia/Lord_Howe", "Australia/Sydney", "Pacific/Apia", "Pacific/Kiritimati",
    "Pacific/Kwajalein", "Pacific/Chatham", "Pacific/Easter", "Pacific/Norfolk", "Pacific/Fiji",
)  # fmt: skip


@cache
def changes(zone: str) -> tuple[datetime, ...]:
    """The minutes of 1990 to 2040 at which the clocks of the zone are changed, in UTC."""
    info, found = ZoneInfo(zone), []
    day = datetime(1990, 1, 1, tzinfo=UTC)
    while day.year <= 2040:
        if day.astimezone(info).utcoffset() != (day + DAY).astimezone(info).utcoffset():
            minute = day
            while minute.astimezone(info).utcoffset() == day.astimezone(info).utcoffset():
                minute += MINUTE
            found.append(minute)
        day += DAY
    # Where there are none, an hour like any other.
    return tuple(found) or (datetime(2024, 3, 31, 1, tzinfo=UTC),)


@dataclass(frozen=True)
class Spec:
    """A schedule as text and as plain sets, which the oracle compares."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    weekdays: frozenset[int] | None
    elapsed: bool

    def names(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours:
            return False
        # Crontab counts Sunday as 0.
        tests = [
            number in allowed
            for number, allowed in ((wall.day, self.days), (wall.isoweekday() % 7, self.weekdays))
            if allowed is not None
        ]
        return any(tests) if tests else True


def oracle(spec: Spec, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """All fire times from ``start`` up to ``end``, by watching the clock minute by minute.

    What the clock has shown, it has shown; what it leaves out is made good when it goes on.
    """
    now = start - 30 * HOUR
    wall = (now - MINUTE).astimezone(zone).replace(tzinfo=None)
    shown = {wall}
    while now < end:
        before, wall = wall, now.astimezone(zone).replace(tzinfo=None)
        if spec.elapsed:
            fires = spec.names(wall)
        else:
            fires = spec.names(wall) and wall not in shown
            left_out = before + MINUTE
            while left_out < wall:
                fires = fires or spec.names(left_out)
                left_out += MINUTE
        shown.add(wall)
        if fires and now >= start:
            yield now
        now += MINUTE


def numbers(allowed: frozenset[int]) -> str:
    return ",".join(map(str, sorted(allowed)))


@st.composite
def specs(draw: st.DrawFn, near: datetime) -> Spec:
    """Schedules with times of a day around that wall-clock time."""
    star_minute, star_hour = draw(st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]))
    minutes = draw(st.frozensets(st.integers(0, 59), min_size=1, max_size=4))
    hours = draw(
        st.frozensets(
            st.integers(-3, 3).map(lambda apart: (near.hour + apart) % 24), min_size=1, max_size=4
        )
    )
    minute_text, hour_text = numbers(minutes), numbers(hours)
    if star_minute:
        step = draw(st.sampled_from([1, 5, 7, 20, 30, 45]))
        minutes, minute_text = frozenset(range(0, 60, step)), "*" if step == 1 else f"*/{step}"
    if star_hour:
        step = draw(st.sampled_from([1, 1, 2, 3, 5]))
        hours, hour_text = frozenset(range(0, 24, step)), "*" if step == 1 else f"*/{step}"
    around = st.integers(-1, 1).map(lambda apart: near + apart * DAY)
    days, weekdays = draw(
        st.tuples(
            st.none() | st.frozensets(around.map(lambda day: day.day), min_size=1, max_size=2),
            st.none()
            | st.frozensets(around.map(lambda day: day.isoweekday() % 7), min_size=1, max_size=2),
        )
    )
    return Spec(
        text=f"{minute_text} {hour_text} {numbers(days) if days else '*'} * "
        f"{numbers(weekdays) if weekdays else '*'}",
        minutes=minutes,
        hours=hours,
        days=days,
        weekdays=weekdays,
        elapsed=bool(star_minute or star_hour),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[ZoneInfo, datetime, Spec]:
    zone = draw(st.sampled_from(ZONES))
    known = changes(zone)
    change = known[draw(st.integers(0, len(known) - 1))]
    info = ZoneInfo(zone)
    # The wall-clock times on both sides of the change.
    side = draw(st.sampled_from([change - MINUTE, change]))
    return info, change, draw(specs(near=side.astimezone(info).replace(tzinfo=None)))


@given(case=cases(), offset=st.integers(0, 59_999_999), minute=st.integers(-24 * 60, 24 * 60))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_fire_times_around_every_change_of_the_clocks(
    case: tuple[ZoneInfo, datetime, Spec], offset: int, minute: int
) -> None:
    zone, change, spec = case
    calendar = read_crontab(spec.text)
    assert calendar.elapsed is spec.elapsed
    start, end = change - 26 * HOUR, change + 26 * HOUR
    expected = list(oracle(spec, zone, start, end))

    found, latest = [], next_instant(calendar, start - MINUTE / 60, zone)
    while latest is not None and latest < end:
        found.append(latest)
        latest = next_instant(calendar, latest, zone)
    assert found == expected

    # From any instant as well, not only from a fire time.
    after = change + minute * MINUTE + timedelta(microseconds=offset)
    later = [moment for moment in expected if moment > after]
    direct = next_instant(calendar, after, zone)
    assert direct == later[0] if later else direct is None or direct >= end


@given(case=cases(), days=st.integers(0, 300))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_fire_times_reached_from_afar(case: tuple[ZoneInfo, datetime, Spec], days: int) -> None:
    """A schedule for one day of the year is as exact after months without a time."""
    zone, change, near = case
    day = (change + 2 * HOUR).astimezone(zone)
    text = " ".join([*near.text.split()[:2], str(day.day), str(day.month), "*"])
    spec = Spec(text, near.minutes, near.hours, frozenset([day.day]), None, near.elapsed)
    # The oracle knows nothing of months, and need not: its window is of three days.
    expected = list(oracle(spec, zone, change - 26 * HOUR, change + 26 * HOUR))
    found = next_instant(read_crontab(text), change - 26 * HOUR - days * DAY, zone)
    assert found is not None
    assert found == expected[0] if expected else found >= change + 26 * HOUR


def instants(calendar: Calendar, zone: str, after: str, count: int) -> list[str]:
    info = ZoneInfo(zone)
    found: list[str] = []
    latest = next_instant(calendar, datetime.fromisoformat(after), info)
    while latest is not None and len(found) < count:
        assert latest.tzinfo is UTC
        found.append(latest.astimezone(info).isoformat(timespec="seconds"))
        latest = next_instant(calendar, latest, info)
    return found


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        # A time that does not exist runs at the first instant after the gap, seconds or not.
        ("30 2 * * *", "Europe/Berlin", "2024-03-30T03:00+01:00",
         ["2024-03-31T03:00:00+02:00", "2024-04-01T02:30:00+02:00"]),
        ("30 2 * * * 15", "Europe/Berlin", "2024-03-30T03:00+01:00",
         ["2024-03-31T03:00:00+02:00", "2024-04-01T02:30:15+02:00"]),
        ("5,30,55 2 * * *", "Europe/Berlin", "2024-03-30T03:00+01:00",
         ["2024-03-31T03:00:00+02:00", "2024-04-01T02:05:00+02:00"]),
        ("30 2,3 * * *", "Europe/Berlin", "2024-03-30T04:00+01:00",
         ["2024-03-31T03:00:00+02:00", "2024-03-31T03:30:00+02:00"]),
        ("0 0 * * *", "America/Santiago", "2024-09-07T00:00-04:00",
         ["2024-09-08T01:00:00-03:00", "2024-09-09T00:00:00-03:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2024-10-05T02:15+10:30",
         ["2024-10-06T02:30:00+11:00", "2024-10-07T02:15:00+11:00"]),
        ("0 8 * * *", "Pacific/Apia", "2011-12-29T08:00-10:00",
         ["2011-12-31T00:00:00+14:00", "2011-12-31T08:00:00+14:00"]),
        # A time that exists twice runs at its first occurrence only.
        ("30 2 * * *", "Europe/Berlin", "2024-10-26T02:30+02:00",
         ["2024-10-27T02:30:00+02:00", "2024-10-28T02:30:00+01:00"]),
        ("30 2 * * * */20", "Europe/Berlin", "2024-10-27T02:30:30+02:00",
         ["2024-10-27T02:30:40+02:00", "2024-10-28T02:30:00+01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2024-10-27T02:10+01:00", ["2024-10-28T02:30:00+01:00"]),
        ("0 3 * * *", "Europe/Berlin", "2024-10-27T02:10+01:00", ["2024-10-27T03:00:00+01:00"]),
        ("0-59 0-2 * * * *", "Europe/Berlin", "2024-10-27T02:59:58+02:00",
         ["2024-10-27T02:59:59+02:00", "2024-10-28T00:00:00+01:00"]),
        ("30 23 * * *", "America/Santiago", "2024-04-06T12:00-03:00",
         ["2024-04-06T23:30:00-03:00", "2024-04-07T23:30:00-04:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2024-04-07T00:00+11:00",
         ["2024-04-07T01:45:00+11:00", "2024-04-08T01:45:00+10:30"]),
        # "*" in the minute or the hour follows elapsed time.
        ("*/30 * * * *", "Europe/Berlin", "2024-03-31T01:00+01:00",
         ["2024-03-31T01:30:00+01:00", "2024-03-31T03:00:00+02:00"]),
        ("15 * * * *", "Europe/Berlin", "2024-03-31T01:00+01:00",
         ["2024-03-31T01:15:00+01:00", "2024-03-31T03:15:00+02:00"]),
        ("0 * * * *", "Europe/Berlin", "2024-10-27T01:00+02:00",
         ["2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00", "2024-10-27T03:00:00+01:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2024-10-27T02:00+02:00",
         ["2024-10-27T02:30:00+02:00", "2024-10-27T02:00:00+01:00", "2024-10-27T02:30:00+01:00",
          "2024-10-28T02:00:00+01:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2024-03-30T02:30+01:00", ["2024-04-01T02:00:00+02:00"]),
        ("*/15 1 * * *", "Australia/Lord_Howe", "2024-04-07T01:30+11:00",
         ["2024-04-07T01:45:00+11:00", "2024-04-07T01:30:00+10:30", "2024-04-07T01:45:00+10:30",
          "2024-04-08T01:00:00+10:30"]),
        ("* * * * * */30", "Europe/Berlin", "2024-10-27T02:59:15+02:00",
         ["2024-10-27T02:59:30+02:00", "2024-10-27T02:00:00+01:00"]),
    ],
)  # fmt: skip
def test_examples(text: str, zone: str, after: str, expected: list[str]) -> None:
    assert instants(read_crontab(text), zone, after, len(expected)) == expected


def test_the_last_times_of_a_schedule_may_be_in_the_repeated_hour() -> None:
    """No later wall-clock time is named then, but the clocks show the last ones again."""
    values = {"year": 2024, "month": 10, "day": 27, "hour": 2, "minute": "*/30"}
    calendar = read_fields(normalize_fields(values))
    assert instants(calendar, "Europe/Berlin", "2024-10-27T02:30:30+02:00", 9) == [
        "2024-10-27T02:00:00+01:00",
        "2024-10-27T02:30:00+01:00",
    ]


@pytest.mark.parametrize("text", ["59 23 31 12 *", "*/5 * * * *"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Anchorage"])
def test_the_walk_ends_with_the_calendar(text: str, zone: str) -> None:
    last = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    assert next_instant(read_crontab(text), last, ZoneInfo(zone)) is None

"""Reading dates, durations and zones; the edges of daylight saving; ids."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import tzlocal
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable import times
from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.times import (
    UTC,
    find_transition,
    get_zone,
    new_id,
    parse_date,
    parse_duration,
    relative_date,
    resolve_wall,
    utcnow,
    wall_time,
    zone_name,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2024, 5, 17, 12, tzinfo=UTC)


def read(value: Any, zone: tzinfo = BERLIN) -> datetime:
    return parse_date(value, now=NOW, zone=zone)


class Nameless(tzinfo):
    """What tzlocal makes of a copied /etc/localtime."""

    key = "local"

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else BERLIN.utcoffset(moment.replace(tzinfo=BERLIN))

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else BERLIN.dst(moment.replace(tzinfo=BERLIN))

    def tzname(self, moment: datetime | None) -> str:
        return "local"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("5h", 18000.0),
        ("5d", 432000.0),
        ("2w", 1209600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 1.5h ", 5400.0),
        ("100ms", 0.1),
        ("1s500ms", 1.5),
        ("0", 0.0),
        ("2w1d1h1m1s1ms", 1299661.001),
        (90, 90.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_durations(value: Any, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds, rel=1e-12)
    assert isinstance(parse_duration(value), float)


@pytest.mark.parametrize(
    "value",
    ["", "  ", "m", "5 apples", "-5m", "5M", "30m1h", "5m5m", "1h-30m", "٣s", "1e3", "nan", "inf",
     "1.5.5s", "5d ago", None, True, [5], b"5m", -1, -0.5, math.nan, math.inf, 10**400,
     "9" * 400, timedelta(seconds=-1)],
)  # fmt: skip
def test_durations_that_cannot_be_read(value: Any) -> None:
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(value)
    assert "expected" in str(caught.value)


def test_an_unread_duration_names_the_value_and_the_forms() -> None:
    with pytest.raises(ValueError, match=r"'5 apples'.*'1h30m'"):
        parse_duration("5 apples")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 5, 1, 8, tzinfo=timezone(timedelta(hours=-5))), "2024-05-01T13:00"),
        (datetime(2024, 5, 1, 8), "2024-05-01T06:00"),
        (datetime(2024, 3, 31, 2, 30), "2024-03-31T01:00"),  # does not exist
        (datetime(2024, 10, 27, 2, 30), "2024-10-27T00:30"),  # exists twice
        (datetime(2024, 10, 27, 2, 30, fold=1), "2024-10-27T01:30"),
        (datetime(2024, 3, 31, 2, 30, fold=1), "2024-03-31T01:00"),
        (date(2024, 5, 1), "2024-04-30T22:00"),
        (0, "1970-01-01T00:00"),
        (1714550400, "2024-05-01T08:00"),
        (1714550400.25, "2024-05-01T08:00:00.250"),
        (-86400, "1969-12-31T00:00"),
        (timedelta(days=1), "2024-05-18T12:00"),
        (timedelta(hours=-1), "2024-05-17T11:00"),
        ("5d", "2024-05-22T12:00"),
        ("1h30m", "2024-05-17T13:30"),
        ("2024-05-01", "2024-04-30T22:00"),
        ("2024-05-01T08:00", "2024-05-01T06:00"),
        ("2024-05-01 08:00:30", "2024-05-01T06:00:30"),
        ("2024-05-01T08:00:00Z", "2024-05-01T08:00"),
        ("2024-05-01t08:00:00z", "2024-05-01T08:00"),
        ("2024-05-01T08:00:00+02:00", "2024-05-01T06:00"),
        ("2024-05-01T08:00:00-0330", "2024-05-01T11:30"),
        ("2024-05-01T08+02", "2024-05-01T06:00"),
        ("20240501T080000Z", "2024-05-01T08:00"),
        ("20240501T0800", "2024-05-01T06:00"),
        ("2024-05-01T08:00:00.123456789Z", "2024-05-01T08:00:00.123456"),
        ("2024-05-01T08:00:00,5Z", "2024-05-01T08:00:00.500"),
        (" 2024-05-01T08:00Z ", "2024-05-01T08:00"),
        ("2024-03-31T02:30", "2024-03-31T01:00"),
    ],
)
def test_dates(value: Any, expected: str) -> None:
    result = read(value)
    assert result == datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert result.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    ["", "tomorrow", "90", "1714550400", "20240501", "2024-13-01", "2024-02-30", "2024-05-01T25:00",
     "2024-05-01T08:00+25:00", "2024-05-01T08:60", "2024-0501", "2024-05-01T", "-5d", "5d ago",
     None, True, b"2024-05-01", [2024, 5, 1], math.nan, math.inf, 1714550400000.0, 10**400,
     timedelta.max, "900000000d", datetime(1, 1, 1), "9999-12-31T23:59-12:00"],
)  # fmt: skip
def test_dates_that_cannot_be_read(value: Any) -> None:
    with pytest.raises(InvalidJob, match="cannot be read; expected a datetime") as caught:
        read(value)
    assert repr(value)[:190] in str(caught.value)


@given(moment=st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9998, 1, 1)))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_a_written_date_is_read_back(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    assert read(aware.isoformat()) == aware
    assert read(aware.isoformat().replace("+00:00", "Z")) == aware
    assert read(aware.astimezone(timezone(timedelta(hours=-9.5))).isoformat(" ")) == aware


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        (timedelta(days=1), 86400.0),
        (timedelta(days=-1), -86400.0),
        ("5d", 432000.0),
        ("90", None),
        (90, None),
        ("2024-05-01", None),
        (datetime(2024, 5, 1), None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_relative_dates(value: Any, delay: float | None) -> None:
    assert relative_date(value) == delay


def test_the_clock_is_aware_and_now() -> None:
    assert utcnow().tzinfo is UTC
    assert abs(utcnow().timestamp() - time.time()) < 5


@pytest.mark.parametrize(
    ("zone", "naive", "expected"),
    [
        ("Europe/Berlin", "2024-07-01T12:00", "2024-07-01T12:00+02:00"),
        ("Europe/Berlin", "2024-03-31T01:59:59.999999", "2024-03-31T01:59:59.999999+01:00"),
        ("Europe/Berlin", "2024-03-31T02:00", "2024-03-31T03:00+02:00"),
        ("Europe/Berlin", "2024-03-31T02:59:59.999999", "2024-03-31T03:00+02:00"),
        ("Europe/Berlin", "2024-03-31T03:00", "2024-03-31T03:00+02:00"),
        ("Europe/Berlin", "2024-10-27T02:30", "2024-10-27T02:30+02:00"),
        ("Europe/Berlin", "2024-10-27T03:00", "2024-10-27T03:00+01:00"),
        ("Australia/Lord_Howe", "2024-10-06T02:15", "2024-10-06T02:30+11:00"),
        ("Australia/Lord_Howe", "2024-04-07T01:45", "2024-04-07T01:45+11:00"),
        ("America/Santiago", "2024-09-08T00:00", "2024-09-08T01:00-03:00"),
        ("Antarctica/Troll", "2024-03-31T02:10", "2024-03-31T03:00+02:00"),
        ("Africa/Casablanca", "2024-04-14T02:30", "2024-04-14T03:00+01:00"),
        ("Pacific/Apia", "2011-12-30T08:00", "2011-12-31T00:00+14:00"),
        ("America/Caracas", "2016-05-01T02:45", "2016-05-01T03:00-04:00"),
        ("Africa/Monrovia", "1972-01-07T00:20:10", "1972-01-07T00:44:30+00:00"),
    ],
)
def test_wall_times(zone: str, naive: str, expected: str) -> None:
    resolved = resolve_wall(datetime.fromisoformat(naive), ZoneInfo(zone))
    assert resolved.isoformat() == datetime.fromisoformat(expected).isoformat()
    assert resolved.tzinfo is ZoneInfo(zone)


def test_wall_times_ignore_the_fold_they_are_given() -> None:
    assert resolve_wall(datetime(2024, 10, 27, 2, 30, fold=1), BERLIN).fold == 0
    assert wall_time(datetime(2024, 10, 27, 1, 30, tzinfo=UTC), BERLIN) == datetime(
        2024, 10, 27, 2, 30
    )
    assert wall_time(datetime(2024, 10, 27, 1, 30, tzinfo=UTC), BERLIN).fold == 0


def test_find_transition_between_instants_with_fractions() -> None:
    change = datetime(2024, 3, 31, 1, tzinfo=UTC)
    for low, high in [
        (change - timedelta(hours=3, microseconds=1), change + timedelta(microseconds=1)),
        (change - timedelta(microseconds=1), change),
        (change - timedelta(seconds=1), change + timedelta(days=9)),
    ]:
        assert find_transition(low, high, BERLIN) == change


def test_zones_by_name() -> None:
    assert get_zone("Europe/Berlin") is BERLIN
    assert get_zone("UTC") is UTC
    assert get_zone("utc") is UTC
    assert get_zone("Z") is UTC
    assert get_zone("+00:00") is UTC
    assert get_zone("-03:30") == timezone(timedelta(hours=-3.5))
    assert get_zone("UTC+0530") == timezone(timedelta(hours=5.5))
    assert get_zone(BERLIN) is BERLIN
    assert get_zone(UTC) is UTC


@pytest.mark.parametrize(
    "zone",
    ["UTC", "Europe/Berlin", "Etc/GMT+3", "+02:00", "-03:30", "-00:53:28", "+23:59"],
)
def test_a_zone_is_made_again_from_its_name(zone: str) -> None:
    assert zone_name(get_zone(zone)) == zone


def test_zones_of_pytz_become_those_of_the_standard_library() -> None:
    class Pytz(Nameless):
        zone = "Europe/Berlin"

    assert get_zone(Pytz()) is BERLIN


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime", "a\0b", "+25:00",
             "+02:60", "Europe/Berlin ", 3, 2.5, True, b"UTC"]
)  # fmt: skip
def test_unknown_zones(zone: Any) -> None:
    with pytest.raises(InvalidJob, match=r"timezone .* cannot be read; expected an IANA name"):
        get_zone(zone)


def test_a_slip_in_a_zone_is_met_with_a_suggestion() -> None:
    with pytest.raises(InvalidJob, match="did you mean 'Europe/Berlin'"):
        get_zone("Europe/Berlni")


def test_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tzlocal, "get_localzone", lambda: BERLIN)
    assert get_zone(None) is BERLIN

    def fail() -> tzinfo:
        raise ValueError("/etc/localtime is a poem")

    monkeypatch.setattr(tzlocal, "get_localzone", fail)
    with pytest.raises(InvalidJob, match=r"is a poem.*scheduler\.timezone"):
        get_zone(None)


def test_a_zone_without_a_name_is_of_use_but_cannot_be_stored() -> None:
    assert read(datetime(2024, 5, 1, 8), Nameless()) == datetime(2024, 5, 1, 6, tzinfo=UTC)
    with pytest.raises(InvalidJob, match=r"has no name.*scheduler\.timezone"):
        zone_name(Nameless())


def test_ids_are_version_7_and_tell_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_id())
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    # The tests before may have run ahead of the clock by less than this.
    assert before <= made.int >> 80 <= after + 1000
    assert str(made) == str(made).lower()
    assert len(new_id()) == 36


def test_the_fraction_of_a_millisecond_is_in_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_id_clock", times._IdClock())
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_500_000)
    made = uuid.UUID(new_id())
    assert made.int >> 80 == 1_700_000_000_123
    assert made.int >> 64 & 0xFFF == 2048


def test_ids_grow_also_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_id_clock", times._IdClock())
    now = iter([5_000_000_000, 5_000_000_000, 1_000_000_000, 1_000_000_000, 9_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(now))
    made = [new_id() for _ in range(5)]
    assert made == sorted(made)
    assert len({identifier[:18] for identifier in made}) == 5


def test_ids_grow_past_the_end_of_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_id_clock", times._IdClock())
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000_000)
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert {uuid.UUID(identifier).version for identifier in made} == {7}


def test_ids_of_many_threads_grow_in_each_and_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Last(int):
        """A last time whose successor takes a while to find, as a change of threads may cause."""

        def __add__(self, step: int) -> Last:
            time.sleep(0)
            return Last(int(self) + step)

    clock = times._IdClock()
    clock.last = Last(2**58)  # ahead of the clock, so that every id follows from the last
    monkeypatch.setattr(times, "_id_clock", clock)
    made: list[list[str]] = [[] for _ in range(8)]

    def work(mine: list[str]) -> None:
        mine.extend(new_id() for _ in range(500))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(len(mine) == 500 and mine == sorted(mine) for mine in made)
    # Without the random part: no two follow from the same last.
    assert len({identifier[:18] for mine in made for identifier in mine}) == 4_000


def test_a_fork_while_another_thread_makes_an_id() -> None:
    with times._id_clock.lock:
        child = multiprocessing.get_context("fork").Process(target=new_id, daemon=True)
        child.start()
    child.join(20)
    assert child.exitcode == 0

"""Interval and cron triggers: phases, windows, jitter, JSON, words."""

from __future__ import annotations

import json
import math
import random
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.times import UTC
from pyramid_durable.triggers import (
    CronTrigger,
    IntervalTrigger,
    Trigger,
    apply_jitter,
    cron_trigger,
    describe,
    fire_times,
    from_json,
    interval_trigger,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2024, 5, 17, 12, 0, 30, tzinfo=UTC)


def interval(**values: Any) -> IntervalTrigger:
    given: dict[str, Any] = {"now": NOW, "zone": BERLIN} | values
    return interval_trigger(**given)


def cron(**values: Any) -> CronTrigger:
    given: dict[str, Any] = {"now": NOW, "zone": BERLIN} | values
    return cron_trigger(**given)


def test_an_interval_fires_first_after_one_interval() -> None:
    trigger = interval(minutes=10)
    assert trigger.first(NOW) == NOW + timedelta(minutes=10)
    assert fire_times(trigger, NOW, 3) == [NOW + timedelta(minutes=m) for m in (10, 20, 30)]
    assert trigger.interval == timedelta(minutes=10)


def test_the_units_of_an_interval_add_up() -> None:
    trigger = interval(weeks=1, days=2, hours=3, minutes=4, seconds=5.5)
    assert trigger.interval == timedelta(days=9, hours=3, minutes=4, seconds=5.5)


def test_an_interval_fires_at_a_start_date_to_come() -> None:
    trigger = interval(hours=1, start_date="2024-05-18T08:00")
    start = datetime(2024, 5, 18, 6, tzinfo=UTC)
    assert trigger.first(NOW) == start
    assert trigger.next_after(start - timedelta(days=9)) == start
    assert trigger.next_after(start - timedelta(microseconds=1)) == start
    assert trigger.next_after(start) == start + timedelta(hours=1)


def test_an_interval_keeps_the_phase_of_a_start_date_gone_by() -> None:
    trigger = interval(minutes=7, start_date=datetime(2024, 5, 17, 11, tzinfo=UTC))
    assert trigger.first(NOW) == datetime(2024, 5, 17, 12, 3, tzinfo=UTC)
    assert trigger.first(datetime(2024, 5, 17, 12, 3, tzinfo=UTC)) == datetime(
        2024, 5, 17, 12, 3, tzinfo=UTC
    )


def test_an_interval_follows_elapsed_time() -> None:
    trigger = interval(days=1, start_date="2024-03-30T02:30")
    assert fire_times(trigger, NOW - timedelta(days=60), 3) == [
        datetime(2024, 3, 30, 1, 30, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
        datetime(2024, 4, 1, 1, 30, tzinfo=UTC),
    ]


@given(
    microseconds=st.integers(1, 10**14),
    start=st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2040, 1, 1)),
    apart=st.timedeltas(min_value=timedelta(days=-9000), max_value=timedelta(days=9000)),
)
@settings(derandomize=True, max_examples=200, deadline=None)
def test_every_time_of_an_interval_is_a_whole_number_of_steps_from_its_start(
    microseconds: int, start: datetime, apart: timedelta
) -> None:
    begin = start.replace(tzinfo=UTC)
    step = timedelta(microseconds=microseconds)
    trigger = IntervalTrigger(start_date=begin, interval=step)
    found = trigger.next_after(begin + apart)
    assert found is not None
    assert found > begin + apart
    assert found >= begin
    assert (found - begin) % step == timedelta(0)
    assert found == begin or found - step <= begin + apart


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"seconds": 0},
        {"seconds": 1e-9},
        {"seconds": -5},
        {"hours": 1, "minutes": -5},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": "5"},
        {"seconds": True},
        {"seconds": None},
        {"weeks": 10**12},
        {"days": 5_000_000},
        {"seconds": 10**400},
    ],
)
def test_intervals_that_cannot_be_read(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        interval(**values)


def test_an_unread_interval_names_the_field_and_the_value() -> None:
    with pytest.raises(InvalidJob, match=r"hours='x' cannot be read; expected a number"):
        interval(hours="x")
    with pytest.raises(
        InvalidJob, match="interval 0:00:00 is not above zero; expected weeks, days"
    ):
        interval()


def test_cron_fires_in_the_zone_of_the_scheduler_unless_another_is_given() -> None:
    assert cron(crontab="0 3 * * *").first(NOW) == datetime(2024, 5, 18, 1, tzinfo=UTC)
    for name in ("America/New_York", ZoneInfo("America/New_York")):
        trigger = cron(crontab="0 3 * * *", timezone=name)
        assert trigger.first(NOW) == datetime(2024, 5, 18, 7, tzinfo=UTC)
        assert trigger.timezone == "America/New_York"
    assert cron(hour=3, zone=UTC).timezone == "UTC"


def test_fire_times_are_in_utc_whatever_zone_is_asked_in() -> None:
    after = NOW.astimezone(timezone(timedelta(hours=-7)))
    for trigger in (cron(crontab="0 3 * * *"), interval(hours=5)):
        found = trigger.next_after(after)
        assert found == trigger.next_after(NOW)
        assert found is not None
        assert found.tzinfo is UTC


def test_cron_may_fire_at_the_very_instant_it_is_made() -> None:
    noon = datetime(2024, 5, 17, 12, tzinfo=UTC)
    trigger = cron(crontab="0 14 * * *")
    assert trigger.first(noon) == noon
    assert trigger.next_after(noon) == noon + timedelta(days=1)
    assert trigger.first(noon + timedelta(microseconds=1)) == noon + timedelta(days=1)


def test_cron_keeps_to_its_window_both_ends_included() -> None:
    trigger = cron(hour=8, start_date="2024-06-01T08:00", end_date="2024-06-03T08:00")
    expected = [datetime(2024, 6, day, 6, tzinfo=UTC) for day in (1, 2, 3)]
    assert fire_times(trigger, NOW, 10) == expected
    assert trigger.first(NOW) == expected[0]
    assert trigger.next_after(expected[2]) is None


def test_an_interval_keeps_to_its_window_both_ends_included() -> None:
    trigger = interval(days=1, start_date=date(2024, 6, 1), end_date=date(2024, 6, 3))
    expected = [datetime(2024, 5, 31, 22, tzinfo=UTC) + n * timedelta(days=1) for n in range(3)]
    assert fire_times(trigger, NOW, 10) == expected
    assert fire_times(trigger, NOW, 2) == expected[:2]
    assert fire_times(trigger, NOW, 0) == []


def test_naive_dates_of_a_schedule_are_in_its_own_zone() -> None:
    for trigger in (
        cron(hour=8, start_date="2024-06-01", timezone="Asia/Tokyo"),
        interval(hours=8, start_date="2024-06-01", timezone="Asia/Tokyo"),
    ):
        assert trigger.start_date == datetime(2024, 5, 31, 15, tzinfo=UTC)
        assert trigger.timezone == "Asia/Tokyo"


def test_a_window_that_has_ended_is_no_error() -> None:
    """A declared schedule outlives its window in the code of the application."""
    for trigger in (
        interval(hours=1, end_date="2023-01-01"),
        cron(hour=1, end_date="2023-01-01"),
        cron(year=2023),
    ):
        assert trigger.first(NOW) is None


def test_a_window_turned_round_is_an_error() -> None:
    turned: dict[str, Any] = {"start_date": "2024-01-01T08:00", "end_date": "2023-01-01T08:00"}
    with pytest.raises(InvalidJob, match=r"end_date 2023.* is before start_date 2024"):
        cron(hour=1, **turned)
    with pytest.raises(InvalidJob, match=r"end_date 2023.* is before start_date 2024"):
        interval(hours=1, **turned)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "neither crontab nor fields"),
        ({"crontab": "* * * * *", "hour": 3}, "both crontab and fields"),
        ({"crontab": 5}, "crontab 5 is not text"),
        ({"crontab": "61 * * * *"}, "field minute: '61' cannot be read"),
        ({"day_of_week": "moonday"}, "field day_of_week: 'moonday' cannot be read"),
        ({"month": 2, "day": 30}, "would never fire"),
        ({"hour": 3, "timezone": "Mars"}, "timezone 'Mars' cannot be read"),
        ({"hour": 3, "start_date": "soon"}, "date 'soon' cannot be read"),
        ({"hour": 3, "end_date": "late"}, "date 'late' cannot be read"),
        ({"hour": 3, "jitter": "much"}, "jitter: duration 'much' cannot be read"),
        ({"hour": 3, "jitter": -1}, "jitter: duration -1 is out of range"),
    ],
)
def test_cron_schedules_that_cannot_be_read(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidJob, match=expected):
        cron(**values)


@pytest.mark.parametrize(
    "trigger",
    [
        interval(minutes=10),
        interval(seconds=0.1, start_date="2024-06-01", end_date="2024-07-01", jitter="5s"),
        interval(weeks=4, timezone="Asia/Tokyo"),
        cron(crontab="0 3 * * mon-fri"),
        cron(crontab=" */5  *  * * * 30 ", timezone="America/St_Johns", jitter=2.5),
        cron(hour=3, day="1st Mon, last fri", start_date="5d", end_date="60d"),
        cron(year="2024-2030/2", second="*/5", timezone="+05:30"),
    ],
    ids=describe,
)
def test_a_trigger_comes_back_from_its_json(trigger: Trigger) -> None:
    values = json.loads(json.dumps(trigger.to_json()))
    again = from_json(values)
    assert again == trigger
    assert type(again) is type(trigger)
    assert fire_times(again, NOW, 3) == fire_times(trigger, NOW, 3) != []


def test_the_json_of_triggers_stays_readable_to_later_versions() -> None:
    """Rows of earlier versions are in the stores of applications: these texts may only grow."""
    assert interval(minutes=10).to_json() == {
        "kind": "interval",
        "timezone": "Europe/Berlin",
        "start_date": "2024-05-17T12:10:30+00:00",
        "seconds": 600.0,
    }
    assert cron(crontab="0 3 * * *", jitter="1m", end_date="2025-01-01").to_json() == {
        "kind": "cron",
        "timezone": "Europe/Berlin",
        "end_date": "2024-12-31T23:00:00+00:00",
        "jitter": 60.0,
        "crontab": "0 3 * * *",
    }
    assert cron(hour=3, day_of_week="Mon-Fri").to_json() == {
        "kind": "cron",
        "timezone": "Europe/Berlin",
        "fields": {"day_of_week": "mon-fri", "hour": "3"},
    }


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "cron", "timezone": "UTC"},
        {"kind": "moon", "timezone": "UTC", "seconds": 5},
        {"kind": "interval", "timezone": "UTC", "seconds": 5},
        {"kind": "interval", "timezone": "UTC", "seconds": 0, "start_date": NOW.isoformat()},
        {"kind": "interval", "timezone": "UTC", "seconds": "x", "start_date": NOW.isoformat()},
        {"kind": "interval", "timezone": "UTC", "seconds": 5, "start_date": "soon"},
        {"kind": "cron", "timezone": "UTC", "crontab": "* * * *"},
        {"kind": "cron", "timezone": "UTC", "crontab": 5},
        {"kind": "cron", "timezone": "UTC", "fields": {}},
        {"kind": "cron", "timezone": "UTC", "fields": {"hour": "99"}},
        {"kind": "cron", "timezone": "UTC", "fields": {"hours": "9"}},
        {"kind": "cron", "timezone": "UTC", "fields": [3]},
        {"kind": "cron", "timezone": "Mars", "crontab": "* * * * *"},
        {"kind": "cron", "timezone": "UTC", "crontab": "* * * * *", "calendar": "lunar"},
    ],
)
def test_json_that_is_no_trigger(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        from_json(values)


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (interval(minutes=10), "every 10m"),
        (interval(minutes=90), "every 1h30m"),
        (interval(weeks=2), "every 2w"),
        (interval(days=8, seconds=1.5), "every 1w1d1.5s"),
        (interval(seconds=0.25), "every 0.25s"),
        (interval(seconds=45), "every 45s"),
        (cron(crontab="0 3 * * *"), "cron 0 3 * * * Europe/Berlin"),
        (cron(hour=3, day_of_week="mon-fri"), "cron day_of_week=mon-fri hour=3 Europe/Berlin"),
    ],
)
def test_triggers_in_words(trigger: Trigger, words: str) -> None:
    assert describe(trigger) == words


def test_jitter_delays_the_run_and_leaves_the_fire_times_alone() -> None:
    plain, shaken = interval(hours=1), interval(hours=1, jitter="10m")
    assert fire_times(shaken, NOW, 5) == fire_times(plain, NOW, 5)
    rng = random.Random(7)  # any seed does: it holds for all draws
    fire_time = fire_times(shaken, NOW, 1)[0]
    dues = {apply_jitter(shaken, fire_time, rng) for _ in range(200)}
    assert len(dues) > 100
    assert fire_time <= min(dues) < fire_time + timedelta(minutes=2)
    assert fire_time + timedelta(minutes=8) < max(dues) <= fire_time + timedelta(minutes=10)
    assert apply_jitter(plain, fire_time, rng) == fire_time
    assert apply_jitter(interval(hours=1, jitter=0), fire_time, rng) == fire_time
    assert apply_jitter(shaken, fire_time, random.Random(1)) == apply_jitter(
        shaken, fire_time, random.Random(1)
    )


def test_jitter_does_not_lead_past_the_end() -> None:
    end = NOW + timedelta(hours=1, seconds=1)
    trigger = interval(hours=1, jitter="10m", end_date=end)
    fire_time = fire_times(trigger, NOW, 1)[0]
    dues = {apply_jitter(trigger, fire_time, random.Random(seed)) for seed in range(50)}
    assert max(dues) == end


def test_a_machine_whose_zone_has_no_name_may_have_intervals_but_no_cron() -> None:
    class Nameless(type(BERLIN)):  # type: ignore[misc]
        key = "local"

    nameless = Nameless.no_cache("Europe/Berlin")
    assert nameless.key == "local"
    assert interval(hours=1, zone=nameless).timezone == "UTC"
    with pytest.raises(InvalidJob, match="has no name"):
        cron(hour=1, zone=nameless)

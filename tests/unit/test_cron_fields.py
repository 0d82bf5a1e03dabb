"""What crontab text and keyword fields are read as, beside cronsim and APScheduler."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from apscheduler.triggers.cron import CronTrigger as ApsCronTrigger
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable.calendar_walk import Calendar, next_instant
from pyramid_durable.cron_fields import normalize_fields, read_crontab, read_fields
from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.times import UTC

THOROUGH = settings(derandomize=True, max_examples=200, deadline=None)
NAMED_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAMED_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

starts = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2040, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


def fires(calendar: Calendar, after: datetime, count: int) -> list[datetime]:
    """The fire times in UTC, where the clocks are never changed."""
    found: list[datetime] = []
    latest = next_instant(calendar, after, UTC)
    while latest is not None and len(found) < count:
        found.append(latest)
        latest = next_instant(calendar, latest, UTC)
    return found


def days(calendar: Calendar, first: str, last: str) -> list[str]:
    """The days of January 2024 and others on which it fires, as "month-day"."""
    day, end = datetime.fromisoformat(first).date(), datetime.fromisoformat(last).date()
    found = []
    while day <= end:
        if calendar.has_day(day):
            found.append(f"{day:%m-%d}")
        day += timedelta(days=1)
    return found


part_forms = st.sampled_from(["number", "number", "range", "stepped", "open", "star"])


@st.composite
def one_field(draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    """A field in the grammar that both other readers know."""

    def part() -> str:
        form, spelled = draw(st.tuples(part_forms, st.booleans()))
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        if form == "number" or last - first < 2:
            return names[first - low] if names and spelled else str(first)
        if form == "range" and names:
            return f"{names[first - low]}-{names[last - low]}"
        step = draw(st.integers(1, last - first))
        forms = {
            "range": f"{first}-{last}",
            "stepped": f"{first}-{last}/{step}",
            "open": f"{first}/{step}",
            "star": f"*/{step}",
        }
        return forms[form]

    return ",".join(part() for _ in range(draw(st.integers(1, 3))))


def star_or(field: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), field)


crontab_days = st.one_of(one_field(1, 28), st.just("l"), st.just("1,l"), st.just("15,L"))
crontab_weekdays = st.one_of(
    one_field(0, 6, ("sun", *NAMED_DAYS[:6])),
    st.sampled_from(["7", "0,7", "5-7", "MON-FRI", "fri#2", "0#1", "5L", "7l,2#5", "6,mon#3"]),
)


@given(
    minute=star_or(one_field(0, 59)),
    hour=star_or(one_field(0, 23)),
    day=star_or(crontab_days),
    month=star_or(one_field(1, 12, NAMED_MONTHS)),
    weekday=star_or(crontab_weekdays),
    second=st.none() | star_or(one_field(0, 59)),
    start=starts,
)
@THOROUGH
def test_crontab_reads_as_cronsim_does(
    minute: str, hour: str, day: str, month: str, weekday: str, second: str | None, start: datetime
) -> None:
    five = f"{minute} {hour} {day} {month} {weekday}"
    ours = five if second is None else f"{five} {second}"
    # Its seconds stand first, ours last.
    theirs = CronSim(five if second is None else f"{second} {five}", start)
    assert fires(read_crontab(ours), start, 8) == [next(theirs) for _ in range(8)]


keyword_days = st.one_of(
    one_field(1, 28),
    st.sampled_from(
        ["last", "1st mon", "3rd fri", "last sun", "5th tue", "1st mon,last fri", "31"]
    ),
)


@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "year": st.one_of(one_field(2000, 2060), st.just("*"), st.integers(1990, 2060)),
            "month": star_or(one_field(1, 12, NAMED_MONTHS)) | st.integers(1, 12),
            "day": star_or(keyword_days) | st.integers(1, 31),
            "week": star_or(one_field(1, 53)) | st.integers(1, 53),
            "day_of_week": star_or(one_field(0, 6, NAMED_DAYS)) | st.integers(0, 6),
            "hour": star_or(one_field(0, 23)) | st.integers(0, 23),
            "minute": star_or(one_field(0, 59)) | st.integers(0, 59),
            "second": star_or(one_field(0, 59)) | st.integers(0, 59),
        },
    ).filter(bool),
    start=starts,
)
@THOROUGH
def test_keyword_fields_read_as_apscheduler_does(values: dict[str, Any], start: datetime) -> None:
    end = start + timedelta(days=1500)
    theirs = ApsCronTrigger(**values, timezone=UTC, end_date=end)
    expected: list[datetime] = []
    latest = theirs.get_next_fire_time(None, start + timedelta(microseconds=1))
    while latest is not None and len(expected) < 4:
        expected.append(latest)
        latest = theirs.get_next_fire_time(latest, latest)
    try:
        calendar = read_fields(normalize_fields(values))
    except InvalidJob:
        assert expected == []
    else:
        assert [moment for moment in fires(calendar, start, 4) if moment <= end] == expected


def test_weekdays_of_crontab_count_from_sunday() -> None:
    # 2024-01-07 was a Sunday.
    for text in ("0 0 * * 0", "0 0 * * 7", "0 0 * * sun", "0 0 * * SUN", "@weekly"):
        assert days(read_crontab(text), "2024-01-01", "2024-01-14") == ["01-07", "01-14"]
    for text in ("0 0 * * 1-5", "0 0 * * mon-fri", "0 0 * * Mon-Fri"):
        assert days(read_crontab(text), "2024-01-04", "2024-01-09") == [
            "01-04", "01-05", "01-08", "01-09",
        ]  # fmt: skip
    for text in ("0 0 * * fri-sun", "0 0 * * 5-7", "0 0 * * sun,fri,sat"):
        assert days(read_crontab(text), "2024-01-03", "2024-01-09") == ["01-05", "01-06", "01-07"]


def test_weekdays_of_keywords_count_from_monday() -> None:
    for value in (0, "0", "mon", "Mon"):
        calendar = read_fields(normalize_fields({"day_of_week": value}))
        assert days(calendar, "2024-01-01", "2024-01-10") == ["01-01", "01-08"]


def test_restricted_days_of_crontab_are_alternatives() -> None:
    # Friday or the 13th.
    assert days(read_crontab("0 0 13 * 5"), "2024-01-01", "2024-01-19") == [
        "01-05", "01-12", "01-13", "01-19",
    ]  # fmt: skip
    # A field that begins with "*" restricts nothing by itself, so both must fit.
    assert days(read_crontab("0 0 */2 * 5"), "2024-01-01", "2024-01-31") == ["01-05", "01-19"]
    assert days(read_crontab("0 0 13 * *"), "2024-01-01", "2024-02-28") == ["01-13", "02-13"]


def test_given_days_of_keywords_must_all_fit() -> None:
    calendar = read_fields(normalize_fields({"day": 13, "day_of_week": "fri"}))
    assert days(calendar, "2024-01-01", "2024-12-31") == ["09-13", "12-13"]


def test_the_last_day_of_the_month() -> None:
    for calendar in (
        read_crontab("0 0 l * *"),
        read_crontab("0 0 L * *"),
        read_fields(normalize_fields({"day": "last"})),
    ):
        assert days(calendar, "2024-01-01", "2024-05-01") == ["01-31", "02-29", "03-31", "04-30"]
        assert days(calendar, "2023-02-01", "2023-03-01") == ["02-28"]
    assert days(read_crontab("0 0 1,15,l * *"), "2024-04-01", "2024-04-30") == [
        "04-01", "04-15", "04-30",
    ]  # fmt: skip


def test_weekdays_by_position() -> None:
    for text in ("0 0 * * fril", "0 0 * * lfri", "0 0 * * 5L", "0 0 * * L5"):
        assert days(read_crontab(text), "2024-01-01", "2024-03-31") == ["01-26", "02-23", "03-29"]
    assert days(read_crontab("0 0 * * 7#1"), "2024-01-01", "2024-02-29") == ["01-07", "02-04"]
    calendar = read_fields(normalize_fields({"day": "1st mon, last fri"}))
    assert days(calendar, "2024-01-01", "2024-02-29") == ["01-01", "01-26", "02-05", "02-23"]


def test_the_sixth_field_is_for_seconds_and_stands_last() -> None:
    calendar = read_crontab("1 2 3 4 * 5")
    assert fires(calendar, datetime(2024, 1, 1, tzinfo=UTC), 1) == [
        datetime(2024, 4, 3, 2, 1, 5, tzinfo=UTC)
    ]
    assert read_crontab("1 2 3 4 *").seconds == (0,)
    assert read_crontab("* * * * * */15").seconds == (0, 15, 30, 45)


def test_omitted_keywords_are_lowest_below_the_smallest_given_and_free_above() -> None:
    def first(**values: Any) -> str:
        calendar = read_fields(normalize_fields(values))
        return fires(calendar, datetime(2024, 1, 31, 12, 34, 56, tzinfo=UTC), 1)[0].isoformat()

    assert first(second=30) == "2024-01-31T12:35:30+00:00"
    assert first(minute=40) == "2024-01-31T12:40:00+00:00"
    assert first(hour="3") == "2024-02-01T03:00:00+00:00"
    assert first(day_of_week="sun") == "2024-02-04T00:00:00+00:00"
    assert first(week=9) == "2024-02-26T00:00:00+00:00"
    assert first(day=29) == "2024-02-29T00:00:00+00:00"
    assert first(month="*/4") == "2024-05-01T00:00:00+00:00"
    assert first(year=2026) == "2026-01-01T00:00:00+00:00"
    assert first(year=2026, hour=5, month=None) == "2026-01-01T05:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "elapsed"),
    [
        ("* * * * *", True),
        ("*/5 * * * *", True),
        ("0 * * * *", True),
        ("0 */2 * * *", True),
        ("*/5 3 * * *", True),
        ("@hourly", True),
        ("0 3 * * *", False),
        ("0,30 0-23 * * *", False),
        ("0 3 * * * *", False),
        ("@daily", False),
    ],
)
def test_which_crontabs_follow_elapsed_time(text: str, elapsed: bool) -> None:
    assert read_crontab(text).elapsed is elapsed


@pytest.mark.parametrize(
    ("values", "elapsed"),
    [
        ({"minute": "*/5"}, True),
        ({"minute": 5}, True),
        ({"second": 5}, True),
        ({"hour": "*/2"}, True),
        ({"hour": 3, "second": 5}, True),
        ({"hour": 3}, False),
        ({"day": "*"}, False),
        ({"hour": 3, "minute": 0, "second": "*"}, False),
    ],
)
def test_which_keyword_fields_follow_elapsed_time(values: dict[str, Any], elapsed: bool) -> None:
    assert read_fields(normalize_fields(values)).elapsed is elapsed


@pytest.mark.parametrize(
    ("text", "named", "part"),
    [
        ("60 * * * *", "minute", "'60'"),
        ("* 24 * * *", "hour", "'24'"),
        ("* * 0 * *", "day of month", "'0'"),
        ("* * 32 * *", "day of month", "'32'"),
        ("* * l-3 * *", "day of month", "'l-3'"),
        ("* * * 13 *", "month", "'13'"),
        ("* * * mai *", "month", "'mai'"),
        ("* * * january *", "month", "'january'"),
        ("* * * * 8", "day of week", "'8'"),
        ("* * * * fri-mon", "day of week", "'fri-mon'"),
        ("* * * * fri#6", "day of week", "'fri#6'"),
        ("* * * * xyz#1", "day of week", "'xyz#1'"),
        ("* * * * 9l", "day of week", "'9l'"),
        ("* * * * l", "day of week", "'l'"),
        ("* * * * * 60", "second", "'60'"),
        ("*/0 * * * *", "minute", r"'\*/0'"),
        ("*/90 * * * *", "minute", r"'\*/90'"),
        ("*/99999999999 * * * *", "minute", r"'\*/9+'"),
        ("1,,2 * * * *", "minute", "''"),
        ("5-1 * * * *", "minute", "'5-1'"),
        ("1-2-3 * * * *", "minute", "'1-2-3'"),
        ("-1 * * * *", "minute", "'-1'"),
        ("*5 * * * *", "minute", r"'\*5'"),
        ("٣ * * * *", "minute", "'٣'"),
    ],
)
def test_crontab_fields_that_cannot_be_read(text: str, named: str, part: str) -> None:
    with pytest.raises(InvalidJob, match=f"field {named}: {part} cannot be read; expected numbers"):
        read_crontab(text)


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * * *", "@reboot", "daily"])
def test_crontabs_of_another_shape(text: str) -> None:
    with pytest.raises(InvalidJob, match=r"fields; expected 5 .* a 6th for seconds"):
        read_crontab(text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hour": "25"}, "hour: '25' .*numbers 0-23"),
        ({"hour": ""}, "hour: ''"),
        ({"minute": "*/61"}, r"minute: '\*/61'"),
        ({"second": "a"}, "second: 'a'"),
        ({"year": 1900}, "year: '1900' .*numbers 1970-9999"),
        ({"month": "foo"}, "month: 'foo' .*jan/feb"),
        ({"day": "6th mon"}, "day: '6th mon' .*'last fri'"),
        ({"day": "1st foo"}, "day: '1st foo'"),
        ({"day": "l"}, "day: 'l'"),
        ({"week": 54}, "week: '54'"),
        ({"day_of_week": 7}, "day_of_week: '7'"),
        ({"day_of_week": "mon1"}, "day_of_week: 'mon1'"),
        ({"day_of_week": "monday"}, "day_of_week: 'monday'"),
        ({"hour": 2.5}, "hour=2.5 is neither"),
        ({"hour": True}, "hour=True is neither"),
        ({"hour": [1, 2]}, r"hour=\[1, 2\] is neither"),
        ({"hours": 3}, "'hours' is unknown; expected year, month"),
    ],
)
def test_keyword_fields_that_cannot_be_read(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidJob, match=expected):
        read_fields(normalize_fields(values))


@pytest.mark.parametrize(
    "values",
    [
        {"month": 2, "day": 30},
        {"month": "4,6,9,11", "day": 31},
        {"year": 2023, "month": 2, "day": 29},
        {"month": 6, "week": 1},
        {"year": "2021,2022", "week": 53, "month": 12},
    ],
)
def test_keyword_fields_that_would_never_fire(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="would never fire"):
        read_fields(normalize_fields(values))


def test_a_crontab_that_would_never_fire() -> None:
    with pytest.raises(InvalidJob, match=r"'0 0 30 2 \*' .*would never fire"):
        read_crontab("0 0 30 2 *")
    # With a weekday beside it there are days.
    assert days(read_crontab("0 0 30 2 1"), "2024-01-01", "2024-02-08") == ["02-05"]


def test_days_that_are_rare_are_found() -> None:
    # Mondays among the 29ths of February are 40 years apart at most, here across 2100.
    calendar = read_fields(normalize_fields({"month": 2, "day": 29, "day_of_week": "mon"}))
    found = fires(calendar, datetime(2072, 1, 1, tzinfo=UTC), 3)
    assert [moment.year for moment in found] == [2072, 2112, 2140]

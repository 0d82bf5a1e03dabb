"""The retry policy: backoffs, what a job raises to be tried again, and the decision."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable.retry import (
    IGNORE,
    OK,
    RETRY,
    RETRY_PAUSE,
    Again,
    Backoff,
    Cancel,
    Retry,
    decide_retry,
    parse_backoff,
)

quick = settings(derandomize=True, deadline=None, max_examples=100)
waits = st.floats(0, 1e9)
backoffs = st.builds(
    Backoff,
    base=waits,
    factor=st.floats(1, 1e12),
    ceiling=waits,
    jitter=st.floats(0, 1),
    steps=st.lists(waits, max_size=4).map(tuple),
)


def decide(error: BaseException | None, **changes: Any) -> Again | None:
    given: dict[str, Any] = {"attempt": 1, "max_attempts": 1, "backoff": None, "rng": Random(1)}
    return decide_retry(error, **{**given, **changes})


@quick
@given(backoffs, st.integers(1, 2**31), st.integers())
def test_a_wait_is_bounded_and_loses_at_most_the_jitter(
    backoff: Backoff, attempt: int, seed: int
) -> None:
    whole = Backoff(
        base=backoff.base, factor=backoff.factor, ceiling=backoff.ceiling, jitter=0,
        steps=backoff.steps,
    ).delay(attempt, Random(seed))  # fmt: skip
    wait = backoff.delay(attempt, Random(seed))
    assert whole * (1 - backoff.jitter) <= wait <= whole
    assert whole <= max(backoff.steps or (backoff.ceiling,))


@quick
@given(backoffs, st.integers(1, 10_000))
def test_waits_do_not_get_shorter(backoff: Backoff, attempt: int) -> None:
    if backoff.steps:
        return
    even = Backoff(base=backoff.base, factor=backoff.factor, ceiling=backoff.ceiling, jitter=0)
    assert even.delay(attempt, Random(1)) <= even.delay(attempt + 1, Random(1))


@quick
@given(backoffs)
def test_a_backoff_survives_json(backoff: Backoff) -> None:
    assert parse_backoff(json.loads(json.dumps(backoff.to_json()))) == backoff


def test_the_default_doubles_up_to_an_hour() -> None:
    even = Backoff(jitter=0)
    assert [even.delay(n, Random(1)) for n in (1, 2, 3, 9, 500, 2**31)] == [
        15, 30, 60, 3600, 3600, 3600,
    ]  # fmt: skip


def test_a_slow_factor_reaches_its_ceiling_too() -> None:
    assert Backoff(base=1, factor=1.01, ceiling=100, jitter=0).delay(600, Random(1)) == 100


def test_jitter_spreads_jobs_that_failed_together() -> None:
    rng = Random(1)
    assert len({Backoff().delay(1, rng) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("exponential", Backoff()),
        ({}, Backoff()),
        (30, Backoff(steps=(30,), jitter=0)),
        ("5m", Backoff(steps=(300,), jitter=0)),
        ("30", Backoff(steps=(30,), jitter=0)),
        (0, Backoff(steps=(0,), jitter=0)),
        (timedelta(minutes=1), Backoff(steps=(60,), jitter=0)),
        ([1, "1m", 3600.0], Backoff(steps=(1, 60, 3600), jitter=0)),
        ((5,), Backoff(steps=(5,), jitter=0)),
        ({"base": "1s", "factor": 3, "ceiling": "10m", "jitter": 0.1},
         Backoff(base=1, factor=3, ceiling=600, jitter=0.1)),
        ({"steps": ["1s", 5]}, Backoff(steps=(1, 5))),
    ],
)  # fmt: skip
def test_backoffs_are_read(value: Any, expected: Backoff) -> None:
    assert parse_backoff(value) == expected
    assert parse_backoff(expected) is expected


@pytest.mark.parametrize(
    "value",
    [
        None, True, -1, "soon", "", [], [1, "soon"], [True], [[1]], float("nan"), float("inf"),
        object(), datetime(2024, 1, 1), b"5",
        {"base": -1}, {"base": None}, {"factor": 0.5}, {"factor": float("inf")}, {"factor": "x"},
        {"factor": None}, {"factor": float("nan")}, {"jitter": 2}, {"jitter": -0.1},
        {"jitter": float("nan")}, {"ceiling": "x"}, {"steps": "55"}, {"steps": 5},
        {"steps": [-1]}, {"bass": 1}, {1: 1},
    ],
)  # fmt: skip
def test_what_is_no_backoff_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"is no backoff .*expected 'exponential'"):
        parse_backoff(value)


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"'bass'.* expected .*base, factor"):
        parse_backoff({"bass": 1})


def test_a_backoff_out_of_range_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="jitter"):
        Backoff(jitter=1.5)
    with pytest.raises(ValueError, match="-1"):
        Backoff(steps=(-1,))


def test_an_exception_is_tried_again_while_attempts_are_left() -> None:
    again = decide(KeyError(), attempt=2, max_attempts=3, backoff=7)
    assert again == Again(delay=7, max_attempts=3)
    assert decide(KeyError(), attempt=3, max_attempts=3, backoff=7) is None
    assert decide(KeyError(), attempt=4, max_attempts=3) is None
    assert decide(KeyError(), attempt=10**6, max_attempts=None, backoff=7) == Again(delay=7)


def test_an_exception_without_a_backoff_takes_the_default_one() -> None:
    again = decide(KeyError(), attempt=1, max_attempts=2)
    assert again is not None
    assert again.delay is not None
    assert 7.5 <= again.delay <= 15


@pytest.mark.parametrize("error", [None, Retry()])
def test_a_retry_without_a_time_follows_the_backoff_or_waits_an_hour(error: Any) -> None:
    assert decide(error, attempt=9) == Again(delay=RETRY_PAUSE, max_attempts=1)
    assert decide(error, attempt=2, backoff=[5, 6]) == Again(delay=6, max_attempts=1)


def test_a_retry_is_bounded_where_a_bound_was_given() -> None:
    assert decide(Retry(delay=1), attempt=50, max_attempts=1) is not None
    assert decide(Retry(delay=1, max_attempts=3), attempt=2) is not None
    assert decide(Retry(delay=1, max_attempts=3), attempt=3) is None
    assert decide(Retry(date="5d", max_attempts=3), attempt=3) is None
    # The job's own, beyond the one attempt that every job has.
    assert decide(Retry(delay=1), attempt=2, max_attempts=3) is not None
    assert decide(Retry(delay=1), attempt=3, max_attempts=3) is None
    assert decide(Retry(delay=1, max_attempts=5), attempt=4, max_attempts=3) is not None


def test_a_retry_leaves_the_bound_of_ordinary_exceptions() -> None:
    """A job that asked for one more try must not fail for ever after."""
    for error in (Retry(), Retry(delay=5), Retry(date="5d")):
        again = decide(error, attempt=1, max_attempts=2)
        assert again is not None
        assert again.max_attempts == 2
        assert decide(KeyError(), attempt=2, max_attempts=again.max_attempts) is None


def test_a_bound_that_a_retry_gives_is_the_jobs_from_now_on() -> None:
    assert decide(Retry(delay=1, max_attempts=9)) == Again(delay=1, max_attempts=9)


def test_a_retry_names_its_time() -> None:
    assert decide(Retry(delay="5m"), backoff=9) == Again(delay=300, max_attempts=1)
    assert decide(Retry(delay=0)) == Again(delay=0, max_attempts=1)
    assert decide(Retry(date="5d"), backoff=9) == Again(delay=5 * 86400, max_attempts=1)
    assert decide(Retry(date=timedelta(hours=-1))) == Again(delay=0, max_attempts=1)
    on = "2030-05-17"
    assert decide(Retry(date=on), backoff=9) == Again(date=on, max_attempts=1)


@pytest.mark.parametrize(
    "given",
    [
        {"delay": "soon"}, {"delay": -1}, {"delay": float("nan")},
        {"delay": True}, {"max_attempts": 0}, {"max_attempts": -1}, {"max_attempts": "3"},
        {"max_attempts": True}, {"max_attempts": 2.5},
    ],
)  # fmt: skip
def test_a_retry_that_cannot_be_read_is_an_error_in_the_job(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Retry(**given)


def test_a_retry_takes_one_time() -> None:
    with pytest.raises(TypeError, match="not both"):
        Retry(delay=1, date="5d")


@pytest.mark.parametrize(
    "error", [Retry(), Retry("5m", max_attempts=4), Retry(date="5d"), Cancel(), Cancel("why")]
)
def test_what_a_job_raises_comes_out_of_another_process(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_errors_say_what_happened() -> None:
    assert str(Retry(delay=5)) == "the job asked to be tried again"
    assert str(Cancel("sold out")) == "sold out"
    assert Cancel(7).reason == "7"  # type: ignore[arg-type]


@pytest.mark.parametrize("sentinel", [OK, RETRY, IGNORE])
def test_sentinels_stay_the_same_objects(sentinel: Any) -> None:
    assert pickle.loads(pickle.dumps(sentinel)) is sentinel  # noqa: S301 - our own
    assert copy.deepcopy(sentinel) is sentinel
    assert repr(sentinel) in ("OK", "RETRY", "IGNORE")


@pytest.mark.parametrize(
    ("error", "backoff"),
    [(Retry(delay="999999999d"), None), (Retry(), "99999999d"), (KeyError(), "99999999d")],
)
def test_a_wait_still_ends_at_a_date(error: Exception, backoff: Any) -> None:
    again = decide(error, max_attempts=5, backoff=backoff)
    assert again is not None
    assert again.delay is not None
    assert datetime(2024, 1, 1) + timedelta(seconds=again.delay) > datetime(3000, 1, 1)

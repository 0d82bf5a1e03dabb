import json
from datetime import timedelta

import pytest

from pyramid_durable.outcomes import (
    KEPT_ERRORS,
    LONGEST_ERROR,
    completion_of,
    describe_error,
    too_late,
    with_error,
)
from pyramid_durable.records import SUCCEEDED

from .fakes import NOON, claim


def later(seconds):
    return NOON + timedelta(seconds=seconds)


def test_a_job_without_limits_is_never_too_late():
    assert too_late(claim(), later(10**8)) is None


@pytest.mark.parametrize("expires", [60, later(60).isoformat()])
def test_an_expired_job_is_too_late(expires):
    job = claim(options={"expires": expires}, attempt=3, crashes=1)
    assert too_late(job, later(60)) is None
    assert "expired at 2024-05-01 12:01:00" in too_late(job, later(61))


def test_the_misfire_grace_is_for_the_first_attempt():
    options = {"misfire_grace_time": 5.0}
    assert too_late(claim(options=options), later(5)) is None
    assert "6 s late" in too_late(claim(options=options), later(6))
    assert too_late(claim(options=options, attempt=1), later(60)) is None
    assert too_late(claim(options=options, crashes=1), later(60)) is None


def test_errors_of_all_attempts_are_kept_newest_last():
    errors = with_error(None, "first")
    assert json.loads(with_error(errors, "second")) == ["first", "second"]


def test_the_number_of_kept_errors_is_bounded():
    errors = None
    for number in range(KEPT_ERRORS + 3):
        errors = with_error(errors, str(number))
    kept = json.loads(errors)
    assert len(kept) == KEPT_ERRORS
    assert kept[-1] == str(KEPT_ERRORS + 2)


def test_a_huge_error_loses_its_middle():
    (kept,) = json.loads(with_error(None, "begin" + "x" * 10**6 + "end"))
    assert len(kept) < LONGEST_ERROR + 100
    assert kept.startswith("begin")
    assert kept.endswith("end")
    assert "characters left out" in kept


def test_what_no_database_takes_is_escaped():
    text = with_error(None, "a\0b\ud800c")
    assert "\0" not in text
    text.encode("utf-8")
    assert json.loads(text) == ["a\0b\ud800c"]


def test_a_traceback_begins_at_the_jobs_code():
    try:
        json.loads("{")
    except ValueError as error:
        text = describe_error(error)
    assert text.startswith("Traceback")
    assert "JSONDecodeError" in text
    assert "test_outcomes.py" in text


def test_a_completion_keeps_what_the_attempt_did_not_change():
    job = claim(userdata='{"a": 1}', errors='["before"]', max_attempts=4)
    done = completion_of(job, SUCCEEDED, attempt=2, started_at=NOON)
    assert (done.userdata, done.errors, done.max_attempts) == ('{"a": 1}', '["before"]', 4)
    assert (done.id, done.owner, done.claim_no) == (job.id, job.owner, job.claim_no)
    assert not done.delete


@pytest.mark.parametrize(
    "options", [{"delete_after": True}, {"behavior": "DELETE_AFTER_PROCESSING"}]
)
def test_a_job_to_be_deleted_goes_when_it_ends_and_not_before(options):
    job = claim(options=options)
    assert completion_of(job, SUCCEEDED, attempt=1, started_at=NOON).delete
    again = completion_of(job, "scheduled", attempt=1, started_at=NOON)
    assert not again.delete

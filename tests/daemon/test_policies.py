import pytest

from pyramid_durable.policies import UNCHARGED_RETURNS, claim_alone, is_noted_first

from .fakes import claim


def test_most_jobs_are_not_noted_before_they_start():
    assert not is_noted_first(claim(started=True, crashes=1))
    assert not is_noted_first(claim(started=False))


@pytest.mark.parametrize("crashes", [1, 2])
def test_a_job_with_a_crash_is_noted_first(crashes):
    assert is_noted_first(claim(started=False, crashes=crashes, claim_no=crashes + 1))


def test_a_job_that_comes_back_uncharged_too_often_is_noted_first():
    last = UNCHARGED_RETURNS + 1
    assert not is_noted_first(claim(started=False, claim_no=last))
    assert is_noted_first(claim(started=False, claim_no=last + 1))
    assert not is_noted_first(claim(started=False, claim_no=last + 1, attempt=1))


def test_a_suspect_runs_alone_and_first_or_later():
    suspect, others = claim("s", crashes=2), [claim("a"), claim("b")]
    assert claim_alone([suspect, *others]) == ([suspect], others)
    assert claim_alone([*others, suspect]) == (others, [suspect])
    assert claim_alone([suspect]) == ([suspect], [])

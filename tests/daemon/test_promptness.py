"""Who claims without a look, and when."""

from __future__ import annotations

from pyramid_durable.promptness import Promptness


def rested() -> Promptness:
    """One whose last look found nothing."""
    promptness = Promptness()
    promptness.looked(found=False, full=False)
    return promptness


def test_it_is_wanted_once_for_what_was_told():
    promptness = rested()
    assert not promptness.is_wanted(idle=True)
    promptness.tell()
    promptness.tell()
    assert promptness.is_wanted(idle=True)
    assert not promptness.is_wanted(idle=True)


def test_what_was_told_to_a_busy_daemon_is_left_to_its_look():
    promptness = rested()
    promptness.tell()
    assert not promptness.is_wanted(idle=False)
    assert not promptness.is_wanted(idle=True)


def test_it_is_not_wanted_where_there_is_more_than_was_told_of():
    # Nothing is known before the first look.
    promptness = Promptness()
    promptness.tell()
    assert not promptness.is_wanted(idle=True)
    promptness.looked(found=True, full=True)
    promptness.tell()
    assert not promptness.is_wanted(idle=True)
    promptness.looked(found=True, full=False)
    promptness.tell()
    assert promptness.is_wanted(idle=True)


def test_who_found_nothing_lets_others_go_first_until_it_finds_something():
    promptness = rested()
    assert promptness.goes_first
    promptness.tried(found=False)
    assert not promptness.goes_first
    promptness.looked(found=False, full=False)
    assert not promptness.goes_first
    promptness.looked(found=True, full=False)
    assert promptness.goes_first
    promptness.tried(found=True)
    assert promptness.goes_first

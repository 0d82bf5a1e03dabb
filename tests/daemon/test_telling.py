"""What is told of which ends, and when; without a database and without a daemon."""

from __future__ import annotations

import pytest
from pyramid.registry import Registry

from pyramid_durable.endings import GiveBack, ending_of
from pyramid_durable.events import JobFailed, JobRetrying
from pyramid_durable.listeners import Listeners
from pyramid_durable.outcomes import Outcome, broken, reason_of, succeeded
from pyramid_durable.recorder import Recorder
from pyramid_durable.records import RUNNING, SCHEDULED
from pyramid_durable.retry import Retry
from pyramid_durable.telling import Telling

from .fakes import FakeStore, claim, rescued
from .story import Story


@pytest.fixture
def story():
    return Story()


@pytest.fixture
def telling(story):
    listeners = Listeners(Registry())
    listeners.add(story, None, None, None)
    telling = Telling(listeners)
    yield telling
    telling.stop(5)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def recorder(store, telling):
    recorder = Recorder(store, poison_limit=3, telling=telling)
    recorder.start()
    yield recorder
    recorder.stop(1)


def success(one):
    return succeeded(one, 42, text="42", started_at=one.claimed_at)


def end(telling, recorder, one, outcome, *, started=True):
    """Let an attempt begin and end as a daemon does; what was told when all is written."""
    telling.claimed([one])
    if started:
        telling.starting()(one)
    telling.ended(one, outcome)
    ending = ending_of(one, outcome)
    if ending is not None:
        recorder.add(ending)
    assert recorder.flush(5)
    assert telling.flush(5)


def test_an_end_that_was_not_ours_to_write_is_not_told(telling, recorder, store, story):
    store.lost = {"two"}
    for id in ("one", "two", "three"):
        end(telling, recorder, claim(id), success(claim(id)))
    assert story.words == {"one": "CSs", "two": "CS", "three": "CSs"}
    assert not telling._ends
    assert not telling._started


def test_what_was_written_instead_of_an_end_is_what_is_told(telling, recorder, store, story):
    def refuse(batch):
        if any(each.result for each in batch):
            raise ValueError("cannot be stored")

    store.refuse = refuse
    end(telling, recorder, claim(), success(claim()))
    assert story.words == {"job": "CSf"}
    assert "could not be stored" in story.of(JobFailed)[0].error


def test_an_end_that_nothing_could_be_written_of_is_forgotten(telling, recorder, store, story):
    def refuse(batch):
        raise ValueError("cannot be stored")

    store.refuse = refuse
    end(telling, recorder, claim(), success(claim()))
    assert story.words == {"job": "CS"}
    assert not telling._ends


def test_what_failed_on_its_way_to_its_own_code_had_a_start_too(telling, recorder, story):
    end(telling, recorder, claim(), success(claim()), started=False)
    assert story.words == {"job": "CSs"}


def test_what_is_broken_had_none(telling, recorder, story):
    end(telling, recorder, claim(), broken(claim(), ValueError("why")), started=False)
    assert story.words == {"job": "Cb"}


@pytest.mark.parametrize(
    ("outcome", "started", "word"),
    [
        (Outcome(state=SCHEDULED, give_back=1.0), False, "C"),
        (Outcome(state=SCHEDULED, give_back=1.0, started=True), True, "CSr"),
        (Outcome(state=SCHEDULED, give_back=1.0, started=True, crashed=True), True, "CSr"),
        # It counts against the poison limit, so it was an attempt.
        (Outcome(state=SCHEDULED, give_back=1.0, crashed=True), False, "CSr"),
        (Outcome(state=RUNNING), True, "CS"),
    ],
)
def test_what_is_given_back(telling, recorder, story, outcome, started, word):
    end(telling, recorder, claim(), outcome, started=started)
    assert story.words == {"job": word}


def test_each_give_back_is_told_with_its_own_reason(telling, store, story, monkeypatch):
    released = []

    def release(connection, claims, delay=0.0):
        released.append(([each.id for each in claims], delay))
        return 0 if claims[0].id == "lost" else len(claims)

    monkeypatch.setattr(store, "release", release)
    recorder = Recorder(store, poison_limit=3, telling=telling)
    for id, reason in (("a", None), ("b", "an outage"), ("lost", "an outage"), ("c", None)):
        recorder.add(GiveBack(claim=claim(id), delay=2.0, reason=reason))
    recorder.start()
    assert recorder.stop(5)
    assert telling.flush(5)
    assert released == [(["a", "c"], 2.0), (["b"], 2.0), (["lost"], 2.0)]
    assert story.words == {"b": "r"}
    (event,) = story.of(JobRetrying)
    assert (event.reason, event.delay) == ("an outage", 2.0)


def test_a_rescue(telling, story):
    telling.rescued([rescued("a"), rescued("b", started=False), rescued("c", ended=True)])
    assert telling.flush(5)
    assert story.words == {"a": "r", "c": "f"}


def test_a_replaced_job_is_created_once(telling, story):
    telling.claimed([claim("a"), claim("b", claim_no=7)])
    assert telling.flush(5)
    assert story.words == {"a": "C"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "it asked for another attempt"),
        (Retry(), "it asked for another attempt"),
        (ValueError(), "ValueError"),
        (ValueError("\n  first\nsecond"), "ValueError: first"),
        (ValueError("x" * 500), f"ValueError: {'x' * 200}..."),
    ],
)
def test_a_reason_is_one_line(error, reason):
    assert reason_of(error) == reason

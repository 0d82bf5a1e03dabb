import sqlite3
import sys
import threading

import pytest
from sqlalchemy.exc import OperationalError

from pyramid_durable import recorder as module
from pyramid_durable.endings import GiveBack
from pyramid_durable.exceptions import StoreUnavailable
from pyramid_durable.recorder import DOUBTFUL, LARGEST_TEXT, LINGER, Recorder, let_grow
from pyramid_durable.records import FAILED

from .fakes import FakeStore, claim, completion, eventually


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def recorder(store):
    recorder = Recorder(store, poison_limit=3)
    yield recorder
    recorder.stop(1)


@pytest.fixture
def restless(monkeypatch):
    """Threads take turns as often as they can, and the recorder's sleeps whenever it may."""
    monkeypatch.setattr(module, "LINGER", ((), ()))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_what_waits_is_written_together(store, recorder):
    for number in range(500):
        recorder.add(completion(f"job-{number}"))
    recorder.start()
    assert recorder.flush(5)
    assert [each.id for each in store.written] == [f"job-{number}" for number in range(500)]
    assert len(store.batches) < 5


def test_endings_of_many_threads_are_written_once_and_in_their_order(store, recorder, restless):
    errors = []

    def produce(name):
        try:
            for number in range(400):
                ending = completion(f"{name}-{number}")
                recorder.add(ending)
                held = (ending.id, 1) in recorder.holding()
                assert held or ending in store.written, f"nobody holds {ending.id}"
        except BaseException as error:
            errors.append(error)

    recorder.start()
    producers = [threading.Thread(target=produce, args=(name,)) for name in "abcd"]
    for thread in producers:
        thread.start()
    for thread in producers:
        thread.join(30)
    eventually(lambda: not recorder.holding())
    assert not errors
    for name in "abcd":
        written = [one.id for one in store.written if one.id.startswith(name)]
        assert written == [f"{name}-{number}" for number in range(400)]


class Meddling(threading.Event):
    """As if another thread did something at one moment of a thread's going to sleep."""

    def __init__(self, moment, do):
        super().__init__()
        self._does = {moment: do}

    def _at(self, moment):
        self._does.pop(moment, lambda: None)()

    def clear(self):
        self._at("before it clears")
        super().clear()
        self._at("before it looks")

    def wait(self, timeout=None):
        self._at("before it waits")
        return super().wait(timeout)


@pytest.mark.parametrize("moment", ["before it clears", "before it looks", "before it waits"])
def test_an_ending_that_comes_while_the_thread_goes_to_sleep_is_written(store, recorder, moment):
    recorder._come = Meddling(moment, lambda: recorder.add(completion(moment)))
    recorder.start()
    eventually(lambda: [one.id for one in store.written] == [moment])


def test_an_ending_is_held_until_it_is_written(store, recorder):
    held = []

    def refuse(batch):
        held.append(recorder.holding())
        if len(held) == 1:
            recorder.add(GiveBack(claim=claim("late")))
            raise StoreUnavailable("for a moment")

    store.refuse = refuse
    recorder.add(completion("early"))
    assert recorder.holding() == {("early", 1)}
    recorder.start()
    assert recorder.flush(5)
    assert held == [{("early", 1)}, {("early", 1), ("late", 1)}]
    eventually(lambda: not recorder.holding())


@pytest.mark.parametrize(
    ("busy", "arrivals", "waited"),
    [
        (True, [5, 5, 5, 5], 0.02),
        (True, [5, 0], 0.01),
        (True, [0], 0.005),
        (True, [198, 1], 0.01),
        (True, [300], 0.005),
        (False, [5], 0.002),
        (False, [0], 0.002),
    ],
)
def test_a_batch_grows_for_as_long_as_more_comes(busy, arrivals, waited):
    waiting, slices = ["first"], []

    def wait(seconds):
        waiting.extend(["more"] * arrivals[len(slices)])
        slices.append(seconds)
        return False

    let_grow(waiting, wait, LINGER[busy])
    assert len(slices) == len(arrivals)
    assert sum(slices) == pytest.approx(waited)


def test_a_batch_does_not_grow_where_there_is_enough_or_no_time():
    slices = []
    let_grow(range(200), slices.append, LINGER[True])
    assert slices == []
    let_grow(range(20), lambda seconds: not slices.append(seconds), LINGER[True])
    assert slices == [0.005]


def test_nothing_is_lost_while_the_store_is_away(store, recorder, caplog):
    store.away = True
    recorder.start()
    recorder.add(completion("a"))
    eventually(lambda: "ends of jobs wait for the store" in caplog.text)
    recorder.add(completion("b"))
    assert not recorder.flush(0.3)
    assert caplog.text.count("ends of jobs wait") == 1
    store.away = False
    assert recorder.flush(5)
    assert [each.id for each in store.written] == ["a", "b"]


def test_a_batch_the_database_refuses_is_split(store, recorder):
    def refuse(batch):
        if any(each.result == "bad" for each in batch):
            raise ValueError("cannot be stored")

    store.refuse = refuse
    for number in range(20):
        recorder.add(completion(f"job-{number}", result="bad" if number == 7 else "good"))
    recorder.start()
    assert recorder.flush(5)
    written = {each.id: each for each in store.written}
    assert len(written) == 20
    assert written["job-7"].state == FAILED
    assert written["job-7"].result is None
    assert "could not be stored" in written["job-7"].errors
    assert all(each.result == "good" for each in store.written if each.id != "job-7")


def test_a_completion_that_can_not_be_stored_at_all_does_not_stop_the_others(
    store, recorder, caplog
):
    def refuse(batch):
        if any(each.id == "bad" for each in batch):
            raise ValueError("never")

    store.refuse = refuse
    recorder.start()
    recorder.add(completion("bad"))
    recorder.add(completion("good"))
    assert recorder.flush(5)
    assert [each.id for each in store.written] == ["good"]
    assert "its end cannot be stored: ValueError" in caplog.text
    assert "never" not in caplog.text  # a database's error shows the values


def test_a_lost_claim_is_logged_and_dropped(store, recorder, caplog):
    store.lost = {"b"}
    recorder.start()
    for id in "abc":
        recorder.add(completion(id))
    assert recorder.flush(5)
    assert "job b: claim 1 was lost" in caplog.text
    assert "job a" not in caplog.text


def test_claims_are_given_back_with_their_delay(store, recorder):
    recorder.start()
    recorder.add(GiveBack(claim=claim("a"), delay=2.0))
    recorder.add(GiveBack(claim=claim("b"), delay=0.0))
    assert recorder.flush(5)
    assert {(each.id, delay) for each, delay in store.released} == {("a", 2.0), ("b", 0.0)}


def test_a_flush_covers_what_is_in_hand(store, recorder):
    entered, go_on = threading.Event(), threading.Event()

    def refuse(batch):
        entered.set()
        assert go_on.wait(5)

    store.refuse = refuse
    recorder.start()
    recorder.add(completion("a"))
    assert entered.wait(5)
    assert not recorder.flush(0.05)
    go_on.set()
    assert recorder.flush(5)


def test_stopping_writes_what_is_left(store):
    recorder = Recorder(store, poison_limit=3)
    recorder.start()
    for number in range(3000):
        recorder.add(completion(f"job-{number}"))
    assert recorder.stop(5)
    assert len(store.written) == 3000


def test_stopping_while_the_store_is_away_says_what_was_lost(store, caplog):
    store.away = True
    recorder = Recorder(store, poison_limit=3)
    recorder.start()
    recorder.add(completion("a"))
    recorder.add(completion("b"))
    assert not recorder.stop(0.2)
    assert "2 endings of jobs could not be written" in caplog.text


def test_a_batch_is_bounded_by_its_texts(store, recorder):
    for number in range(6):
        recorder.add(completion(f"job-{number}", result="x" * (LARGEST_TEXT // 3 + 1)))
    recorder.start()
    assert recorder.flush(5)
    assert store.batches == [3, 3]


def test_an_end_that_looks_like_an_outage_each_time_is_told_from_one(store, recorder, caplog):
    """As a packet that is too large does: MariaDB closes the connection."""

    def refuse(batch):
        if any(each.result == "too large" for each in batch):
            raise StoreUnavailable("the server has gone away")

    store.refuse = refuse
    recorder.start()
    recorder.add(completion("large", result="too large"))
    recorder.add(completion("small", result="fits"))
    assert recorder.flush(20)
    written = {each.id: each.state for each in store.written}
    assert written == {"large": FAILED, "small": "succeeded"}
    assert "its end cannot be stored as it is" in caplog.text


def test_an_end_that_finds_no_room_waits_although_smaller_writes_find_some(store, recorder, caplog):
    full = threading.Event()
    full.set()
    tries = []

    def refuse(batch):
        tries.append(batch)
        if full.is_set():
            raise StoreUnavailable("the disk") from OperationalError(
                "UPDATE", {}, sqlite3.OperationalError("database or disk is full")
            )

    store.refuse = refuse
    recorder.start()
    recorder.add(completion("large", result="x" * 1000))
    eventually(lambda: len(tries) > DOUBTFUL)
    full.clear()
    assert recorder.flush(10)
    assert [(each.id, each.state) for each in store.written] == [("large", "succeeded")]
    assert "cannot be stored" not in caplog.text


def test_what_is_cut_short_is_charged_for_it(store, recorder):
    recorder.add(GiveBack(claim=claim("crashed"), crashed=True))
    recorder.add(GiveBack(claim=claim("not"), delay=2.0))
    recorder.start()
    assert recorder.flush(5)
    assert [one.id for one in store.interrupted] == ["crashed"]
    assert [(one.id, delay) for one, delay in store.released] == [("not", 2.0)]

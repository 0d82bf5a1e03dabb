import pytest

from pyramid_durable.exceptions import StoreUnavailable
from pyramid_durable.heartbeat import Heartbeat, default_label

from .fakes import Clock, FakeStore, claim, eventually, rescued


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(store, clock):
    made = []

    def make(**changes):
        options = {"queues": ["default"], "label": "here", "interval": 60.0, "lease": 16.0}
        heart = Heartbeat(store, **{**options, "poison_limit": 3, "clock": clock, **changes})
        made.append(heart)
        heart.start()
        return heart

    yield make
    for heart in made:
        heart.stop()


def test_the_lease_is_held_for_most_of_its_time(make, clock):
    heart = make()
    assert heart.held()
    clock.now += 11.9
    assert heart.held()
    clock.now += 0.2
    assert not heart.held()
    heart.beat()
    assert heart.held()


def test_a_lease_that_cannot_be_renewed_ends_before_others_take_over(make, store, clock):
    heart = make()
    store.away = True
    clock.now += 10
    with pytest.raises(StoreUnavailable):
        heart.beat()
    assert heart.held()
    clock.now += 4
    assert not heart.held()


def test_each_start_is_a_new_incarnation(make, store):
    one, two = make(), make()
    assert one.incarnation != two.incarnation
    assert store.alive == {one.incarnation, two.incarnation}


def test_declared_dead_it_comes_back_as_another(make, store, caplog):
    heart = make()
    before = heart.incarnation
    mine = claim(owner=before)
    assert heart.holds(mine)
    store.alive.clear()
    heart.beat()
    assert heart.incarnation != before
    assert heart.incarnation in store.alive
    assert heart.held()
    assert not heart.holds(mine)
    assert "declared dead" in caplog.text


def test_it_says_when_the_lease_is_held_again(make, clock):
    revivals = []
    heart = make(revived=lambda: revivals.append(clock.now))
    assert len(revivals) == 1
    heart.beat()
    assert len(revivals) == 1
    clock.now += 20
    heart.beat()
    assert len(revivals) == 2


def test_rescued_work_wakes_the_daemon(make, store, caplog):
    revivals = []
    heart = make(revived=lambda: revivals.append(1))
    store.rescues = [rescued("left")]
    heart.beat()
    assert len(revivals) == 2
    assert "job left: its daemon is gone" in caplog.text


def test_a_claim_that_nobody_holds_is_given_back_at_the_second_beat(make, store, caplog):
    held = {("a", 1), ("b", 1)}
    heart = make(holding=lambda: set(held))
    store.claimed = {("a", 1), ("b", 1)}
    heart.beat()
    held.discard(("b", 1))
    heart.beat()
    assert store.released == []
    heart.beat()
    assert store.released == [("b", 1)]
    assert "an outage had made this daemon forget" in caplog.text


def test_a_claim_passed_from_hand_to_hand_is_left_alone(make, store):
    held = set()
    heart = make(holding=lambda: set(held))
    store.claimed = {("a", 1)}
    heart.beat()
    held.add(("a", 1))
    heart.beat()
    held.clear()
    heart.beat()
    assert store.released == []


def test_after_an_outage_the_others_get_time_to_beat(make, store, clock):
    heart = make(lease=10)
    clock.now += 60
    store.rescues = [rescued("left")]
    heart.beat()
    clock.now += 5
    heart.beat()
    assert store.rescues
    clock.now += 6
    heart.beat()
    assert not store.rescues


def test_running_jobs_hear_of_cancel_requests(make, store):
    told = []
    heart = make(running=lambda: [claim("a"), claim("b")], cancel=told.append)
    store.cancelled = {"b", "other"}
    heart.beat()
    assert told == [{"b"}]


def test_it_beats_by_itself_and_goes_on_after_an_outage(make, store, clock, caplog):
    caplog.set_level("INFO")
    store.away = False
    heart = make(interval=0.01)
    store.away = True
    eventually(lambda: "cannot be renewed" in caplog.text)
    clock.now += 20
    assert not heart.held()
    store.away = False
    eventually(heart.held)
    eventually(lambda: "renewed again" in caplog.text)
    assert caplog.text.count("cannot be renewed") == 1


def test_a_start_without_a_store_says_so(store, clock):
    store.away = True
    heart = Heartbeat(
        store, queues=["default"], label=None, interval=1, lease=10, poison_limit=3, clock=clock
    )
    with pytest.raises(StoreUnavailable):
        heart.start()
    assert not heart.held()
    heart.stop()


def test_stopping_leaves_the_list(make, store):
    heart = make()
    heart.stop()
    assert store.alive == set()
    assert not heart.held()


def test_the_default_label_says_where_to_look():
    host, pid = default_label().rsplit(":", 1)
    assert host
    assert pid.isdigit()


def test_a_long_job_that_had_to_wait_is_noted_as_started_once(make, store):
    waited, at_once = claim("waited", started=False), claim("at-once")
    heart = make(running=lambda: [waited, at_once])
    heart.beat()
    heart.beat()
    assert store.started == [waited]


def test_each_beat_removes_what_was_to_go_when_it_ended(make, store):
    heart = make()
    heart.beat()
    heart.beat()
    assert store.swept == 2

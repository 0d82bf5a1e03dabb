import threading
import time

import pytest

from pyramid_durable import event_queue
from pyramid_durable.event_queue import EventQueue
from pyramid_durable.events import MessageReceived

from .fakes import eventually


def message(number):
    return MessageReceived(text=str(number), queue="default")


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def told():
    return []


@pytest.fixture
def queue(told, gate):
    """A queue whose listener holds at the message 'stop' until the gate opens."""

    def tell(event):
        told.append(event.text)
        if event.text == "stop":
            gate.wait(20)

    queue = EventQueue(tell)
    yield queue
    gate.set()
    queue.stop(5)


def test_events_are_told_in_their_order(queue, told):
    for number in range(1000):
        queue.put(message(number))
    assert queue.flush(5)
    assert told == [str(number) for number in range(1000)]


def test_without_events_there_is_no_thread(queue):
    assert queue.flush(0)
    assert queue.stop(0)
    assert not [thread for thread in threading.enumerate() if thread.name == "durable-events"]


def test_nothing_is_told_after_the_stop(queue, told):
    queue.put(message(1))
    assert queue.stop(5)
    queue.put(message(2))
    assert told == ["1"]


def test_a_listener_that_hangs_does_not_hold_up_the_end(queue, told, gate, caplog):
    queue.put(message("stop"))
    eventually(lambda: told == ["stop"])
    queue.put(message(1))
    assert not queue.flush(0)
    assert not queue.stop(0)
    assert "could not be told" in caplog.text
    gate.set()
    eventually(lambda: not queue._thread.is_alive())
    assert told == ["stop"]


def test_a_listener_may_stop_the_queue(told):
    queue = EventQueue(lambda event: told.append((event.text, queue.stop(5), queue.flush(5))))
    queue.put(message(1))
    eventually(lambda: told and not queue._thread.is_alive())
    assert told[0][:2] == ("1", False)


def test_the_start_of_jobs_waits_a_little_for_listeners_and_events_are_dropped_at_last(
    queue, told, gate, caplog, monkeypatch
):
    monkeypatch.setattr(event_queue, "LARGEST_BACKLOG", 10)
    monkeypatch.setattr(event_queue, "PATIENCE", 0.05)
    queue.put(message("stop"))
    eventually(lambda: told == ["stop"])
    queue.wait_for_room()
    for number in range(25):
        queue.put(message(number))
    began = time.monotonic()
    queue.wait_for_room()
    assert time.monotonic() - began >= 0.05
    assert queue._hopeless, "the next ones do not wait"
    queue.wait_for_room()
    assert caplog.text.count("events are dropped") == 1
    gate.set()
    eventually(lambda: "5 events were dropped meanwhile" in caplog.text)
    assert queue.flush(5)
    assert told == ["stop", *map(str, range(20))]
    queue.put(message("again"))
    assert queue.flush(5)
    assert told[-1] == "again"
    assert not queue._hopeless


def test_jobs_go_on_as_soon_as_the_listeners_have_caught_up(queue, told, gate, monkeypatch):
    monkeypatch.setattr(event_queue, "LARGEST_BACKLOG", 10)
    queue.put(message("stop"))
    eventually(lambda: told == ["stop"])
    for number in range(15):
        queue.put(message(number))
    monkeypatch.setattr(event_queue, "PATIENCE", 20.0)
    waiter = threading.Thread(target=queue.wait_for_room)
    waiter.start()
    assert waiter.is_alive()
    gate.set()
    waiter.join(10)
    assert not waiter.is_alive()
    assert queue.flush(5)
    assert len(told) == 16

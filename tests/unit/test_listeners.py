"""Who hears what: listeners with arguments, subscribers, and what they may do wrong."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry, get_current_request, manager

from pyramid_durable.events import (
    EVENTS,
    DaemonEvent,
    DaemonStarted,
    DurableEvent,
    EventJob,
    JobCreated,
    JobEvent,
    JobFailed,
    JobSucceeded,
    MessageReceived,
)
from pyramid_durable.scheduler import BoundScheduler

SETTINGS = {
    "scheduler.jobstore.default.url": "sqlite:///never-opened.db",
    "scheduler.broker.url": "memory://",
    "scheduler.timezone": "UTC",
}
JOB = EventJob(id="the-id", name="name", func="a:b", queue="default", kind="async")
FAILED = JobFailed(job=JOB, error="why")
SUCCEEDED = JobSucceeded(job=JOB)
MESSAGE = MessageReceived(text="hello", queue="default")


@pytest.fixture
def config() -> Any:
    config = Configurator(settings=SETTINGS)
    config.include("pyramid_durable")
    config.commit()
    return config


@pytest.fixture
def scheduler(config: Any) -> Any:
    return config.registry.scheduler


def heard(scheduler: Any) -> set[type[DurableEvent]]:
    scheduler.listeners.refresh()
    return set(scheduler.listeners.heard)


def test_nobody_hears_anything_at_first(scheduler: Any) -> None:
    assert heard(scheduler) == set()


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (None, set(EVENTS)),
        (DurableEvent, set(EVENTS)),
        (JobFailed, {JobFailed}),
        ([JobFailed, MessageReceived], {JobFailed, MessageReceived}),
        (JobEvent, {event for event in EVENTS if issubclass(event, JobEvent)}),
        ((DaemonEvent,), {event for event in EVENTS if issubclass(event, DaemonEvent)}),
    ],
)
def test_what_a_listener_hears(scheduler: Any, events: Any, expected: set[Any]) -> None:
    calls: list[Any] = []
    scheduler.add_listener(calls.append, events)
    assert heard(scheduler) == expected
    for event in (FAILED, MESSAGE):
        scheduler.listeners.tell(event)
    assert calls == [event for event in (FAILED, MESSAGE) if type(event) in expected]
    scheduler.remove_listener(calls.append)
    assert heard(scheduler) == set()


def test_what_a_subscriber_hears(config: Any, scheduler: Any) -> None:
    calls: list[Any] = []
    config.add_subscriber(calls.append, JobEvent)
    config.commit()
    assert heard(scheduler) == {event for event in EVENTS if issubclass(event, JobEvent)}
    scheduler.listeners.tell(FAILED)
    scheduler.listeners.tell(MESSAGE)
    assert calls == [FAILED]


def test_listeners_are_called_with_their_arguments(scheduler: Any) -> None:
    calls: list[Any] = []

    def listener(event: Any, first: int, *, word: str) -> None:
        calls.append((event, first, word))

    scheduler.add_listener(listener, JobFailed, args=[1], kwargs={"word": "one"})
    scheduler.listeners.tell(FAILED)
    # Added again, it is there once, as it was added last, and in its old place.
    scheduler.add_listener(lambda event: calls.append("later"))
    scheduler.add_listener(listener, args=(2,), kwargs={"word": "two"})
    scheduler.listeners.tell(SUCCEEDED)
    assert calls == [(FAILED, 1, "one"), (SUCCEEDED, 2, "two"), "later"]


def test_a_method_is_one_listener_however_often_it_is_looked_up(scheduler: Any) -> None:
    class Desk:
        calls = 0

        def hear(self, event: Any) -> None:
            self.calls += 1

    desk = Desk()
    scheduler.add_listener(desk.hear)
    scheduler.add_listener(desk.hear)
    scheduler.listeners.tell(FAILED)
    assert desk.calls == 1
    scheduler.remove_listener(desk.hear)
    scheduler.listeners.tell(FAILED)
    assert desk.calls == 1


def test_an_unknown_listener_may_be_removed(scheduler: Any) -> None:
    scheduler.remove_listener(print)
    scheduler.remove_listener(None)


async def waits(event: Any) -> None:
    """Nobody would await it."""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"listener": "print"}, "expected a callable, found 'print'"),
        ({"listener": waits}, "is async"),
        ({"listener": print, "events": "JobFailed"}, "classes of pyramid_durable.events"),
        ({"listener": print, "events": dict}, "classes of pyramid_durable.events"),
        ({"listener": print, "events": FAILED}, "classes of pyramid_durable.events"),
        ({"listener": print, "events": [JobFailed, 7]}, "found 7"),
        ({"listener": print, "events": []}, "events is empty"),
        ({"listener": print, "args": "text"}, "args: expected a list or a tuple"),
        ({"listener": print, "args": 7}, "args: expected a list or a tuple"),
        ({"listener": print, "kwargs": [1]}, "kwargs: expected a dict"),
        ({"listener": print, "kwargs": {1: 2}}, "kwargs: expected a dict"),
        ({"listener": lambda: None}, "cannot be called as listener"),
        ({"listener": lambda event: None, "args": [1]}, "cannot be called as listener"),
        ({"listener": lambda event: None, "kwargs": {"word": 1}}, "cannot be called as listener"),
    ],
)
def test_wrong_arguments_are_errors_at_the_call(
    scheduler: Any, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        scheduler.add_listener(**arguments)
    assert heard(scheduler) == set()


def test_who_raises_is_named_and_disturbs_nobody(
    config: Any, scheduler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    def subscriber(event: Any) -> None:
        raise ValueError("from the subscriber")

    def leaves(event: Any) -> None:
        raise SystemExit(3)

    config.add_subscriber(subscriber, DurableEvent)
    config.add_subscriber(calls.append, DurableEvent)
    config.commit()
    scheduler.add_listener(leaves, args=[])
    scheduler.add_listener(calls.append)
    scheduler.listeners.tell(FAILED)
    assert calls == [FAILED, FAILED]
    with_listeners = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.__dict__["event"] for record in with_listeners] == ["JobFailed"] * 2
    assert {record.__dict__["job"] for record in with_listeners} == {"the-id"}
    assert "from the subscriber" in caplog.text
    assert "leaves raised on the JobFailed of job the-id" in caplog.text
    scheduler.listeners.tell(MESSAGE)
    assert "raised on the MessageReceived" in caplog.text


def test_listeners_come_and_go_from_inside_of_one(scheduler: Any) -> None:
    calls: list[str] = []

    def first(event: Any) -> None:
        calls.append("first")
        scheduler.remove_listener(first)
        scheduler.remove_listener(second)
        scheduler.add_listener(third)

    def second(event: Any) -> None:
        calls.append("second")

    def third(event: Any) -> None:
        calls.append("third")

    scheduler.add_listener(first)
    scheduler.add_listener(second)
    scheduler.listeners.tell(FAILED)
    assert calls == ["first"]
    scheduler.listeners.tell(FAILED)
    assert calls == ["first", "third"]


def test_the_registry_is_current_and_no_request_is(scheduler: Any) -> None:
    found: list[Any] = []

    def look(event: Any) -> None:
        found.append((get_current_registry(), get_current_request()))
        manager.push({"registry": None, "request": "left behind"})

    depth = len(manager.stack)
    scheduler.add_listener(look)
    scheduler.listeners.tell(DaemonStarted(daemon="here", queues=("default",)))
    scheduler.listeners.tell(JobCreated(job=JOB))
    assert found == [(scheduler.registry, None)] * 2
    assert len(manager.stack) == depth


def test_listeners_are_their_registrys_own(config: Any, scheduler: Any) -> None:
    other = Configurator(settings=SETTINGS)
    other.include("pyramid_durable")
    other.commit()
    scheduler.add_listener(print)
    assert heard(other.registry.scheduler) == set()


def test_request_scheduler_knows_the_verbs_too(config: Any, scheduler: Any) -> None:
    bound = BoundScheduler(scheduler, None)
    bound.add_listener(print, JobFailed)
    assert heard(scheduler) == {JobFailed}
    bound.remove_listener(print)
    assert heard(scheduler) == set()

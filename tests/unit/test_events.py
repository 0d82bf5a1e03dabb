"""Events: frozen, complete, and made from whatever record describes the job."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Any

import pytest
from pyramid.config import Configurator

from pyramid_durable import events
from pyramid_durable.events import (
    EVENTS,
    DaemonEvent,
    DurableEvent,
    EventJob,
    JobCreated,
    JobEvent,
    JobFailed,
    JobRetrying,
    MessageReceived,
    event_job,
)
from pyramid_durable.records import Claim, JobSpec

NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
JOB = EventJob(id="1", name="name", func="a:b", queue="default", kind="async")


def test_the_events_of_the_contract() -> None:
    assert [event.__name__ for event in EVENTS] == [
        "JobCreated",
        "JobStarted",
        "JobRetrying",
        "JobSucceeded",
        "JobFailed",
        "JobCancelled",
        "JobExpired",
        "JobBroken",
        "JobRemoved",
        "DaemonStarted",
        "DaemonStopping",
        "MessageReceived",
    ]
    leaves = {
        found
        for found in vars(events).values()
        if isinstance(found, type) and issubclass(found, DurableEvent)
    }
    assert set(EVENTS) == leaves - {DurableEvent, JobEvent, DaemonEvent}


@pytest.mark.parametrize("event", EVENTS)
def test_events_are_frozen_values(event: type[DurableEvent]) -> None:
    given: dict[str, Any] = {
        "job": JOB, "reason": "r", "error": "e", "daemon": "d", "queues": ("default",),
        "text": "t", "queue": "default",
    }  # fmt: skip
    fields = [field.name for field in dataclasses.fields(event)]
    values = {name: given[name] for name in fields if name in given}
    made = event(**values)
    assert made == event(**values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, fields[0], None)
    with pytest.raises(TypeError):
        event(*values.values())
    assert issubclass(event, JobEvent) == ("job" in fields)


def test_the_job_of_an_event() -> None:
    spec = JobSpec(id="1", func="a:b", payload="[[],{}]", queue="mail", schedule_id="s", group="g")
    assert event_job(spec) == EventJob(
        id="1", name="a:b", func="a:b", queue="mail", kind="async", group="g", schedule_id="s"
    )
    claim = Claim(
        id="1", owner="me", claim_no=1, func="a:b", payload="", codec="json", queue="mail",
        name="mine", kind="cron", priority=5, run_at=NOON, claimed_at=NOON, attempt=1,
        max_attempts=3, crashes=0, group=None, schedule_id="s", fire_at=NOON, userdata=None,
        errors=None, started=True, options={},
    )  # fmt: skip
    assert event_job(claim, attempt=2) == EventJob(
        id="1", name="mine", func="a:b", queue="mail", kind="cron", attempt=2, max_attempts=3,
        schedule_id="s",
    )  # fmt: skip


def test_subscribers_hear_by_class() -> None:
    heard: list[Any] = []
    config = Configurator()
    config.add_subscriber(lambda event: heard.append(("failed", event)), JobFailed)
    config.add_subscriber(lambda event: heard.append(("job", event)), JobEvent)
    config.add_subscriber(lambda event: heard.append(("all", event)), DurableEvent)
    config.commit()
    sent = [
        JobCreated(job=JOB),
        JobFailed(job=JOB, error="why"),
        MessageReceived(text="hello", queue="default"),
        JobRetrying(job=JOB, reason="its daemon was lost", delay=5.0),
    ]
    for event in sent:
        config.registry.notify(event)
    created, failed, message, retrying = sent
    assert [event for name, event in heard if name == "failed"] == [failed]
    assert [event for name, event in heard if name == "job"] == [created, failed, retrying]
    assert [event for name, event in heard if name == "all"] == [created, failed, message, retrying]

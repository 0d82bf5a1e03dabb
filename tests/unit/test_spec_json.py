"""Specs as JSON: they travel whole, and only with the fields that a command may have."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, get_type_hints

import pytest

from pyramid_durable.exceptions import InvalidCommand
from pyramid_durable.records import JobSpec, ScheduleSpec
from pyramid_durable.spec_json import NOT_FROM_OUTSIDE, spec_from_json, spec_to_json

NOON = datetime(2024, 5, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))

SMALL = JobSpec(id="1", func="a:b", payload="[[],{}]", queue="default")

FULL = JobSpec(
    id="2",
    func="a:b",
    payload='[["\\u0000"],{}]',
    queue="mail",
    codec="pickle",
    name="nämé",
    kind="date",
    priority=0,
    run_at=NOON,
    delay=1.5,
    max_attempts=None,
    group="g",
    userdata="{}",
    options={"expires": 5, "backoff": {"steps": [1.0]}, "delete_after": True},
    schedule_id="s",
    fire_at=NOON,
    waiting_key="k",
    chosen_id=True,
    replace_existing=True,
)

SCHEDULE = ScheduleSpec(
    id="s",
    job=FULL,
    kind="cron",
    trigger={"kind": "cron", "crontab": "* * * * *"},
    next_run_at=NOON,
    timezone="Europe/Berlin",
    start_date=NOON,
    end_date=NOON,
    iterations=3,
    coalesce=False,
    max_instances=None,
    chosen_id=True,
    replace_existing=True,
)


def travel(spec: Any) -> Any:
    return spec_from_json(type(spec), json.loads(json.dumps(spec_to_json(spec))))


def names(spec: Any) -> set[str]:
    """Of all fields of a spec."""
    return set(get_type_hints(type(spec)))


@pytest.mark.parametrize(
    "spec", [SMALL, FULL, SCHEDULE, replace(SCHEDULE, job=SMALL, next_run_at=None)]
)
def test_specs_travel_whole(spec: Any) -> None:
    again = travel(spec)
    assert again == spec
    assert {type(getattr(again, name)) for name in names(spec)} == {
        type(getattr(spec, name)) for name in names(spec)
    }


def test_this_test_says_every_field() -> None:
    for spec in (FULL, SCHEDULE):
        said = set(spec_to_json(spec))
        assert said == names(spec) - set(NOT_FROM_OUTSIDE)


def test_defaults_do_not_travel() -> None:
    assert spec_to_json(SMALL) == {
        "id": "1", "func": "a:b", "payload": "[[],{}]", "queue": "default",
    }  # fmt: skip


def test_whole_numbers_are_numbers() -> None:
    assert spec_from_json(JobSpec, {**spec_to_json(SMALL), "delay": 2}).delay == 2.0


def test_a_command_declares_nothing() -> None:
    declared = replace(SCHEDULE, declared=True, generation=7, times="5d")
    assert travel(declared) == SCHEDULE
    for name, value in (("declared", True), ("generation", 7), ("times", "5d")):
        with pytest.raises(InvalidCommand, match=f"{name!r} is not one that a command may have"):
            spec_from_json(ScheduleSpec, {**spec_to_json(SCHEDULE), name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": 7}, "JobSpec: id: 7 found, expected str"),
        ({"func": None}, "func: None found, expected str"),
        ({"name": 7}, "name: 7 found, expected str or null"),
        ({"priority": "5"}, "priority: '5' found, expected int"),
        ({"priority": True}, "priority: True found"),
        ({"priority": 5.0}, "priority: 5.0 found"),
        ({"delay": True}, "delay: True found, expected float"),
        ({"delay": "1"}, "delay: '1' found, expected float"),
        ({"chosen_id": 1}, "chosen_id: 1 found, expected bool"),
        ({"options": []}, r"options: \[\] found, expected Mapping"),
        ({"options": None}, "options: None found"),
        ({"run_at": "soon"}, "run_at: Invalid isoformat"),
        ({"run_at": 5}, "run_at: 5 found, expected datetime or null"),
        ({"run_at": "2024-05-01T12:00:00"}, "has no offset from UTC"),
        ({"__class__": "x"}, "'__class__' is not one that a command may have"),
        ({"": "x"}, "'' is not one"),
    ],
)
def test_a_job_that_is_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCommand, match=message):
        spec_from_json(JobSpec, {**spec_to_json(SMALL), **changes})


@pytest.mark.parametrize("missing", ["id", "func", "payload", "queue"])
def test_a_field_is_missing(missing: str) -> None:
    found = spec_to_json(SMALL)
    del found[missing]
    with pytest.raises(InvalidCommand, match=f"JobSpec: .*{missing!r}"):
        spec_from_json(JobSpec, found)


@pytest.mark.parametrize("found", [None, [], "x", 7])
def test_what_is_no_object(found: Any) -> None:
    with pytest.raises(InvalidCommand, match=r"JobSpec: .* found, expected an object"):
        spec_from_json(JobSpec, found)
    with pytest.raises(InvalidCommand, match=r"JobSpec: .* found, expected an object"):
        spec_from_json(ScheduleSpec, {**spec_to_json(SCHEDULE), "job": found})

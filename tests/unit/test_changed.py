"""Changes to what is stored: asked for on one machine, applied on another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pyramid_durable.behaviors import KEY_OPTION
from pyramid_durable.calls import Call
from pyramid_durable.change_requests import ChangeMaker
from pyramid_durable.changed import Changer
from pyramid_durable.changes import Change
from pyramid_durable.command_items import items_from_json, items_to_json
from pyramid_durable.definitions import TriggerBehavior
from pyramid_durable.exceptions import InvalidJob, InvalidQueue
from pyramid_durable.job_specs import SpecMaker
from pyramid_durable.json_values import EntityRef
from pyramid_durable.records import JobSpec, ScheduleSpec
from pyramid_durable.serializers import JSONSerializer, PickleSerializer, Serializer
from pyramid_durable.settings import read_settings

from .sample_jobs import plain

UTC = timezone.utc
NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)
BASE = {
    "sqlalchemy.url": "sqlite://",
    "scheduler.queues": "default mail",
    "scheduler.timezone": "Europe/Berlin",
    "scheduler.secret": "s",
}


class Desk:
    """Where changes are asked for, and, by JSON, where they are applied."""

    def __init__(self, serializer: Serializer | None = None, **settings: str) -> None:
        read = read_settings({**BASE, **{f"scheduler.{k}": v for k, v in settings.items()}})
        self.serializer = serializer or JSONSerializer()
        self.specs = SpecMaker(read, self.serializer, {})
        self.maker = ChangeMaker(read, self.serializer, self.specs)
        self.changer = Changer(read, self.serializer)

    def job(self, *args: Any, **options: Any) -> JobSpec:
        return self.specs.async_job(Call("add_async_job", plain, args, None, None, options))

    def cron(self, start: Any = None, crontab: str = "0 3 * * *", **options: Any) -> ScheduleSpec:
        call = Call("add_cron_job", plain, (1,), None, None, options)
        return self.specs.schedule(call, "cron", start, {"crontab": crontab}, now=NOW)

    def every(self, minutes: float, **options: Any) -> ScheduleSpec:
        call = Call("add_interval_job", plain, (1,), None, None, options)
        return self.specs.schedule(call, "interval", None, {"minutes": minutes}, now=NOW)

    def modify(self, job: JobSpec, **changes: Any) -> JobSpec:
        change = sent(self.maker.modify(job.id, changes, now=NOW))
        return self.changer.modified_job(job, change.changes, change.codec)

    def modify_schedule(self, schedule: ScheduleSpec, **changes: Any) -> ScheduleSpec:
        change = sent(self.maker.modify(schedule.id, changes, now=NOW))
        return self.changer.modified_schedule(schedule, change.changes, change.codec, NOW)

    def reschedule(self, schedule: ScheduleSpec, *, now: datetime = NOW, **given: Any) -> Any:
        change = sent(self.maker.reschedule(schedule.id, None, given, now=NOW))
        return self.changer.rescheduled_schedule(schedule, change.changes, now)

    def call(self, job: JobSpec) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        return self.serializer.load_call(job.payload)


def sent(change: Change) -> Change:
    """The change as it comes out of a command."""
    (found,) = items_from_json(json.loads(json.dumps(items_to_json([change]))))
    assert found == change
    assert isinstance(found, Change)
    return found


@pytest.fixture
def desk() -> Desk:
    return Desk()


GIVEN: dict[str, Any] = {
    "name": "a name",
    "priority": 0,
    "expires": "2031-01-01",
    "misfire_grace_time": "1h30m",
    "max_attempts": 7,
    "backoff": "5s",
    "executor": "thread",
    "behavior": TriggerBehavior.SCHEDULE_ONCE,
    "group": "g",
    "userdata": {"n": Decimal("1.5")},
    "delete_after": True,
}
"""One value for each option of a job."""


def test_options_become_what_adding_would_have_made_of_them(desk: Desk) -> None:
    given = GIVEN
    plain = desk.job(1, id="one")
    added = desk.job(1, id="one", **given)
    assert desk.modify(plain, **given) == added
    assert desk.modify(added, **given) == added
    # And one by one.
    changed = plain
    for name, value in given.items():
        changed = desk.modify(changed, **{name: value})
    assert changed == added


def test_an_option_that_is_none_is_taken_away(desk: Desk) -> None:
    given = GIVEN
    added = desk.job(1, id="one", **given)
    bare = desk.modify(added, **dict.fromkeys(given))
    assert bare == desk.job(1, id="one", **dict.fromkeys(given))
    assert (bare.priority, bare.max_attempts, bare.options) == (5, 1, {})


def test_a_behavior_that_is_taken_away_leaves_nothing_of_it(desk: Desk) -> None:
    gone = desk.job(1, id="one", behavior="DELETE_AFTER_PROCESSING")
    assert desk.modify(gone, behavior=None) == desk.job(1, id="one")
    asked = desk.job(1, id="one", behavior="DELETE_AFTER_PROCESSING", delete_after=True)
    assert desk.modify(asked, behavior=None).options == {"delete_after": True}


@pytest.mark.parametrize("serializer", [JSONSerializer(), PickleSerializer(["s"])])
def test_one_half_of_the_call_may_stay(serializer: Serializer) -> None:
    desk = Desk(serializer)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    ref = EntityRef("tests.unit.sample_jobs:Customer", (7,))
    job = desk.job(ref, at, {"x": 1 << 2000})
    assert desk.call(desk.modify(job, kwargs={"to": at})) == (
        (ref, at, {"x": 1 << 2000}),
        {"to": at},
    )
    with_kwargs = desk.modify(job, args=None, kwargs={"to": at})
    assert desk.call(with_kwargs) == ((), {"to": at})
    # What was looked at can be given back, references too.
    assert desk.call(desk.modify(with_kwargs, args=(ref, (1, 2)))) == ((ref, (1, 2)), {"to": at})
    assert desk.call(desk.modify(with_kwargs, kwargs=None)) == ((), {})


def test_a_job_keeps_the_serializer_it_was_written_with() -> None:
    old, new = Desk(PickleSerializer(["s"])), Desk()
    job = old.job(1, userdata={"n": 1})
    changed = new.modify(job, args=[(1, 2)], userdata={"n": (2,)})
    assert changed.codec == "pickle"
    assert old.call(changed) == (((1, 2),), {})
    assert old.serializer.loads(changed.userdata or "") == {"n": (2,)}


def test_arguments_that_cannot_be_read_need_both_halves(desk: Desk) -> None:
    damaged = desk.job()._replace(payload="[")
    with pytest.raises(InvalidJob, match="both args and kwargs"):
        desk.modify(damaged, args=[1])
    assert desk.call(desk.modify(damaged, args=[1], kwargs={})) == ((1,), {})


@pytest.mark.parametrize("serializer", [JSONSerializer(), PickleSerializer(["s"])])
def test_keys_follow_arguments_group_and_behavior(serializer: Serializer) -> None:
    desk = Desk(serializer)
    once: dict[str, Any] = {"behavior": "SCHEDULE_ONCE"}
    job = desk.job({2, 1}, id="one", **once)
    other = desk.job((1, {"b": 2, "a": NOW}), id="one", **once)
    for changed, added in (
        (desk.modify(job, args=[(1, {"a": NOW, "b": 2})]), other),
        (desk.modify(job, group="g"), desk.job({1, 2}, id="one", group="g", **once)),
        (desk.modify(job, priority=1), job),
        (desk.modify(job, behavior="LAST_ONLY"), desk.job({1, 2}, behavior="LAST_ONLY")),
        (desk.modify(job, behavior=None), desk.job()),
    ):
        assert changed.waiting_key == added.waiting_key
        assert changed.options.get(KEY_OPTION) == added.options.get(KEY_OPTION)


def test_the_jobs_of_a_changed_schedule_have_the_key_of_their_arguments(desk: Desk) -> None:
    once: dict[str, Any] = {"behavior": "SCHEDULE_ONCE"}
    changed = desk.modify_schedule(desk.every(10, **once), args=[2])
    assert changed.job.options[KEY_OPTION] == desk.job(2, **once).options[KEY_OPTION]


def test_an_executor_that_the_daemon_cannot_have_is_refused_at_the_call() -> None:
    with pytest.raises(InvalidJob, match="'executor'"):
        Desk(combined="true").maker.modify("any", {"executor": "process"}, now=NOW)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"priority": 10}, "'priority'"),
        ({"max_attempts": 0}, "'max_attempts'"),
        ({"expires": "soon"}, "'expires'"),
        ({"name": ""}, "'name'"),
        ({"userdata": {"x": object()}}, "'userdata'"),
        ({"args": "text"}, "args"),
        ({"args": [1, object()]}, "argument 2"),
        ({"kwargs": {"x": object()}}, "'x'"),
        ({"kwargs": {1: 2}}, "kwargs"),
        ({"end_date": "never"}, "never"),
        ({"timezone": "Mars"}, "Mars"),
        ({"iterations": 0}, "'iterations'"),
        ({"timeout": -1}, "'timeout'"),
        ({"args": ["x" * 2000]}, "max_args_size"),
    ],
)
def test_a_bad_value_is_named_at_the_call(changes: dict[str, Any], said: str) -> None:
    desk = Desk(max_args_size="1KB")
    with pytest.raises(InvalidJob, match=said):
        desk.maker.modify("any", changes, now=NOW)


def test_both_halves_together_keep_to_the_size() -> None:
    desk = Desk(max_args_size="1KB")
    job = desk.modify(desk.job(), args=["x" * 600])
    with pytest.raises(InvalidJob, match="max_args_size"):
        desk.modify(job, kwargs={"x": "x" * 600})


@pytest.mark.parametrize(
    "name", ["color", "id", "func", "replace_existing", "content_object", "run_immediately"]
)
def test_what_cannot_be_changed_is_a_type_error(desk: Desk, name: str) -> None:
    with pytest.raises(TypeError, match=f"modify_job.*{name}"):
        desk.maker.modify("any", {name: 1}, now=NOW)


def test_nothing_to_change_is_a_type_error(desk: Desk) -> None:
    with pytest.raises(TypeError, match="nothing"):
        desk.maker.modify("any", {}, now=NOW)


def test_an_option_of_schedules_is_a_type_error_for_a_job(desk: Desk) -> None:
    with pytest.raises(TypeError, match="coalesce"):
        desk.modify(desk.job(), coalesce=False)


def test_queues(desk: Desk) -> None:
    assert desk.modify(desk.job(), queue="mail").queue == "mail"
    assert desk.modify(desk.job()._replace(queue="mail"), queue=None).queue == "default"
    with pytest.raises(InvalidQueue, match="nope"):
        desk.maker.modify("any", {"queue": "nope"}, now=NOW)


# Schedules.


def test_options_of_a_schedule(desk: Desk) -> None:
    schedule = desk.every(10, id="s")
    changes = {"iterations": 3, "coalesce": False, "max_instances": 4, "args": [9], "queue": "mail"}
    changed = desk.modify_schedule(schedule, **changes)
    assert (changed.iterations, changed.coalesce, changed.max_instances) == (3, False, 4)
    assert (desk.call(changed.job), changed.job.queue) == (((9,), {}), "mail")
    assert (changed.trigger, changed.next_run_at) == (schedule.trigger, schedule.next_run_at)
    back = desk.modify_schedule(changed, iterations=None, coalesce=None, max_instances=None)
    assert (back.iterations, back.coalesce, back.max_instances) == (None, True, 1)
    overlapping = desk.modify_schedule(changed, allow_overlap=True)
    assert overlapping.max_instances is None
    assert desk.modify_schedule(overlapping, allow_overlap=False).max_instances == 1


def test_an_end_is_read_in_the_schedules_own_zone(desk: Desk) -> None:
    schedule = desk.cron(timezone="America/New_York")
    changed = desk.modify_schedule(schedule, end_date="2030-06-01T00:00")
    assert changed.end_date == datetime(2030, 6, 1, tzinfo=ZoneInfo("America/New_York"))
    assert changed.next_run_at == schedule.next_run_at
    aware = desk.modify_schedule(schedule, end_date=datetime(2030, 6, 1, tzinfo=UTC))
    assert aware.end_date == datetime(2030, 6, 1, tzinfo=UTC)
    assert desk.modify_schedule(schedule, end_date="5d").end_date == NOW + timedelta(days=5)
    assert desk.modify_schedule(changed, end_date=None) == schedule


def test_an_end_before_the_next_time_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidJob, match="never fire"):
        desk.modify_schedule(desk.cron(), end_date="1h")


def test_another_zone_moves_the_next_time(desk: Desk) -> None:
    schedule = desk.cron()
    changed = desk.modify_schedule(schedule, timezone="UTC", jitter="5s")
    assert schedule.next_run_at == datetime(2030, 5, 2, 1, 0, tzinfo=UTC)
    assert changed.next_run_at == datetime(2030, 5, 2, 3, 0, tzinfo=UTC)
    assert (changed.timezone, changed.trigger["jitter"]) == ("UTC", 5.0)
    back = desk.modify_schedule(changed, timezone=None, jitter=None)
    assert back == schedule


def test_a_schedule_that_has_ended_is_not_modified(desk: Desk) -> None:
    over = replace(desk.cron(), next_run_at=None)
    assert desk.modify_schedule(over, priority=1) is over


def test_a_schedule_gets_another_trigger_and_keeps_its_state(desk: Desk) -> None:
    schedule = replace(
        desk.cron(timezone="UTC", end_date="2031-01-01", jitter=2, userdata={"n": 1}), iterations=3
    )
    later = NOW + timedelta(days=3)
    changed = desk.reschedule(schedule, minutes=10, now=later)
    assert (changed.kind, changed.job.kind) == ("interval", "interval")
    # By the clock of where it is applied.
    assert changed.next_run_at == later + timedelta(minutes=10)
    assert (changed.iterations, changed.job.userdata) == (3, schedule.job.userdata)
    assert (changed.end_date, changed.timezone) == (schedule.end_date, "UTC")
    assert changed.trigger["jitter"] == 2.0
    again = desk.reschedule(changed, crontab="0 5 * * *", timezone="Asia/Tokyo", end_date="30d")
    assert again.next_run_at == datetime(2030, 5, 1, 20, 0, tzinfo=UTC)
    assert (again.kind, again.timezone) == ("cron", "Asia/Tokyo")
    assert again.end_date == NOW + timedelta(days=30)
    fields = desk.reschedule(changed, hour=4, day_of_week="mon-fri")
    assert fields.trigger["fields"] == {"day_of_week": "mon-fri", "hour": "4"}


def test_a_start_is_read_in_the_schedules_own_zone(desk: Desk) -> None:
    schedule = desk.cron(timezone="America/New_York")
    changed = desk.reschedule(schedule, hours=1, start_date="2030-06-01T00:30")
    start = datetime(2030, 6, 1, 0, 30, tzinfo=ZoneInfo("America/New_York"))
    assert changed.start_date == changed.next_run_at == start


def test_an_ended_schedule_is_brought_back_unless_its_iterations_are_used_up(desk: Desk) -> None:
    over = replace(desk.every(10), next_run_at=None)
    assert desk.reschedule(over, hours=1).next_run_at == NOW + timedelta(hours=1)
    with pytest.raises(InvalidJob, match="iterations"):
        desk.reschedule(replace(over, iterations=0), hours=1)


@pytest.mark.parametrize(
    ("date", "trigger"),
    [
        (None, {}),
        ("5d", {"minutes": 1}),
        ("5d", {"end_date": "6d"}),
        (None, {"minutes": 1, "crontab": "* * * * *"}),
        (None, {"end_date": "5d"}),
        (None, {"minutes": -1}),
        (None, {"minutes": 0}),
        (None, {"crontab": "61 * * * *"}),
        (None, {"minutes": 1, "timezone": "Mars"}),
        ("someday", {}),
    ],
)
def test_a_time_that_cannot_be_used_is_refused_at_the_call(
    desk: Desk, date: Any, trigger: dict[str, Any]
) -> None:
    with pytest.raises(InvalidJob):
        desk.maker.reschedule("any", date, trigger, now=NOW)


def test_an_unknown_field_is_a_type_error(desk: Desk) -> None:
    with pytest.raises(TypeError, match=r"reschedule_job.*minuets.*minutes"):
        desk.maker.reschedule("any", None, {"minuets": 1}, now=NOW)


def test_a_schedule_that_would_never_fire_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidJob, match="never fire"):
        desk.reschedule(desk.every(1, end_date="1h"), hours=2)


@pytest.mark.parametrize(
    ("date", "run_at", "delay"),
    [
        (NOW + timedelta(days=1), NOW + timedelta(days=1), 0.0),
        ("2030-06-01T00:00", datetime(2030, 5, 31, 22, 0, tzinfo=UTC), 0.0),
        (NOW.timestamp(), NOW, 0.0),
        ("5d", None, 5 * 86400.0),
        (timedelta(hours=-1), None, -3600.0),
    ],
)
def test_a_job_gets_another_date(desk: Desk, date: Any, run_at: Any, delay: float) -> None:
    job = desk.job(1)
    change = sent(desk.maker.reschedule(job.id, date, {}, now=NOW))
    changed = desk.changer.rescheduled_job(job, change.changes)
    assert (changed.run_at, changed.delay, changed.kind) == (run_at, delay, "date")
    assert changed._replace(run_at=job.run_at, delay=job.delay, kind=job.kind) == job


def test_dates_are_for_jobs_and_fields_for_schedules(desk: Desk) -> None:
    fields = desk.maker.reschedule("any", None, {"minutes": 1}, now=NOW)
    with pytest.raises(InvalidJob, match="takes a date"):
        desk.changer.rescheduled_job(desk.job(), fields.changes)
    date = desk.maker.reschedule("any", "5d", {}, now=NOW)
    with pytest.raises(InvalidJob, match="takes fields"):
        desk.changer.rescheduled_schedule(desk.every(1), date.changes, NOW)

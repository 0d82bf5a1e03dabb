"""Calls turned into records: options and their merging, times, behaviors, schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pyramid_durable import TriggerBehavior, job
from pyramid_durable.calls import Call, spec_call
from pyramid_durable.exceptions import InvalidJob
from pyramid_durable.fingerprints import changed_aspects, declaration_of, generation_of
from pyramid_durable.job_options import JOB_READERS, SCHEDULE_READERS
from pyramid_durable.job_specs import SpecMaker
from pyramid_durable.marking import JOB_OPTIONS, SCHEDULE_OPTIONS
from pyramid_durable.patterns import Batch
from pyramid_durable.records import JobSpec, ScheduleSpec
from pyramid_durable.serializers import JSONSerializer
from pyramid_durable.settings import read_settings

UTC = timezone.utc
NOW = datetime(2030, 5, 17, 8, 0, tzinfo=UTC)
HERE = "tests.unit.test_job_specs"
SERIALIZER = JSONSerializer()


def plain(*args: object, **kwargs: object) -> None: ...


@job(queue="mail", priority=2, max_attempts=5, timeout="30s", misfire_grace_time="1m")
def eager(*args: object) -> None: ...


@job(priority=1, iterations=3)
def recurring() -> None: ...


def maker(aliases: dict[str, str] | None = None, **settings: str) -> SpecMaker:
    mapping = {
        "scheduler.combined": "true",
        "scheduler.queues": "default mail",
        "scheduler.timezone": "Europe/Berlin",
        **{f"scheduler.{key}": value for key, value in settings.items()},
    }
    return SpecMaker(read_settings(mapping), SERIALIZER, aliases or {})


def call(
    func: Any = plain,
    args: Any = None,
    kwargs: Any = None,
    queue: str | None = None,
    **options: Any,
) -> Call:
    return Call("add", func, args, kwargs, queue, options)


def make(func: Any = plain, /, **options: Any) -> JobSpec:
    return maker().async_job(call(func, **options))


def schedule(kind: str = "interval", start_date: Any = None, **options: Any) -> ScheduleSpec:
    fields = options.pop("fields", {"minutes": 10} if kind == "interval" else {"hour": 3})
    declared = options.pop("declared", False)
    return maker().schedule(call(**options), kind, start_date, fields, now=NOW, declared=declared)


def test_a_call_without_options() -> None:
    spec = maker().async_job(call(plain, [1, "a"], {"b": None}))
    assert spec.func == f"{HERE}:plain"
    assert SERIALIZER.load_call(spec.payload) == ((1, "a"), {"b": None})
    assert (spec.codec, spec.queue, spec.kind) == ("json", "default", "async")
    assert (spec.run_at, spec.delay) == (None, 0)
    assert (spec.priority, spec.max_attempts, spec.options) == (5, 1, {})
    assert (spec.chosen_id, spec.replace_existing) == (False, False)
    assert len(spec.id) == 36


def test_every_option(tmp_path: Path) -> None:
    spec = make(
        id="mine",
        replace_existing=True,
        name="Charge",
        priority=0,
        expires="5m",
        misfire_grace_time=timedelta(seconds=9),
        max_attempts=3,
        backoff="10s",
        timeout=1.5,
        executor="inline",
        behavior=TriggerBehavior.LAST_ONLY,
        group="fees",
        userdata={"n": 1},
        working_dir=tmp_path,
        delete_after=True,
    )
    assert (spec.id, spec.chosen_id, spec.replace_existing) == ("mine", True, True)
    assert (spec.name, spec.priority, spec.max_attempts, spec.group) == ("Charge", 0, 3, "fees")
    assert SERIALIZER.loads(spec.userdata or "") == {"n": 1}
    backoff = spec.options["backoff"]
    assert backoff["steps"] == [10.0]
    assert spec.options == {
        "expires": 300,
        "misfire_grace_time": 9,
        "backoff": backoff,
        "timeout": 1.5,
        "executor": "inline",
        "behavior": "LAST_ONLY",
        "key": spec.options["key"],
        "working_dir": str(tmp_path),
        "delete_after": True,
    }


@pytest.mark.parametrize(
    ("expires", "stored"),
    [
        (90, 90),
        ("1h30m", 5400),
        (timedelta(days=1), 86400),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00+00:00"),
        (datetime(2030, 1, 1), "2029-12-31T23:00:00+00:00"),
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00+00:00"),
    ],
)
def test_expires_is_a_span_or_a_moment(expires: object, stored: object) -> None:
    assert make(expires=expires).options["expires"] == stored


def test_options_are_merged_from_the_general_to_the_particular() -> None:
    settings = {"max_attempts": "2", "misfire_grace_time": "1h", "backoff": "5s"}
    specs = maker(**settings)
    general = specs.async_job(call(plain))
    assert (general.max_attempts, general.options["misfire_grace_time"]) == (2, 3600)
    assert general.options["backoff"]["steps"] == [5.0]
    for _ in range(2):  # also when it has been read before
        own = specs.async_job(call(eager))
        assert (own.queue, own.priority, own.max_attempts) == ("mail", 2, 5)
        assert (own.options["timeout"], own.options["misfire_grace_time"]) == (30, 60)
        particular = specs.async_job(call(eager, queue="default", priority=9, timeout=1))
        assert (particular.queue, particular.priority, particular.max_attempts) == ("default", 9, 5)
        assert particular.options["timeout"] == 1


def test_none_takes_an_option_away() -> None:
    spec = maker(misfire_grace_time="1h").async_job(
        call(eager, timeout=None, misfire_grace_time=None, priority=None, backoff=None)
    )
    assert spec.options == {}
    assert spec.priority == 5


def test_the_options_of_the_decorator_are_read_like_those_of_a_call() -> None:
    assert JOB_OPTIONS - {"queue"} <= set(JOB_READERS)
    assert set(JOB_READERS) | SCHEDULE_OPTIONS == set(SCHEDULE_READERS)


def test_a_definition_has_options_for_its_jobs_and_for_its_schedules() -> None:
    specs = maker()
    for _ in range(2):
        assert specs.async_job(call(recurring)).priority == 1
        made = specs.schedule(call(recurring), "interval", None, {"minutes": 1}, now=NOW)
        assert (made.iterations, made.job.priority) == (3, 1)


@pytest.mark.parametrize(
    ("date", "run_at"),
    [
        (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)),
        (datetime(2030, 7, 1, 12), datetime(2030, 7, 1, 10, tzinfo=UTC)),
        (1893456000, datetime(2030, 1, 1, tzinfo=UTC)),
        ("2030-01-01T01:00:00+01:00", datetime(2030, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_date_is_a_moment(date: object, run_at: datetime) -> None:
    spec = maker().date_job(call(), date)
    assert (spec.kind, spec.run_at, spec.delay) == ("date", run_at, 0)


@pytest.mark.parametrize(("date", "delay"), [("5d", 432000), (timedelta(minutes=1), 60)])
def test_a_relative_date_is_left_to_the_clock_of_the_store(date: object, delay: float) -> None:
    spec = maker().date_job(call(), date)
    assert (spec.kind, spec.run_at, spec.delay) == ("date", None, delay)


@pytest.mark.parametrize(
    ("behavior", "waiting", "compared"),
    [
        ("DEFAULT", False, False),
        ("DELETE_AFTER_PROCESSING", False, False),
        ("SCHEDULE_ONCE", True, True),
        ("RUN_ONCE", False, True),
        ("RUN_AND_SCHEDULE_ONCE", True, True),
        ("LAST_ONLY", False, True),
    ],
)
def test_a_behavior_gives_the_keys_that_are_compared(
    behavior: str, waiting: bool, compared: bool
) -> None:
    def keys(func: Callable[..., Any], *args: object, **options: object) -> tuple[Any, Any]:
        spec = make(func, args=args, behavior=TriggerBehavior[behavior], **options)
        return spec.waiting_key, spec.options.get("key")

    mine = keys(plain, 1)
    assert (mine[0] is not None, mine[1] is not None) == (waiting, compared)
    assert keys(plain, 1) == mine
    if compared:
        assert keys(plain, 2) != mine
        assert keys(eager, 1) != mine
        assert keys(eager, 1, group="g") == keys(plain, 1, group="g") != mine


def test_a_content_object_is_the_first_argument() -> None:
    spec = maker().async_job(call(plain, [1], content_object="the guest"))
    assert SERIALIZER.load_call(spec.payload) == (("the guest", 1), {})


def test_an_alias_is_stored_under_the_new_name() -> None:
    specs = maker({"old:name": f"{HERE}:plain"})
    assert specs.async_job(call("old:name")).func == f"{HERE}:plain"
    assert specs.reference("old:name") == f"{HERE}:plain"
    assert specs.reference(plain) == f"{HERE}:plain"
    assert specs.reference("gone:name") == "gone:name"


def test_what_is_not_allowed_is_refused_at_the_call() -> None:
    assert maker(allow="tests.unit").async_job(call(plain))
    with pytest.raises(InvalidJob, match=r"scheduler\.allow \(app, demo\)"):
        maker(allow="app demo").async_job(call(plain))


def test_an_interval_begins_one_interval_from_now() -> None:
    spec = schedule()
    assert (spec.kind, spec.job.kind, spec.job.schedule_id) == ("interval", "interval", spec.id)
    assert spec.next_run_at == NOW + timedelta(minutes=10)
    assert spec.timezone == "Europe/Berlin"
    assert (spec.start_date, spec.end_date, spec.iterations) == (None, None, None)
    assert (spec.coalesce, spec.max_instances, spec.declared) == (True, 1, False)


def test_a_declared_interval_has_the_same_times_at_every_start() -> None:
    spec = schedule(declared=True, id="often")
    assert spec.next_run_at == NOW
    again = maker().schedule(
        call(id="often"), "interval", None, {"minutes": 10}, now=NOW + timedelta(hours=5, seconds=7),
        declared=True,
    )  # fmt: skip
    assert again.trigger == spec.trigger
    assert spec.start_date is None


def test_cron_is_in_the_schedulers_timezone_or_its_own() -> None:
    assert schedule("cron").next_run_at == datetime(2030, 5, 18, 1, 0, tzinfo=UTC)
    own = schedule("cron", timezone="America/New_York")
    assert own.next_run_at == datetime(2030, 5, 18, 3, 0, tzinfo=ZoneInfo("America/New_York"))
    assert own.timezone == "America/New_York"


def test_every_option_of_a_schedule() -> None:
    spec = schedule(
        start_date="2030-06-01",
        id="often",
        end_date="2030-07-01",
        iterations=3,
        jitter="5s",
        coalesce=False,
        max_instances=4,
        replace_existing=True,
        priority=1,
    )
    assert (spec.id, spec.chosen_id, spec.replace_existing) == ("often", True, True)
    assert spec.start_date == spec.next_run_at == datetime(2030, 5, 31, 22, tzinfo=UTC)
    assert spec.end_date == datetime(2030, 6, 30, 22, tzinfo=UTC)
    assert (spec.iterations, spec.trigger["jitter"]) == (3, 5)
    assert (spec.coalesce, spec.max_instances) == (False, 4)
    # The jobs it makes replace nothing: their ids are their own.
    assert (spec.job.replace_existing, spec.job.chosen_id, spec.job.priority) == (False, False, 1)
    assert schedule(allow_overlap=True).max_instances is None
    assert schedule(allow_overlap=False).max_instances == 1


def test_run_immediately_comes_before_the_first_fire_time() -> None:
    spec = schedule("cron", run_immediately=True)
    assert spec.next_run_at == NOW
    assert schedule("cron", run_immediately=False).next_run_at > NOW


@pytest.mark.parametrize(
    "over",
    [
        {"end_date": NOW - timedelta(days=1)},
        {"end_date": NOW - timedelta(days=1), "run_immediately": True},
        {"end_date": NOW + timedelta(minutes=9)},
    ],
)
def test_a_schedule_that_would_never_fire(over: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="never fire"):
        schedule(**over)


def test_a_declared_schedule_may_have_ended() -> None:
    # The application goes on declaring it, and has to start.
    for options in ({}, {"run_immediately": True}):
        assert schedule(end_date="2020-01-01", declared=True, **options).next_run_at is None
    soon = NOW + timedelta(minutes=9)
    assert schedule("cron", end_date=soon, declared=True).next_run_at is None
    assert schedule(end_date=soon, declared=True).next_run_at == NOW


def test_a_declared_schedule_without_any_fire_time_is_an_error() -> None:
    with pytest.raises(InvalidJob, match="never fire"):
        schedule("cron", fields={"month": 2, "day": 30}, declared=True)


NEXT_START = NOW + timedelta(days=1, minutes=3)


def declaration(start: datetime, kind: str = "interval", **options: Any) -> str:
    fields = options.pop("fields", {"minutes": 10} if kind == "interval" else {"hour": 3})
    date = options.pop("start_date", None)
    declare = maker().schedule
    return declaration_of(declare(call(**options), kind, date, fields, now=start, declared=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "cron"},
        {"start_date": "5d", "end_date": timedelta(days=30)},
        {"start_date": datetime(2031, 1, 1), "end_date": "2031-05-01"},
        {"run_immediately": True},
        {"kind": "cron", "run_immediately": True, "iterations": 3, "userdata": {"n": 1}},
        {"args": [{"a", "b"}], "expires": "5m", "misfire_grace_time": "1h"},
    ],
)
def test_a_declaration_says_the_same_at_every_start(options: dict[str, Any]) -> None:
    assert declaration(NOW, **options) == declaration(NEXT_START, **options)


@pytest.mark.parametrize(
    ("options", "aspect"),
    [
        ({"kind": "cron"}, "times"),
        ({"fields": {"minutes": 5}}, "times"),
        ({"start_date": "5d"}, "times"),
        ({"end_date": "40d"}, "times"),
        ({"timezone": "UTC"}, "times"),
        ({"jitter": 5}, "times"),
        ({"run_immediately": True}, "times"),
        ({"iterations": 3}, "iterations"),
        ({"userdata": {"n": 1}}, "userdata"),
        ({"args": [1]}, "work"),
        ({"func": eager, "queue": "default"}, "work"),
        ({"queue": "mail"}, "work"),
        ({"priority": 1}, "work"),
        ({"name": "named"}, "work"),
        ({"expires": "5m"}, "work"),
        ({"coalesce": False}, "work"),
        ({"max_instances": 3}, "work"),
    ],
)
def test_a_change_of_a_declaration_is_told_by_its_aspect(
    options: dict[str, Any], aspect: str
) -> None:
    plain = declaration(NOW, end_date="30d")
    assert changed_aspects(plain, declaration(NOW, **{"end_date": "30d", **options})) == {aspect}
    assert changed_aspects(None, plain) == {"times", "iterations", "userdata", "work"}


def test_a_generation_is_all_that_is_declared_in_any_order() -> None:
    one, two = schedule(declared=True, id="a"), schedule("cron", declared=True, id="b")
    assert generation_of([one, two]) == generation_of([two, one])
    assert len({generation_of(specs) for specs in ([one, two], [one], [two], [])}) == 4


@pytest.mark.parametrize(
    ("spec", "kind", "date", "fields"),
    [
        ({"func": 1}, "async", None, {}),
        ({"func": 1, "date": None}, "async", None, {}),
        ({"func": 1, "date": "5d"}, "date", "5d", {}),
        ({"func": 1, "hour": 0}, "cron", None, {"hour": 0}),
        ({"func": 1, "crontab": "x", "start_date": "s"}, "cron", "s", {"crontab": "x"}),
        ({"func": 1, "minutes": 5, "hours": None}, "interval", None, {"minutes": 5}),
    ],
)
def test_an_entry_of_add_jobs(
    spec: dict[str, Any], kind: str, date: Any, fields: dict[str, Any]
) -> None:
    before = dict(spec)
    made, *rest = spec_call({**spec, "args": [1], "queue": "mail", "priority": 3})
    assert rest == [kind, date, fields]
    assert (made.func, made.args, made.queue) == (1, [1], "mail")
    assert made.options == {"priority": 3}
    assert spec == before


def test_an_entry_of_add_jobs_has_options_of_its_kind_only() -> None:
    made = spec_call({"func": plain, "start_date": "5d"})[0]
    with pytest.raises(TypeError, match="'start_date'"):
        maker().async_job(made)


def test_jobs_of_a_batch_are_those_that_were_asked_for_one_by_one() -> None:
    specs = maker()
    calls = [
        call(plain, [1]),
        call(plain, [2], {"x": 1}),
        call(eager, [3]),
        call(plain, queue="mail"),
        call(plain, [4], priority=1, expires=60),
        call(plain, [5], priority=1, expires=60),
        call(plain, [6], priority=1, expires=60.0, group="g"),
        call(plain, [7], priority=1, expires=60.0, group="g"),
        call(plain, userdata={"n": 1}),
        call(plain, userdata={"n": 2}),
        call(plain, id="mine"),
        call(plain, id="yours"),
        call(f"{HERE}.plain", behavior=TriggerBehavior.SCHEDULE_ONCE),
    ]
    batch = Batch(len(calls))
    together = [specs.async_job(one, batch) for one in calls]
    alone = [specs.async_job(one) for one in calls]
    assert [one._replace(id="") for one in together] == [one._replace(id="") for one in alone]
    assert [one.id for one in together if one.chosen_id] == ["mine", "yours"]
    ids = [one.id for one in together if not one.chosen_id]
    assert ids == sorted(set(ids))
    assert together[4].options is together[5].options


def test_an_option_of_a_batch_is_read_though_one_that_equals_it_was() -> None:
    specs, batch = maker(), Batch(2)
    specs.async_job(call(plain, priority=1), batch)
    with pytest.raises(InvalidJob, match="option 'priority': True"):
        specs.async_job(call(plain, priority=True), batch)

"""@job, @routine, @cron and @interval, by themselves and as config.scan() finds them."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError

from pyramid_durable.decorators import JobFunction, Using, cron, interval, job, routine
from pyramid_durable.definitions import MARK, TriggerBehavior, describe
from pyramid_durable.exceptions import DuplicateJob, DurableError, InvalidJob
from pyramid_durable.job_options import JOB_READERS, SCHEDULE_READERS
from pyramid_durable.marking import JOB_OPTIONS, SCHEDULE_OPTIONS
from tests.unit import sample_jobs
from tests.unit.sample_jobs import LateFee

HERE = "tests.unit.sample_jobs"


class Scheduler:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refuses = False

    def __getattr__(self, verb: str) -> Any:
        if not verb.startswith("add_"):
            raise AttributeError(verb)

        def add(func: Any, *date: Any, **options: Any) -> str:
            if self.refuses:
                raise DuplicateJob("there is one")
            self.calls.append((verb, describe(func)[0].ref, *date, options))
            return f"id {len(self.calls)}"

        return add


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    config = testing.setUp()
    config.registry.scheduler = Scheduler()
    yield config.registry.scheduler
    testing.tearDown()


def test_a_job_stays_the_function_it_was() -> None:
    assert inspect.isfunction(sample_jobs.plain)
    assert sample_jobs.plain(3, factor=4) == 12
    assert sample_jobs.plain.__doc__ == "Multiply."
    assert (
        str(inspect.signature(sample_jobs.plain))
        == "(number: 'int', *, factor: 'int' = 2) -> 'int'"
    )
    assert pickle.loads(pickle.dumps(sample_jobs.plain)) is sample_jobs.plain  # noqa: S301
    assert inspect.iscoroutinefunction(sample_jobs.later)
    assert asyncio.run(sample_jobs.later(3)) == 3
    assert sample_jobs.mail("request", "job", "a@b") == ("request", "job", "a@b")
    assert sample_jobs.Kinds.of_class() == "Kinds"
    assert sample_jobs.Kinds.static() == "static"


def test_enqueue(scheduler: Scheduler) -> None:
    assert sample_jobs.plain.enqueue(7, factor=3) == "id 1"
    assert sample_jobs.plain.using(date="5d", priority=1, queue="mail").enqueue(7) == "id 2"
    urgent = sample_jobs.plain.using(priority=1, timeout=5)
    urgent.using(priority=0).enqueue()
    urgent.enqueue()
    sample_jobs.Kinds.of_class.enqueue()
    sample_jobs.Kinds.static.enqueue()
    ref = f"{HERE}:plain"
    assert scheduler.calls == [
        ("add_async_job", ref, {"args": (7,), "kwargs": {"factor": 3}}),
        ("add_date_job", ref, "5d",
         {"args": (7,), "kwargs": {}, "priority": 1, "queue": "mail"}),
        ("add_async_job", ref, {"args": (), "kwargs": {}, "priority": 0, "timeout": 5}),
        ("add_async_job", ref, {"args": (), "kwargs": {}, "priority": 1, "timeout": 5}),
        ("add_async_job", f"{HERE}:Kinds.of_class", {"args": (), "kwargs": {}}),
        ("add_async_job", f"{HERE}:Kinds.static", {"args": (), "kwargs": {}}),
    ]  # fmt: skip


def test_enqueue_on_a_method_that_has_lost_its_object(scheduler: Scheduler) -> None:
    with pytest.raises(InvalidJob, match="method without its object"):
        sample_jobs.Customer(name="Ann").greet.enqueue("hello")


def test_without_an_application() -> None:
    testing.tearDown()
    with pytest.raises(DurableError, match="no application is active here"):
        sample_jobs.plain.enqueue(7)
    with pytest.raises(DurableError, match="no application is active here"):
        LateFee.schedule(args=[1, 2])
    with pytest.raises(DurableError, match="no application is active here"):
        sample_jobs.watch("a")


def test_a_parameter_called_request_asks_for_it() -> None:
    assert describe(sample_jobs.asks)[0].pass_request is True
    assert describe(sample_jobs.asks_not)[0].pass_request is False
    assert describe(sample_jobs.plain)[0].pass_request is False


def test_options_are_those_of_the_scheduler() -> None:
    """Less what cannot be a default: the id of each job, and what it is about."""
    of_one_job = {"id", "replace_existing", "content_object"}
    assert JOB_OPTIONS - {"queue"} == set(JOB_READERS) - of_one_job
    assert set(SCHEDULE_READERS) - set(JOB_READERS) == SCHEDULE_OPTIONS


@pytest.mark.parametrize(
    "decorate", [lambda: job(prio=1), lambda: job(id="x"), lambda: job(date=1)]
)
def test_an_unknown_option(decorate: Any) -> None:
    with pytest.raises(TypeError, match=r"@job got an unknown option '.*'; there are: .*priority"):
        decorate()(len)


def test_an_unknown_option_of_a_routine() -> None:
    with pytest.raises(TypeError, match="@routine got an unknown option 'trigger'"):
        routine(trigger="x")(LateFee)


class NotHashable:
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("func", [7, LateFee, NotHashable(), "name", len])
def test_what_job_does_not_decorate(func: Any) -> None:
    with pytest.raises(InvalidJob, match=r"@job: .*(expected a function|takes no attributes)"):
        job(func)
    with pytest.raises(InvalidJob, match="@job"):
        job(priority=1)(func)


@pytest.mark.parametrize("decorate", [job, routine])
def test_aliases_are_a_list_of_names(decorate: Any) -> None:
    class Routine:
        trigger_name = "x"

        def run(self) -> None: ...

    def func() -> None: ...

    for aliases in ("old:name", [7]):
        with pytest.raises(InvalidJob, match=r"aliases .*: expected a list of names"):
            decorate(aliases=aliases)(func if decorate is job else Routine)


def test_a_routine_stays_the_class_it_was() -> None:
    fee = LateFee(1, 2)
    assert (type(fee), fee.check_validity(), fee.run()) == (LateFee, True, (1, 2))
    assert pickle.loads(pickle.dumps(LateFee)) is LateFee  # noqa: S301


def test_routines_say_their_options() -> None:
    definition, _ = describe(LateFee)
    assert definition.options == {
        "name": "late-fee",
        "group": "fees",
        "behavior": TriggerBehavior.SCHEDULE_ONCE,
        "queue": "mail",
    }
    reminder, _ = describe(sample_jobs.Reminder)
    assert reminder.options == {
        "name": "reminder",
        "group": "reminders",
        "behavior": TriggerBehavior.RUN_ONCE,
    }
    assert reminder.is_async
    assert describe(sample_jobs.Remind)[0].options == {"name": "remind"}


def run(self: Any) -> None: ...


@pytest.mark.parametrize(
    ("attributes", "arguments", "message"),
    [
        ({"run": run}, {}, "Routine has trigger_name None; expected a name"),
        ({"run": run}, {"trigger_name": " "}, "trigger_name ' '"),
        ({"run": run}, {"trigger_name": 7}, "trigger_name 7"),
        ({}, {"trigger_name": "x"}, r"Routine has no run\(\)"),
        ({"run": 7}, {"trigger_name": "x"}, r"Routine has no run\(\)"),
        ({"run": run, "check_validity": True}, {"trigger_name": "x"}, "check_validity is True"),
        ({"run": run, "schedule": run}, {"trigger_name": "x"}, "has a schedule of its own"),
    ],
)
def test_a_class_that_is_no_routine(attributes: Any, arguments: Any, message: str) -> None:
    cls = type("Routine", (), dict(attributes))
    with pytest.raises(InvalidJob, match=message):
        routine(**arguments)(cls)
    assert not hasattr(cls, MARK)
    with pytest.raises(InvalidJob, match=message):
        routine(cls, **arguments)


def test_a_function_is_no_routine() -> None:
    with pytest.raises(InvalidJob, match="expected a class"):
        routine(trigger_name="x")(run)


def test_schedule(scheduler: Scheduler) -> None:
    assert LateFee.schedule("30d", [1, 2]) == "id 1"
    LateFee.schedule(args=[1, 2])
    LateFee.schedule(datetime_scheduled="5d", kwargs={"a": 1}, silent=True, priority=1)
    ref = f"{HERE}:LateFee"
    assert scheduler.calls == [
        ("add_date_job", ref, "30d", {"args": [1, 2], "kwargs": None}),
        ("add_async_job", ref, {"args": [1, 2], "kwargs": None}),
        ("add_date_job", ref, "5d", {"args": None, "kwargs": {"a": 1}, "priority": 1}),
    ]
    scheduler.refuses = True
    assert LateFee.schedule(args=[1, 2], silent=True) is None
    with pytest.raises(DuplicateJob):
        LateFee.schedule(args=[1, 2])


def test_a_class_below_a_routine_needs_a_name_of_its_own(scheduler: Scheduler) -> None:
    with pytest.raises(InvalidJob, match="VeryLateFee is a class; decorate it with @routine"):
        sample_jobs.VeryLateFee.schedule(args=[1, 2])
    assert routine(trigger_name="very-late")(type("Own", (LateFee,), {})).schedule


def test_a_lazy_schedule_begins_when_it_is_called(scheduler: Scheduler) -> None:
    assert sample_jobs.watch("a") == "id 1"
    sample_jobs.watch_mail()
    assert scheduler.calls == [
        ("add_interval_job", f"{HERE}:watch",
         {"id": f"{HERE}:watch", "name": f"{HERE}:watch", "replace_existing": True, "minutes": 5,
          "args": ("a",), "kwargs": {}}),
        ("add_interval_job", f"{HERE}:watch_mail",
         {"id": "mail watch", "name": "mail watch", "replace_existing": True, "minutes": 5,
          "iterations": 2, "args": (), "kwargs": {}}),
    ]  # fmt: skip


@pytest.mark.parametrize("declare", [cron("* * * * *"), interval(minutes=1), interval(lazy=True)])
def test_what_cannot_be_declared(declare: Any) -> None:
    with pytest.raises(InvalidJob, match="7 found, expected a function"):
        declare(7)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("option", [{"id": "other"}, {"replace_existing": True}])
def test_a_declaration_has_no_other_id_than_its_name(lazy: bool, option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"sample_jobs:plain.*'{next(iter(option))}'"):
        interval(minutes=1, lazy=lazy, **option)(sample_jobs.plain)


@pytest.mark.parametrize("func", [LateFee, staticmethod(run), classmethod(run)])
def test_only_functions_are_lazy(func: Any) -> None:
    with pytest.raises(InvalidJob, match="lazy=True is for functions"):
        interval(minutes=1, lazy=True)(func)


Told = list[tuple[Any, ...]]


@pytest.fixture
def config() -> Configurator:
    """A configurator with the package's directives, which note what they are told."""
    config = Configurator()
    config.registry.told = []

    def declare(verb: str) -> Any:
        def directive(config: Configurator, name: str, func: Any, **fields: Any) -> None:
            config.action((verb, name), config.registry.told.append, ((verb, name, func, fields),))

        return directive

    config.add_directive("add_cron_job", declare("cron"))
    config.add_directive("add_interval_job", declare("interval"))
    config.add_directive("add_job_alias", declare("alias"))
    return config


def test_scan(config: Configurator) -> None:
    config.scan(HERE)
    config.commit()
    assert sorted(config.registry.told, key=lambda told: told[:2]) == [
        ("alias", "old.fees:Called", sample_jobs.Called, {}),
        ("alias", "old.fees:LateFee", LateFee, {}),
        ("alias", "old.kinds:static", sample_jobs.Kinds.static, {}),
        ("alias", "old.mail:send", sample_jobs.mail, {}),
        ("cron", "early", sample_jobs.poll, {"hour": 4, "queue": "mail"}),
        ("cron", "reminders", sample_jobs.Remind, {"crontab": "0 4 * * *"}),
        ("cron", f"{HERE}:nightly", sample_jobs.nightly,
         {"crontab": "0 3 * * *", "timezone": "Europe/Berlin"}),
        ("interval", "of a class", sample_jobs.Kinds.hourly, {"hours": 1}),
        ("interval", "poll", sample_jobs.poll, {"minutes": 10, "iterations": 3}),
    ]  # fmt: skip


def test_a_module_that_only_imports_them_declares_nothing(config: Configurator) -> None:
    config.scan("tests.unit.importing_jobs")
    config.commit()
    assert config.registry.told == []


def test_a_conflict_names_the_line_of_the_decorator(config: Configurator) -> None:
    def scanned(other: Configurator) -> None:
        other.scan(HERE)

    def declared(other: Configurator) -> None:
        other.add_cron_job("early", sample_jobs.poll)

    config.include(scanned)
    config.include(declared)
    with pytest.raises(ConfigurationConflictError) as caught:
        config.commit()
    assert "sample_jobs.py" in str(caught.value)


def test_the_types_say_what_a_job_gains() -> None:
    func: JobFunction[..., int] = sample_jobs.plain
    using: Using = func.using(priority=1)
    assert isinstance(using, Using)

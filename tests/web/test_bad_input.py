"""Bad input, at the call: the error names the thing and what was expected, and nothing is stored."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.exceptions import ConfigurationExecutionError

from pyramid_durable.calls import Call
from pyramid_durable.exceptions import DurableError, InvalidJob, InvalidQueue
from tests.web import jobs
from tests.web.jobs import charge
from tests.web.site import Site

MakeSite = Callable[..., Site]
Ask = Callable[[Any], Any]


class Desk:
    """Has a method that cannot be found again by name, since nobody keeps the object."""

    def serve(self) -> None: ...


def inner() -> Callable[[], None]:
    def job() -> None: ...

    return job


FUNCTIONS = {
    "lambda": (lambda: None, "lambda"),
    "inner": (inner(), "inner.<locals>.job"),
    "partial": (functools.partial(charge), "partial"),
    "method": (Desk().serve, "serve"),
    "unbound": (Desk.serve, "serve"),
    "module": (jobs, "tests.web.jobs"),
    "number": (7, "7"),
    "none": (None, "None"),
    "no module": ("no.such.module.func", "no.such.module"),
    "no function": ("tests.web.jobs:nothing", "nothing"),
    "no function, dotted": ("tests.web.jobs.nothing", "nothing"),
    "not callable": ("tests.web.jobs:NOT_CALLABLE", "not callable"),
    "a word": ("charge", "charge"),
    "empty": ("", "''"),
}

CALLS: dict[str, tuple[Ask, type[Exception], str]] = {
    "queue": (lambda s: s.add_async_job(charge, queue="post"), InvalidQueue, "'post'.*default"),
    "queue type": (lambda s: s.add_async_job(charge, queue=["mail"]), InvalidQueue, "mail"),
    "no queue": (lambda s: s.add_async_job(charge, queue=""), InvalidQueue, "''.*default"),
    "option": (lambda s: s.add_async_job(charge, prio=1), TypeError, "'prio'.*'priority'"),
    "option of recurring jobs": (
        lambda s: s.add_async_job(charge, iterations=1),
        TypeError,
        "'iterations'.*there are: backoff",
    ),
    "option of date jobs": (
        lambda s: s.add_date_job(charge, "5d", crontab="* * * * *"),
        TypeError,
        "'crontab'",
    ),
    "option of interval jobs": (
        lambda s: s.add_interval_job(charge, minutes=1, hour=5),
        TypeError,
        "'hour'",
    ),
    "date": (lambda s: s.add_date_job(charge, "soon"), InvalidJob, "'soon'.*ISO 8601"),
    "date none": (lambda s: s.add_date_job(charge, None), InvalidJob, "None.*ISO 8601"),
    "date 30 February": (lambda s: s.add_date_job(charge, "2030-02-30"), InvalidJob, "2030-02-30"),
    "date nan": (lambda s: s.add_date_job(charge, math.nan), InvalidJob, "nan"),
    "date far": (lambda s: s.add_date_job(charge, "99999999d"), InvalidJob, "99999999d"),
    "start date": (
        lambda s: s.add_interval_job(charge, "soon", minutes=1),
        InvalidJob,
        "'soon'.*ISO 8601",
    ),
    "end date": (
        lambda s: s.add_interval_job(charge, minutes=1, end_date="never"),
        InvalidJob,
        "'never'",
    ),
    "end date over": (
        lambda s: s.add_cron_job(charge, hour=3, end_date="2001-01-01"),
        InvalidJob,
        "never fire",
    ),
    "no interval": (lambda s: s.add_interval_job(charge), InvalidJob, "interval.*weeks"),
    "interval": (lambda s: s.add_interval_job(charge, minutes="x"), InvalidJob, "minutes='x'"),
    "no fields": (lambda s: s.add_cron_job(charge), InvalidJob, "neither.*crontab"),
    "field": (lambda s: s.add_cron_job(charge, hour="25"), InvalidJob, "hour.*25.*0-23"),
    "crontab": (lambda s: s.add_cron_job(charge, crontab="x 3 * * *"), InvalidJob, "minute.*'x'"),
    "timezone": (
        lambda s: s.add_cron_job(charge, hour=3, timezone="Europe/Berlino"),
        InvalidJob,
        "Europe/Berlino.*Europe/Berlin",
    ),
    "args": (lambda s: s.add_async_job(charge, "abc"), InvalidJob, "args: str found"),
    "args type": (lambda s: s.add_async_job(charge, 7), InvalidJob, "args: int found"),
    "kwargs": (lambda s: s.add_async_job(charge, kwargs=[1]), InvalidJob, "kwargs"),
    "kwargs key": (lambda s: s.add_async_job(charge, kwargs={1: 2}), InvalidJob, "kwargs"),
    "argument": (lambda s: s.add_async_job(charge, [1, object()]), InvalidJob, "argument 2"),
    "keyword argument": (
        lambda s: s.add_async_job(charge, kwargs={"user": object()}),
        InvalidJob,
        "'user'",
    ),
    "too much": (lambda s: s.add_async_job(charge, ["x" * 2000]), InvalidJob, "1,024"),
    "id": (lambda s: s.add_async_job(charge, id=""), InvalidJob, "option 'id'"),
    "id type": (lambda s: s.add_async_job(charge, id=7), InvalidJob, "option 'id': 7"),
    "id long": (lambda s: s.add_async_job(charge, id="x" * 121), InvalidJob, "120"),
    "id nul": (lambda s: s.add_async_job(charge, id="a\0b"), InvalidJob, "option 'id'"),
    "name": (lambda s: s.add_async_job(charge, name=7), InvalidJob, "option 'name': 7"),
    "priority": (lambda s: s.add_async_job(charge, priority=10), InvalidJob, "10.*0 .*9"),
    "priority type": (lambda s: s.add_async_job(charge, priority=True), InvalidJob, "True"),
    "priority text": (lambda s: s.add_async_job(charge, priority="1"), InvalidJob, "'1'"),
    "expires": (lambda s: s.add_async_job(charge, expires="later"), InvalidJob, "'later'"),
    "grace": (lambda s: s.add_async_job(charge, misfire_grace_time=-1), InvalidJob, "-1"),
    "max_attempts": (lambda s: s.add_async_job(charge, max_attempts=0), InvalidJob, "0.*from 1"),
    "backoff": (lambda s: s.add_async_job(charge, backoff="slowly"), InvalidJob, "'slowly'"),
    "timeout": (lambda s: s.add_async_job(charge, timeout=0), InvalidJob, "0.*longer than 0"),
    "executor": (lambda s: s.add_async_job(charge, executor="gpu"), InvalidJob, "'gpu'.*inline"),
    "behavior": (lambda s: s.add_async_job(charge, behavior="x"), InvalidJob, "SCHEDULE_ONCE"),
    "group": (lambda s: s.add_async_job(charge, group=7), InvalidJob, "option 'group'"),
    "userdata": (lambda s: s.add_async_job(charge, userdata=[1]), InvalidJob, "a dict"),
    "userdata value": (
        lambda s: s.add_async_job(charge, userdata={"a": object()}),
        InvalidJob,
        "option 'userdata'.*'a'",
    ),
    "working_dir": (lambda s: s.add_async_job(charge, working_dir=7), InvalidJob, "a folder"),
    "delete_after": (lambda s: s.add_async_job(charge, delete_after="yes"), InvalidJob, "True or"),
    "iterations": (
        lambda s: s.add_interval_job(charge, minutes=1, iterations=0),
        InvalidJob,
        "iterations.*from 1",
    ),
    "max_instances": (
        lambda s: s.add_interval_job(charge, minutes=1, max_instances="2"),
        InvalidJob,
        "max_instances",
    ),
    "jitter": (
        lambda s: s.add_interval_job(charge, minutes=1, jitter="some"),
        InvalidJob,
        "jitter.*'some'",
    ),
    "specs": (lambda s: s.add_jobs([{"func": charge}, 7]), InvalidJob, r"specs\[1\].*int"),
    "specs func": (lambda s: s.add_jobs([{"args": [1]}]), InvalidJob, r"specs\[0\].*'func'"),
    "specs option": (
        lambda s: s.add_jobs([{"func": charge}, {"func": charge, "when": 1}]),
        TypeError,
        r"specs\[1\].*'when'",
    ),
    "specs argument": (
        lambda s: s.add_jobs([{"func": charge}, {"func": charge, "args": [object()]}]),
        InvalidJob,
        r"specs\[1\].*argument 1",
    ),
    "specs trigger": (
        lambda s: s.add_jobs([{"func": charge}, {"func": charge, "hour": 99}]),
        InvalidJob,
        r"specs\[1\].*hour",
    ),
    "specs both": (
        lambda s: s.add_jobs([{"func": charge, "date": "5d", "minutes": 1}]),
        InvalidJob,
        r"specs\[0\].*not several",
    ),
    "specs queue": (
        lambda s: s.add_jobs([{"func": charge}, {"func": charge, "queue": "post"}]),
        InvalidQueue,
        r"specs\[1\].*'post'",
    ),
    "state": (lambda s: s.get_jobs(state="waiting"), InvalidJob, "'waiting'.*scheduled"),
    "no schedule": (lambda s: s.next_run_times("nightly"), InvalidJob, "'nightly'.*'cron'"),
    "trigger field": (lambda s: s.next_run_times("cron", dya=1), TypeError, "dya"),
    "trigger of an id": (
        lambda s: s.next_run_times("nightly", minutes=5),
        TypeError,
        "'nightly', minutes",
    ),
    "pause no queue": (lambda s: s.pause_queue(None), InvalidQueue, "queue None"),
    "resume no queue": (lambda s: s.resume_queue(None), InvalidQueue, "queue None"),
    "message queue": (lambda s: s.send_message("hello", "post"), InvalidQueue, "'post'"),
}


@pytest.fixture
def small(site: MakeSite) -> Site:
    return site(settings={"scheduler.max_args_size": "1KB"})


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_be_used(small: Site, name: str) -> None:
    ask, error, message = CALLS[name]

    def view(request: Any) -> None:
        with pytest.raises(error, match=f"(?s){message}"):
            ask(request.scheduler)
        # The transaction is none the worse for it.
        request.scheduler.add_async_job(charge, id="good")

    small.get(view)
    assert small.jobs() == ["tests.web.jobs:charge"]
    assert small.schedules() == []
    assert small.announced == [({"default"}, 1)]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "verb", ["add_async_job", "add_date_job", "add_interval_job", "add_cron_job", "add_jobs"]
)
def test_a_function_that_cannot_be_found_by_name(small: Site, name: str, verb: str) -> None:
    func, message = FUNCTIONS[name]
    calls: dict[str, Ask] = {
        "add_async_job": lambda s: s.add_async_job(func),
        "add_date_job": lambda s: s.add_date_job(func, "5d"),
        "add_interval_job": lambda s: s.add_interval_job(func, minutes=5),
        "add_cron_job": lambda s: s.add_cron_job(func, hour=5),
        "add_jobs": lambda s: s.add_jobs([{"func": charge}, {"func": func}]),
    }
    with pytest.raises(InvalidJob) as caught:
        calls[verb](small.scheduler)
    assert message in str(caught.value)
    assert (small.jobs(), small.schedules(), small.announced) == ([], [], [])


def test_an_unknown_id_is_no_error(small: Site) -> None:
    assert small.scheduler.cancel_job("no such job") is False
    assert small.scheduler.get_job("no such job") is None
    assert small.scheduler.get_jobs(queue="no such queue") == []
    assert small.scheduler.get_jobs(func="no.such:function") == []


def test_run_due_inside_a_transaction_is_an_error(small: Site) -> None:
    def view(request: Any) -> None:
        with pytest.raises(DurableError, match="inside a transaction"):
            request.scheduler.run_due()

    small.get(view)


def test_errors_of_bad_input_are_value_errors(small: Site) -> None:
    with pytest.raises(ValueError, match="priority"):
        small.scheduler.add_async_job(charge, priority=99)
    with pytest.raises(ValueError, match="post"):
        small.scheduler.add_async_job(charge, queue="post")


LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "args": ({"args": [1, "x" * 1100]}, "argument 2 takes 1,102"),
    "kwargs": ({"kwargs": {"number": "x" * 1100}}, "argument 'number' takes 1,102"),
    "both": (
        {"args": ["x" * 500], "kwargs": {"much": "y" * 600}},
        "argument 'much' takes 602",
    ),
    "characters of several bytes": ({"args": ["\N{SNOWMAN}" * 350]}, "argument 1 takes"),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize(
    "verb", ["add_async_job", "add_date_job", "add_interval_job", "add_cron_job", "add_jobs"]
)
def test_arguments_have_a_limit_of_size_on_every_way(small: Site, verb: str, name: str) -> None:
    given, largest = LARGE[name]
    calls: dict[str, Ask] = {
        "add_async_job": lambda s: s.add_async_job(charge, **given),
        "add_date_job": lambda s: s.add_date_job(charge, "5d", **given),
        "add_interval_job": lambda s: s.add_interval_job(charge, minutes=5, **given),
        "add_cron_job": lambda s: s.add_cron_job(charge, hour=5, **given),
        "add_jobs": lambda s: s.add_jobs([{"func": charge}, {"func": charge, **given}]),
    }
    limit = r"bytes, more than scheduler\.max_args_size \(1,024\), of which "
    with pytest.raises(InvalidJob, match=limit + re.escape(largest)):
        calls[verb](small.scheduler)
    assert (small.jobs(), small.schedules(), small.announced) == ([], [], [])


def test_arguments_of_just_the_limit_are_taken(small: Site) -> None:
    call = Call("add_async_job", charge, [""], None, None, {})
    room = 1024 - len(small.scheduler.specs.async_job(call).payload)
    small.scheduler.add_async_job(charge, args=["x" * room])
    with pytest.raises(InvalidJob, match=r"take 1,025 bytes"):
        small.scheduler.add_async_job(charge, args=["x" * (room + 1)])


def test_a_declared_schedule_with_large_arguments_is_an_error_at_start(site: MakeSite) -> None:
    with pytest.raises(ConfigurationExecutionError, match="max_args_size"):
        site(
            settings={"scheduler.max_args_size": "1KB"},
            configure=lambda config: config.add_cron_job("c", charge, hour=3, args=["x" * 1100]),
        )

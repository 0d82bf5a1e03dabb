"""What can be a job, how it is named, and how a daemon finds it again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from pyramid_durable import definitions
from pyramid_durable.definitions import (
    Definition,
    TriggerBehavior,
    describe,
    is_allowed,
    load,
)
from pyramid_durable.exceptions import InvalidJob, UnknownFunction
from tests.unit import sample_jobs, shapes
from tests.unit.shapes import LongRental, Rental, Sender, SpecialSender, send

HERE = "tests.unit.shapes"


@pytest.fixture
def session() -> Any:
    engine = create_engine("sqlite://")
    shapes.Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.mark.parametrize(
    ("func", "ref", "is_async"),
    [
        (send, f"{HERE}:send", False),
        (f"{HERE}.send", f"{HERE}:send", False),
        (f"{HERE}:send", f"{HERE}:send", False),
        (shapes.send_later, f"{HERE}:send_later", True),
        (Sender.static, f"{HERE}:Sender.static", False),
        (f"{HERE}:Sender.static", f"{HERE}:Sender.static", False),
        (f"{HERE}.Sender.static", f"{HERE}:Sender.static", False),
        (Sender.of_class, f"{HERE}:Sender.of_class", False),
        (SpecialSender.of_class, f"{HERE}:SpecialSender.of_class", False),
        (f"{HERE}:SpecialSender.of_class", f"{HERE}:SpecialSender.of_class", False),
        (Rental.count, f"{HERE}:Rental.count", False),
        (LongRental.count, f"{HERE}:LongRental.count", False),
        (Rental.report, f"{HERE}:Rental.report", False),
        (shapes.decorated_well, f"{HERE}:decorated_well", False),
        (f"{HERE}:sender", f"{HERE}:sender", False),
        (f"{HERE}:sender.send", f"{HERE}:sender.send", False),
        (f"{HERE}.shortened", f"{HERE}:shortened", False),
        (f"{HERE}:anonymous", f"{HERE}:anonymous", False),
        ("tests.unit.sample_jobs:renamed_import", f"{HERE}:send", False),
        (time.sleep, "time:sleep", False),
        (print, "builtins:print", False),
    ],
)
def test_what_can_be_a_job(func: Any, ref: str, is_async: bool) -> None:
    definition, bound = describe(func)
    assert (definition.ref, definition.is_async, bound) == (ref, is_async, ())
    loaded = load(definition.ref)
    assert loaded.ref == ref
    assert loaded.func == definition.func
    assert (loaded.is_routine, loaded.pass_request, loaded.pass_job) == (False, False, False)


def make_inner() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


REFUSED = [
    (lambda: None, "is a lambda; define it with def"),
    (make_inner(), "make_inner.<locals>.inner is defined inside of a function"),
    (shapes.shortened, "functools.partial.*has no name; pass the function itself"),
    (shapes.sender, "has no name to find it by"),
    (shapes.sender.send, "Sender.send is bound to a Sender, which a daemon cannot find again"),
    (shapes.Desk.serve, "Desk.serve is a method without its object"),
    (f"{HERE}:Desk.serve", "Desk.serve is a method without its object"),
    (f"{HERE}.Rental.remind", "Rental.remind is a method without its object"),
    (Rental.remind, "Rental.remind is a method without its object"),
    (shapes.Desk, "Desk is a class; decorate it with @routine"),
    (f"{HERE}:Desk", "Desk is a class"),
    (int, "int is a class"),
    (shapes, f"'{HERE}' is a module"),
    (HERE, f"'{HERE}' is a module"),
    (7, "7 is not callable"),
    (None, "None is not callable"),
    ([], r"\[\] is not callable"),
    (f"{HERE}:NUMBER", "7 is not callable"),
    (f"{HERE}:nothing", "has no attribute 'nothing'; expected the name of a callable such as"),
    ("no.such.module.func", "there is no module 'no'; expected"),
    ("send", "there is no module 'send'; expected"),
    ("", "expected the name of a callable"),
    (shapes.was_replaced, "is the name of .*, not of .*; was it replaced"),
    (shapes.decorated_badly, "bare.<locals>.call is defined inside of a function"),
    (shapes.counting, "counting is a generator"),
    (f"{HERE}:counting", "counting is a generator"),
    (shapes.counting_later, "counting_later is a generator"),
    ([].append, "has no name to find it by"),
    (dict.fromkeys, "has no name to find it by"),
    ("abc".upper, "has no name to find it by"),
    (str.upper, "has no name to find it by|method without its object"),
]


@pytest.mark.parametrize(("func", "message"), REFUSED)
def test_what_cannot_be_a_job(func: Any, message: str) -> None:
    for _ in range(2):  # not even the second time
        with pytest.raises(InvalidJob, match=f"(?s){message}"):
            describe(func)


def test_functions_of_the_program_that_was_started_are_refused() -> None:
    program = (
        "from pyramid_durable.definitions import describe\n"
        "from pyramid_durable.exceptions import InvalidJob\n"
        "def func(): ...\n"
        "for given in (func, '__main__:func', '__main__.func'):\n"
        "    try: describe(given)\n"
        "    except InvalidJob as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    message = "__main__:func is in the program that was started, which the daemon does not import"
    assert [message in line for line in done.stdout.splitlines()] == [True] * 3, done.stderr


def test_methods_of_mapped_objects(session: Session) -> None:
    rental, long_rental = Rental(ski="Rusty"), LongRental(ski="Bolt")
    session.add_all([rental, long_rental])
    for new in (rental.remind, Rental(ski="x").remind):
        with pytest.raises(InvalidJob, match=r"Rental that is not in the database.*flush"):
            describe(new)
    session.flush()
    definition, bound = describe(rental.remind)
    assert (definition.ref, bound) == (f"{HERE}:Rental.remind", (rental,))
    definition, bound = describe(long_rental.remind)
    assert (definition.ref, bound) == (f"{HERE}:LongRental.remind", (long_rental,))
    assert load(definition.ref).func(*bound, days=3) == ("Bolt", 3)
    session.commit()
    session.expunge(rental)
    assert describe(rental.remind)[1] == (rental,)
    session.delete(long_rental)
    session.flush()
    with pytest.raises(InvalidJob, match="not in the database"):
        describe(long_rental.remind)


def test_a_definition_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe(send)[0] is describe(send)[0]
    assert describe(f"{HERE}:send")[0] is describe(send)[0]
    monkeypatch.setattr(definitions, "KEPT", 5)
    for number in range(20):
        name = f"made_{number}"
        exec(f"def {name}(): ...", {"__name__": HERE}, made := {})
        monkeypatch.setattr(shapes, name, made[name], raising=False)
        assert describe(made[name])[0].ref == f"{HERE}:{name}"
        assert len(definitions._described) <= 5


def test_decorated_functions() -> None:
    definition, _ = describe(sample_jobs.mail)
    assert definition.options == {"queue": "mail", "max_attempts": 5}
    assert (definition.pass_request, definition.pass_job, definition.is_async) == (
        True,
        True,
        False,
    )
    assert load("tests.unit.sample_jobs:mail").options is definition.options
    assert describe(sample_jobs.Kinds.of_class)[0].options == {"priority": 1}
    assert load("tests.unit.sample_jobs:Kinds.of_class").func() == "Kinds"
    assert load("tests.unit.sample_jobs:Kinds.static").options == {"priority": 2}
    assert load("tests.unit.sample_jobs:Kinds.static").func() == "static"
    assert asyncio.run(load("tests.unit.sample_jobs:later").func(3)) == 3
    assert load("tests.unit.sample_jobs:later").is_async


@pytest.mark.parametrize("find", [describe, lambda func: (load(f"{func.__module__}:wrapped"), ())])
def test_a_decorator_around_a_job_is_called_too(find: Any) -> None:
    """functools.wraps copies what @job has left on the function."""
    definition, _ = find(sample_jobs.wrapped)
    assert definition.options == {"priority": 3}
    assert definition.func(1) == ("wrapped", 1)


def test_a_method_takes_its_object_before_the_request(session: Session) -> None:
    customer = sample_jobs.Customer(name="Ann")
    sample_jobs.Base.metadata.create_all(session.get_bind())
    session.add(customer)
    session.flush()
    definition, bound = describe(customer.greet)
    assert definition.pass_request is definition.pass_job is True
    # As the runner calls it: request, job, and then the job's arguments.
    said = load(definition.ref).func("request", "job", *bound, "hello", mark="!")
    assert said == ("Ann", "request", "job", "hello", "!")


def test_routines() -> None:
    definition, bound = describe(sample_jobs.LateFee)
    assert (definition.is_routine, definition.func, bound) == (True, sample_jobs.LateFee, ())
    assert load("tests.unit.sample_jobs:LateFee").is_routine
    with pytest.raises(InvalidJob, match="VeryLateFee is a class"):
        describe(sample_jobs.VeryLateFee)
    with pytest.raises(UnknownFunction, match="no @routine"):
        load("tests.unit.sample_jobs:VeryLateFee")


def test_lazy_schedules_run_their_body() -> None:
    assert describe(sample_jobs.watch)[0].func("a") == "watched a"
    assert load("tests.unit.sample_jobs:watch").func("a") == "watched a"
    assert describe(sample_jobs.watch_mail)[0].options == {"queue": "mail"}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("no.such.module:func", "there is no module 'no'"),
        (f"{HERE}:gone", "has no attribute 'gone'"),
        (f"{HERE}:NUMBER", "is 7: not a function"),
        (f"{HERE}:Desk", "Desk.*: not a function, and no @routine"),
        (HERE, "not a function"),
        ("", "''"),
    ],
)
def test_names_that_cannot_be_loaded(ref: str, message: str) -> None:
    with pytest.raises(UnknownFunction, match=message):
        load(ref)


def test_aliases() -> None:
    aliases = {
        "old.mail:send": f"{HERE}:send",
        "older.mail.send": "old.mail:send",
        f"{HERE}:replaced": f"{HERE}:send_later",
        "gone:func": "also.gone:func",
        "a:b": "c:d",
        "c:d": "a:b",
    }
    assert load("old.mail:send", aliases=aliases).func is send
    assert load("older.mail:send", aliases=aliases).func is send
    assert load(f"{HERE}:replaced", aliases=aliases).func is shapes.send_later
    assert load(f"{HERE}:replaced").func is shapes.replaced
    assert load(f"{HERE}:send", aliases=aliases).func is send
    for name in ("gone:func", "a:b"):
        with pytest.raises(UnknownFunction):
            load(name, aliases=aliases)


def test_allow() -> None:
    assert load(f"{HERE}:send", allow=("other", "tests.unit")).func is send
    assert load(f"{HERE}:send", allow=(f"{HERE}.send",)).func is send
    assert load("old:send", aliases={"old:send": f"{HERE}:send"}, allow=("tests",)).func is send
    for allow in ((), ("other",), ("tests.un",), ("old",)):
        with pytest.raises(UnknownFunction, match=r"not below one of scheduler.allow"):
            load("old:send", aliases={"old:send": f"{HERE}:send"}, allow=allow)
    assert is_allowed("a.b:c.d", ["a.b.c"])
    assert not is_allowed("a.bc:d", ["a.b"])


@pytest.mark.parametrize(
    "ref",
    [
        "tests.unit.sample_jobs:os.system",
        "tests.unit.sample_jobs:subprocess.run",
        "tests.unit.sample_jobs:shell",
        f"{HERE}:shortened",
        "tests.unit.sample_jobs:mail.__globals__.get",
    ],
)
def test_a_name_below_a_prefix_does_not_reach_what_is_made_elsewhere(ref: str) -> None:
    assert callable(load(ref).func)
    with pytest.raises(UnknownFunction, match=r"is not below one of scheduler.allow"):
        load(ref, allow=("tests",))


def test_what_was_loaded_is_remembered_until_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = load(f"{HERE}:send")
    assert load(f"{HERE}:send") is first
    monkeypatch.setattr(shapes, "send", shapes.send_later)
    assert load(f"{HERE}:send").func is shapes.send_later
    monkeypatch.undo()
    assert load(f"{HERE}:send").func is send
    before = load(f"{HERE}:Sender.static")
    monkeypatch.setattr(Sender, "static", staticmethod(send))
    assert load(f"{HERE}:Sender.static").func is send is not before.func


def test_spellings_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "KEPT", 10)
    for times in range(30):
        load("tests.unit.sample_jobs:os." + "path.os." * times + "getpid")
    assert len(definitions._loaded) <= 10


def test_known_functions_cost_little() -> None:
    describe(send)
    load(f"{HERE}:send")
    began = time.perf_counter()
    for _ in range(1000):
        describe(send)
        load(f"{HERE}:send", aliases={}, allow=None)
    # 0.5 µs where nothing else runs; an import by name would take several times the limit.
    assert time.perf_counter() - began < 0.02


def test_behaviors_have_the_names_of_the_contract() -> None:
    assert list(TriggerBehavior.__members__) == [
        "DEFAULT",
        "SCHEDULE_ONCE",
        "RUN_ONCE",
        "RUN_AND_SCHEDULE_ONCE",
        "LAST_ONLY",
        "DELETE_AFTER_PROCESSING",
    ]


def test_definitions_are_frozen() -> None:
    definition = Definition(ref="a:b", func=send)
    with pytest.raises(AttributeError):
        definition.ref = "c:d"  # type: ignore[misc]

"""The jobs that the tests of the daemon run; what they are called with is in ``calls``."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import transaction
from pyramid.threadlocal import get_current_registry, get_current_request

from pyramid_durable import IGNORE, OK, RETRY, Cancel, Retry, current_job, job, routine
from tests.web.site import Rental

calls: list[Any] = []
gates: dict[str, threading.Event] = {}
hooks: dict[str, Any] = {}


@job(pass_request=True)
def hooked(request: Any, name: str) -> Any:
    """Do what the test has put under this name."""
    return hooks[name](request)


def nothing() -> None:
    """Do nothing."""


def add(*numbers: int) -> int:
    calls.append(numbers)
    return sum(numbers)


def two(first: int, second: int) -> int:
    return first + second


def mistaken() -> int:
    return two(1)  # type: ignore[call-arg]


def unstorable() -> object:
    return object()


def fail(text: str = "no") -> None:
    raise ValueError(text)


def die() -> None:
    """Take the whole daemon along, as a crash in C code does."""
    os._exit(9)


def leave() -> None:
    raise SystemExit(3)


@job(pass_request=True, pass_job=True)
def look(request: Any, this: Any, word: str) -> str:
    calls.append(
        {
            "request": request is get_current_request(),
            "registry": request.registry is get_current_registry(),
            "tm": request.tm,
            "active": request.environ.get("tm.active"),
            "thread": transaction.manager.get() is request.tm.get(),
            "current": this is current_job(),
            "attempt": this.attempt,
            "scheduler": request.scheduler is not None,
        }
    )
    return word


@job(pass_request=True)
def finished(request: Any) -> None:
    request.add_finished_callback(lambda request: calls.append("finished"))
    raise ValueError("after it asked for a callback")


@job(pass_request=True)
def asking_at_its_end(request: Any) -> None:
    """What comes after the job's transaction has one of its own."""
    request.add_finished_callback(lambda request: request.scheduler.add_async_job(add, args=[1]))


def rent(ski: str, then: str = "") -> str:
    """Write a row in the job's own transaction."""
    session = get_current_request().dbsession
    session.add(Rental(ski=ski))
    if then == "fail":
        session.flush()
        raise ValueError("after it has written")
    if then == "retry":
        return RETRY  # type: ignore[return-value]
    if then == "ignore":
        return IGNORE  # type: ignore[return-value]
    if then == "ok":
        return OK  # type: ignore[return-value]
    if then == "commit":
        session.flush()
        get_current_request().tm.commit()
    if then == "rent again":
        session.flush()
        session.add(Rental(ski=ski))
    return ski


def count() -> int:
    """Only read."""
    return get_current_request().dbsession.query(Rental).count()


def wait(name: str) -> str:
    calls.append(name)
    assert gates[name].wait(20)
    return name


def follow_up() -> str:
    """Ask for another job from inside of one."""
    return get_current_request().registry.scheduler.add_date_job(nothing, "1h")


def follow_up_and_fail() -> None:
    follow_up()
    raise ValueError("after it asked for another job")


def again(**changes: Any) -> None:
    raise Retry(**changes)


def give_up() -> None:
    raise Cancel("not needed")


def remember(key: str, fails: bool = False) -> int:
    job = current_job()
    job.userdata[key] = job.userdata.get(key, 0) + 1
    if fails:
        raise ValueError("after it remembered")
    return job.userdata[key]


def progress(total: int) -> None:
    for done in range(total + 1):
        current_job().set_progress(done, total, "counting")


def progress_while_writing() -> None:
    session = get_current_request().dbsession
    session.add(Rental(ski="one"))
    session.flush()
    current_job().set_progress(1, 2, "written")


def reschedule(word: str) -> str:
    return current_job().reschedule("2h", priority=1)


async def later(word: str) -> str:
    await asyncio.sleep(0)
    calls.append(current_job().id)
    return f"{word} {get_current_request() is not None}"


@routine(trigger_name="late-fee")
class LateFee:
    def __init__(self, ski: str, valid: bool = True) -> None:
        if ski == "unknown":
            raise LookupError("no such ski")
        self.ski, self.valid = ski, valid

    def check_validity(self) -> bool:
        return self.valid

    def run(self) -> str:
        calls.append(self.ski)
        return f"fee for {self.ski}"


def delegate(func: Any, args: Any, kwargs: Any) -> bool:
    calls.append((func.__name__, args, kwargs))
    return func is add


def is_rental(rental: Any) -> str:
    return f"{type(rental).__name__} {rental.ski}"


@job(pass_request=True)
def save_userdata(request: Any, writing: bool) -> Any:
    """Save userdata in the midst of the job, and tell what others see of it then."""
    if writing:
        request.dbsession.add(Rental(ski="Storm Petrel"))
        request.dbsession.flush()
    running = current_job()
    running.userdata["steps"] = running.userdata.get("steps", 0) + 1
    running.save_userdata()
    return request.scheduler.get_job(running.id).userdata


def count_runs() -> int:
    """Count in the userdata, write a row, and fail at the seventh run."""
    job = current_job()
    job.userdata["runs"] += 1
    session = get_current_request().dbsession
    session.add(Rental(ski=f"ski {job.userdata['runs']}"))
    session.flush()
    if job.userdata["runs"] == 7:
        raise ValueError("after it has written and counted")
    return job.userdata["runs"]


def count_saved_runs() -> int:
    current_job().save_userdata()
    try:
        return count_runs()
    finally:
        current_job().save_userdata()


def save_and_take_back() -> Any:
    job = current_job()
    before = dict(job.userdata)
    job.userdata["n"] += 1
    job.save_userdata()
    job.userdata.update(before)
    return before


def tidy() -> None:
    """Housekeeping of the application's own, in a transaction of its own."""
    request = get_current_request()
    calls.append(("tidy", request.registry is get_current_registry(), request.tm is not None))
    request.dbsession.add(Rental(ski="tidied"))
    request.scheduler.add_async_job(nothing, id="from tidy")


@job(pass_request=True)
def tidy_with_request(request: Any) -> None:
    assert request is get_current_request()
    tidy()


async def tidy_later() -> None:
    await asyncio.sleep(0)
    tidy()


def tidy_and_fail() -> None:
    tidy()
    get_current_request().dbsession.flush()
    raise ValueError("after it has tidied")


def tidy_and_exit() -> None:
    tidy()
    raise SystemExit(3)


def tidy_and_commit() -> None:
    tidy()
    get_current_request().tm.commit()


@job(pass_request=True)
def follow_up_many(request: Any) -> None:
    request.dbsession.connection()
    for number in range(10):
        request.scheduler.add_async_job(add, args=[number])

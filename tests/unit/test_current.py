"""What is current: the running job in its context, the scheduler of the application."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from pyramid import testing

from pyramid_durable.current import (
    CurrentJob,
    NotInJob,
    current_job,
    current_scheduler,
    in_job,
    use_job,
)
from pyramid_durable.exceptions import DurableError
from pyramid_durable.records import Progress


class Daemon:
    """What a job reaches; it notes what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def set_progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def save_userdata(self, userdata: Mapping[str, Any]) -> None:
        self.told.append(dict(userdata))

    def reschedule(self, date: Any, **changes: Any) -> str:
        self.told.append((date, changes))
        return "new id"


def make_job(id: str = "job", attempt: int = 1, daemon: Daemon | None = None) -> CurrentJob:
    run_at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    return CurrentJob(id, attempt, run_at, {}, daemon or Daemon())


def test_outside_of_a_job() -> None:
    assert not in_job()
    with pytest.raises(NotInJob, match="no job is running here") as caught:
        current_job()
    assert isinstance(caught.value, DurableError)


def test_inside_of_a_job() -> None:
    outer, inner = make_job("outer"), make_job("inner")
    with use_job(outer) as used:
        assert used is current_job() is outer
        with use_job(inner):
            assert current_job() is inner
        assert current_job() is outer
        with pytest.raises(KeyError), use_job(inner):
            raise KeyError
        assert current_job() is outer
    assert not in_job()


def test_each_thread_has_its_own() -> None:
    seen: dict[str, str] = {}
    together = threading.Barrier(3)

    def run(id: str) -> None:
        with use_job(make_job(id)):
            together.wait(5)
            seen[id] = current_job().id
            together.wait(5)

    threads = [threading.Thread(target=run, args=(id,)) for id in ("a", "b")]
    for thread in threads:
        thread.start()
    together.wait(5)
    assert not in_job()
    together.wait(5)
    for thread in threads:
        thread.join(5)
    assert seen == {"a": "a", "b": "b"}


def test_async_code_sees_the_job_it_was_started_by() -> None:
    async def run(id: str) -> str:
        with use_job(make_job(id)):
            await asyncio.sleep(0)
            nested = asyncio.create_task(ask())
            return f"{current_job().id} {await nested}"

    async def ask() -> str:
        return current_job().id

    async def all_of_them() -> list[str]:
        return list(await asyncio.gather(*map(run, "abc")))

    assert asyncio.run(all_of_them()) == ["a a", "b b", "c c"]


def test_a_copied_context_takes_the_job_along() -> None:
    with use_job(make_job("a")):
        context = contextvars.copy_context()
    assert context.run(current_job).id == "a"
    assert not in_job()


def test_what_a_job_says_reaches_the_daemon() -> None:
    daemon = Daemon()
    job = make_job(attempt=3, daemon=daemon)
    job.set_progress(1, 10)
    job.set_progress(2.5, message="half")
    job.userdata["seen"] = [1]
    job.save_userdata()
    assert job.reschedule("5d", args=[1]) == "new id"
    assert daemon.told == [
        Progress(done=1, total=10),
        Progress(done=2.5, total=None, message="half"),
        {"seen": [1]},
        ("5d", {"args": [1]}),
    ]
    assert (job.id, job.attempt, repr(job)) == ("job", 3, "<CurrentJob job attempt 3>")


def test_a_job_is_asked_to_stop() -> None:
    job = make_job()
    assert job.cancel_requested is False
    job.request_cancel()
    assert job.cancel_requested is True
    with pytest.raises(AttributeError):
        job.cancel_requested = False  # type: ignore[misc]


@pytest.fixture
def registry() -> Iterator[Any]:
    yield testing.setUp().registry
    testing.tearDown()


def test_the_scheduler_of_the_application(registry: Any) -> None:
    with pytest.raises(DurableError, match="no application is active here"):
        current_scheduler()
    registry.scheduler = object()
    assert current_scheduler() is registry.scheduler

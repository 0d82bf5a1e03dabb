"""current_job().reschedule: a job like the running one, whatever kind of callable it is."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pyramid_durable import TriggerBehavior, current_job, job, routine
from pyramid_durable.exceptions import DuplicateJob
from tests.web.site import Rental

seen: list[Any] = []
AS_OF = timedelta(hours=2)


def again(*seen_now: Any, **changes: Any) -> None:
    """Note a call, and ask for the same once more."""
    seen.append(seen_now)
    if len(seen) == 1:
        current_job().reschedule("1h", **changes)


def function(word: str, *, times: int = 1) -> None:
    again(word, times)


@job(pass_job=True, pass_request=True, queue="mail", aliases=["old.place:decorated"])
def decorated(request: Any, this: Any, word: str) -> None:
    again(this.id != "", word)


async def coroutine(word: str) -> None:
    again(word)


class Kinds:
    @staticmethod
    def static(word: str) -> None:
        again(word)

    @classmethod
    def of_class(cls, word: str) -> None:
        again(cls.__name__, word)


@routine(trigger_name="again")
class Again:
    def __init__(self, word: str) -> None:
        self.word = word

    def run(self) -> None:
        again(self.word)


def with_content(rental: Rental, word: str) -> None:
    again(rental.ski, word)


def change_arguments(word: str) -> None:
    again(word, args=["changed"], priority=1)


def change_arguments_after_content(rental: Rental, word: str) -> None:
    again(rental.ski, word, args=["changed"])


def remind(self: Rental, word: str) -> None:
    again(self.ski, word)


@job(pass_request=True, pass_job=True)
def remind_decorated(self: Rental, request: Any, this: Any, word: str, loud: bool = False) -> None:
    again(self.ski, this.attempt, request is not None, word, loud)


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods of a mapped class, for as long as a test."""
    seen.clear()
    for method in (remind, remind_decorated):
        monkeypatch.setattr(Rental, method.__name__, method, raising=False)


def run_twice(one: Any) -> list[Any]:
    """Run the job that is there, and the one that it asked for; what they saw."""
    (first,) = one.scheduler.run_due()
    assert (first.state, first.error) == ("succeeded", None)
    (second,) = one.scheduler.run_due(datetime.now(timezone.utc) + AS_OF)
    assert (second.state, second.error) == ("succeeded", None)
    assert (second.queue, second.name, second.func) == (first.queue, first.name, first.func)
    return seen


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (function, ("w", 1)),
        (decorated, (True, "w")),
        ("old.place:decorated", (True, "w")),
        (coroutine, ("w",)),
        (Kinds.static, ("w",)),
        (Kinds.of_class, ("Kinds", "w")),
        (Again, ("w",)),
    ],
)
def test_a_job_asks_for_itself(bench, func, expected):
    aliases = {"configure": lambda config: config.add_job_alias("old.place:decorated", decorated)}
    one = bench(**aliases)
    one.scheduler.add_async_job(func, args=["w"], name="mine", max_attempts=4)
    assert run_twice(one) == [expected] * 2


def test_with_everything_that_was_given(bench):
    one = bench()
    options = {"priority": 2, "group": "g", "userdata": {"n": 1}, "expires": "3h"}
    one.scheduler.add_async_job(function, args=["w"], kwargs={"times": 3}, queue="mail", **options)
    assert run_twice(one) == [("w", 3)] * 2
    first, second = sorted(one.scheduler.get_jobs(), key=lambda job: job.created_at)
    for name in ("priority", "group", "userdata", "queue", "kwargs", "args"):
        assert getattr(first, name) == getattr(second, name)
    assert second.expires_at is not None


def test_arguments_can_be_changed(bench):
    one = bench()
    one.scheduler.add_async_job(change_arguments, args=["w"])
    assert run_twice(one) == [("w",), ("changed",)]


def rental_of(one: Any, ask: Any) -> None:
    def view(request):
        rental = Rental(ski="blue")
        request.dbsession.add(rental)
        request.dbsession.flush()
        ask(request.scheduler, rental)

    one.site.get(view)


def test_a_method_of_a_mapped_object(bench):
    one = bench()
    rental_of(one, lambda scheduler, it: scheduler.add_async_job(it.remind, args=["w"]))
    assert run_twice(one) == [("blue", "w")] * 2


def test_a_decorated_method_of_a_mapped_object(bench):
    one = bench()
    rental_of(
        one,
        lambda scheduler, it: scheduler.add_async_job(
            it.remind_decorated, args=["w"], kwargs={"loud": True}
        ),
    )
    assert run_twice(one) == [("blue", 1, True, "w", True)] * 2


@pytest.mark.parametrize("func", ["remind", with_content])
def test_a_content_object_and_the_name_of_its_method(bench, func):
    one = bench()
    rental_of(
        one,
        lambda scheduler, it: scheduler.add_async_job(func, args=["w"], content_object=it),
    )
    assert run_twice(one) == [("blue", "w")] * 2


def test_a_content_object_stays_when_the_arguments_change(bench):
    one = bench()
    rental_of(
        one,
        lambda scheduler, it: scheduler.add_async_job(
            change_arguments_after_content, args=["w"], content_object=it
        ),
    )
    assert run_twice(one) == [("blue", "w"), ("blue", "changed")]


def every_day() -> None:
    seen.append("today")
    assert len(seen) < 9, "it runs without an end"
    current_job().reschedule("1d")


def test_as_of_a_given_time_it_counts_from_there(bench):
    one = bench()
    one.scheduler.add_async_job(every_day)
    now = datetime.now(timezone.utc) + timedelta(days=365)
    assert len(one.scheduler.run_due(now)) == 1
    (waiting,) = one.scheduler.get_jobs(state="scheduled")
    assert waiting.run_at == now + timedelta(days=1)


# Under a behavior.


def ask_again(word: str, **changes: Any) -> Any:
    """Ask for a copy; the result is its id, or why there is none."""
    seen.append(word)
    try:
        return current_job().reschedule("1h", **changes)
    except DuplicateJob as error:
        return str(error)


def ask_with_other_arguments(word: str) -> Any:
    return ask_again(word, args=["other"])


def ask_without_behavior(word: str) -> Any:
    return ask_again(word, behavior=None)


@job(behavior=TriggerBehavior.SCHEDULE_ONCE, timeout="1h")
def by_default_once() -> str:
    return current_job().reschedule("1h")


@pytest.mark.parametrize("behavior", ["SCHEDULE_ONCE", "RUN_AND_SCHEDULE_ONCE"])
@pytest.mark.parametrize("where", ["same", "other"])
def test_a_key_binds_until_the_running_job_has_ended(bench, where, behavior):
    one = bench(where=where)
    id = one.scheduler.add_async_job(ask_again, args=["w"], behavior=behavior)
    (done,) = one.scheduler.run_due()
    assert (done.id, done.state) == (id, "succeeded")
    assert f"this job, {id}, has not ended, and its behavior {behavior}" in done.result
    assert [job.id for job in one.scheduler.get_jobs()] == [id]
    if behavior == "SCHEDULE_ONCE":
        assert one.scheduler.add_async_job(ask_again, args=["w"], behavior=behavior)


@pytest.mark.parametrize("func", [ask_with_other_arguments, ask_without_behavior])
def test_the_key_of_a_copy_follows_its_own_arguments_and_behavior(bench, func):
    one = bench()
    one.scheduler.add_async_job(func, args=["w"], behavior="SCHEDULE_ONCE")
    (done,) = one.scheduler.run_due()
    copy = one.scheduler.get_job(done.result)
    expected = ("other",) if func is ask_with_other_arguments else ("w",)
    assert (copy.state, copy.args) == ("scheduled", expected)
    if func is ask_with_other_arguments:
        with pytest.raises(DuplicateJob, match=copy.id):
            one.scheduler.add_async_job(func, args=["other"], behavior="SCHEDULE_ONCE")


def test_a_default_of_its_definition_that_was_taken_away_stays_away(bench):
    one = bench()
    one.scheduler.add_async_job(by_default_once, behavior=None, timeout=None)
    (done,) = one.scheduler.run_due()
    assert done.state == "succeeded", done.error
    with one.store.read() as connection:
        options = one.store.jobs.get(connection, done.result).options
    assert not {"behavior", "timeout", "key"} & set(options)


def test_the_copy_of_a_run_once_job_never_runs_when_that_has_succeeded(bench):
    one = bench()
    one.scheduler.add_async_job(ask_again, args=["w"], behavior="RUN_ONCE")
    (done,) = one.scheduler.run_due()
    one.scheduler.run_due(datetime.now(timezone.utc) + AS_OF)
    assert (seen, one.scheduler.get_job(done.result).state) == (["w"], "cancelled")


def test_the_copy_of_a_last_only_job_waits_beside_it(bench):
    one = bench()
    one.scheduler.add_async_job(ask_again, args=["w"], behavior="LAST_ONLY")
    (done,) = one.scheduler.run_due()
    assert one.scheduler.get_job(done.result).state == "scheduled"
    one.scheduler.add_date_job(ask_again, "2d", args=["w"], behavior="LAST_ONLY")
    assert one.scheduler.get_job(done.result).state == "cancelled"

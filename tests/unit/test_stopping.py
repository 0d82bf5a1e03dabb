"""Interruptions reach the code they are meant for, and nothing after it."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pyramid_durable.exceptions import JobTimeout
from pyramid_durable.retry import Cancel
from pyramid_durable.stopping import Guard, Stopper

SHORT = 0.02


@pytest.fixture
def stopper() -> Stopper:
    return Stopper(grace=SHORT)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can, which is when they meet."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def busy(seconds: float = 20.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def test_code_that_ends_in_time_is_left_alone(stopper: Stopper) -> None:
    guard = stopper.guard(timeout=60)
    assert guard.call(busy, 0.001) == "done"
    assert not stopper._watched
    with pytest.raises(KeyError):
        stopper.guard().call({}.__getitem__, "no")


def test_a_timeout_is_raised_where_the_code_is(stopper: Stopper) -> None:
    with pytest.raises(JobTimeout, match=r"its timeout of 0.02 s") as caught:
        stopper.guard(timeout=SHORT).call(busy)
    assert any(entry.name == "busy" for entry in caught.traceback)
    assert type(caught.value).__name__ == "JobTimeout"
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (type(copy), str(copy)) == (JobTimeout, str(caught.value))


def test_the_earliest_of_several_is_interrupted_first(stopper: Stopper) -> None:
    ended: list[float] = []

    def run(timeout: float) -> None:
        with pytest.raises(JobTimeout):
            stopper.guard(timeout=timeout).call(busy)
        ended.append(timeout)

    threads = [threading.Thread(target=run, args=[timeout]) for timeout in (0.9, 0.5, 0.1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ended == [0.1, 0.5, 0.9]


def test_being_asked_to_stop_gives_time_and_then_ends_it(stopper: Stopper) -> None:
    guard = stopper.guard()
    began = time.monotonic()
    threading.Timer(0.05, guard.ask_to_stop).start()
    with pytest.raises(Cancel, match="asked to stop") as caught:
        guard.call(busy)
    assert caught.value.reason == "asked to stop"
    assert time.monotonic() - began >= 0.05 + SHORT


def test_one_asked_to_stop_before_its_code_begins_is_ended_too(stopper: Stopper) -> None:
    guard = stopper.guard(timeout=60)
    guard.ask_to_stop()
    guard.ask_to_stop()
    with pytest.raises(Cancel):
        guard.call(busy)


def test_code_that_catches_it_has_the_last_word(stopper: Stopper) -> None:
    def stubborn() -> str:
        try:
            busy()
        except JobTimeout:
            return "saved what there was"
        return "not interrupted"

    def other() -> None:
        try:
            busy()
        except JobTimeout as error:
            raise LookupError("in my own words") from error

    assert stopper.guard(timeout=SHORT).call(stubborn) == "saved what there was"
    with pytest.raises(LookupError):
        stopper.guard(timeout=SHORT).call(other)


def test_what_came_too_late_to_be_delivered_is_raised_at_the_end(stopper: Stopper) -> None:
    with pytest.raises(JobTimeout):
        # In C code nothing is delivered; when it returns it is not always Python's turn.
        stopper.guard(timeout=SHORT).call(time.sleep, SHORT * 5)


def test_nothing_is_raised_any_more_when_the_code_is_over(stopper: Stopper) -> None:
    guard = stopper.guard(timeout=60)
    guard.call(busy, 0)
    guard._timeout_at = 0.0
    guard.fire()
    guard.ask_to_stop()
    busy(SHORT * 3)


def test_the_thread_leaves_when_there_is_nothing_to_watch(
    stopper: Stopper, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LINGER", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"pyramid_durable.stopping.{name}", 0.01)
    assert stopper._thread is None
    stopper.guard().call(busy, 0)
    assert stopper._thread is None
    for _ in range(2):
        stopper.guard(timeout=60).call(busy, 0)
        thread = stopper._thread
        assert thread is not None
        thread.join(10)
        assert stopper._thread is None


RACES = 4000


def test_no_interruption_ever_leaks_past_its_code(quick_switches: None) -> None:
    """Code of random length against deadlines just as long, in several threads at a time."""
    seed = int(os.environ.get("DURABLE_SEED", random.randrange(2**32)))
    stopper = Stopper(grace=0.0)
    leaked: list[BaseException] = []
    outcomes: dict[str, int] = {"done": 0, "stopped": 0}

    def race(rng: random.Random) -> None:
        try:
            for _ in range(RACES // 4):
                guard = stopper.guard(timeout=rng.uniform(1e-6, 2e-4))
                if rng.random() < 0.3:
                    guard.ask_to_stop()
                outcomes[one_race(guard, rng.uniform(0, 2e-4))] += 1
                # What leaks shows at the next steps of this thread.
                for _ in range(20):
                    pass
        except BaseException as error:
            leaked.append(error)

    threads = [
        threading.Thread(target=race, args=[random.Random(f"{seed} {number}")])
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    again = f"DURABLE_SEED={seed}"
    assert leaked == [], again
    assert sum(outcomes.values()) == RACES, again
    assert min(outcomes.values()) > RACES / 100, f"no race in {outcomes}; {again}"


def one_race(guard: Guard, seconds: float) -> str:
    try:
        guard.call(busy, seconds)
    except (JobTimeout, Cancel):
        return "stopped"
    assert guard._raised is None, "it was interrupted, and nobody heard of it"
    return "done"


def test_a_coroutine_is_interrupted_while_it_waits(stopper: Stopper) -> None:
    seen: list[str] = []

    async def sleeper() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "saved"
        return "not interrupted"

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    guard = stopper.guard(timeout=SHORT)
    with pytest.raises(JobTimeout, match="timeout"):
        guard.call(lambda: guard.run(sleeper()))
    assert seen == ["cancelled"]
    guard = stopper.guard(timeout=SHORT)
    assert guard.call(lambda: guard.run(stubborn())) == "saved"
    guard = stopper.guard(timeout=60)
    with pytest.raises(asyncio.CancelledError):
        guard.call(lambda: guard.run(cancels_itself()))


def test_no_interruption_of_a_coroutine_leaks(quick_switches: None) -> None:
    stopper = Stopper()
    stopped = 0

    async def some(rounds: int) -> str:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return "done"

    for number in range(150):
        guard = stopper.guard(timeout=2e-4 + number * 1e-5)
        rounds = 10**6 if number % 10 == 0 else 50
        try:
            assert guard.call(lambda guard=guard, rounds=rounds: guard.run(some(rounds))) == "done"
        except JobTimeout:
            stopped += 1
    assert stopped

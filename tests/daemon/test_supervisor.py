"""How a supervisor decides: a clock that the test turns, and children that do as they are told."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field

import pytest

from pyramid_durable.exceptions import DurableError
from pyramid_durable.supervisor import FIRST_PAUSE, LONGEST_PAUSE, MARGIN, STEADY, Supervisor
from tests.processes.deployment import wait_for

PATIENCE = 30.0


@dataclass
class FakeChild:
    number: int
    pid: int
    code: int | None = None
    started: bool = False
    told: list[str] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code

    def has_started(self) -> bool:
        return self.started

    def stop(self) -> None:
        self.told.append("stop")

    def hurry(self) -> None:
        self.told.append("hurry")

    def kill(self) -> None:
        self.told.append("kill")
        self.code = -9

    def close(self) -> None:
        self.told.append("close")


class House:
    """A supervisor over fake children."""

    def __init__(self, processes: int = 2) -> None:
        self.now = 1000.0
        self.spawned: list[FakeChild] = []
        self.refusal: Exception | None = None
        self.supervisor = Supervisor(
            self.spawn, processes=processes, patience=PATIENCE, clock=lambda: self.now
        )

    def spawn(self, number: int) -> FakeChild:
        if self.refusal is not None:
            raise self.refusal
        self.spawned.append(FakeChild(number, 100 + len(self.spawned)))
        return self.spawned[-1]

    def tick(self, seconds: float = 0.0) -> bool:
        self.now += seconds
        return self.supervisor.tick()

    def begin(self) -> list[FakeChild]:
        """The first children, at work."""
        self.tick()
        for child in self.spawned:
            child.started = True
        self.tick()
        return list(self.spawned)


def test_a_child_that_worked_for_a_while_is_replaced_at_once():
    house = House()
    first, second = house.begin()
    house.tick(STEADY)
    first.code = -9
    assert house.tick()
    assert [child.number for child in house.spawned] == [1, 2, 1]
    assert first.told == ["close"]
    assert second.told == []


def test_the_pause_grows_while_a_child_ends_at_once_and_is_forgotten_when_one_holds():
    house = House(processes=1)
    (child,) = house.begin()
    pauses = []
    for _ in range(12):
        child.code, before = 1, len(house.spawned)
        house.tick()
        waited = 0.0
        while len(house.spawned) == before:
            house.tick(FIRST_PAUSE / 2)
            waited += FIRST_PAUSE / 2
            assert waited <= LONGEST_PAUSE
        pauses.append(waited)
        child = house.spawned[-1]
    assert pauses[:4] == [FIRST_PAUSE * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == LONGEST_PAUSE
    child.started = True
    house.tick()
    child.code = 1
    house.tick(STEADY)
    house.spawned[-1].started = True
    house.tick()
    house.spawned[-1].code = 1
    before = len(house.spawned)
    house.tick()
    assert len(house.spawned) == before
    house.tick(FIRST_PAUSE)
    assert len(house.spawned) == before + 1


def test_what_a_child_said_before_it_died_is_heard():
    house = House(processes=1)
    house.tick()
    house.spawned[0].started, house.spawned[0].code = True, -11
    assert house.tick()
    house.tick(FIRST_PAUSE)
    assert len(house.spawned) == 2


def test_a_first_child_that_cannot_start_ends_all():
    house = House()
    house.tick()
    first, second = house.spawned
    second.started = True
    first.code = 1
    assert house.tick()
    assert second.told == ["stop"]
    second.code = 0
    assert not house.tick()
    with pytest.raises(DurableError, match=r"process 1 \(pid 100\) ended with exit code 1 before"):
        house.supervisor.run()
    assert len(house.spawned) == 2


def test_a_later_one_that_never_will_start_ends_all_gently():
    house = House()
    first, second = house.begin()
    first.code = -9
    house.refusal = DurableError("threads run")
    assert house.tick(LONGEST_PAUSE)
    assert second.told == ["stop"]
    second.code = 0
    with pytest.raises(DurableError, match="process 1 could not be started: threads run"):
        house.supervisor.run()


def test_a_later_one_that_cannot_start_is_tried_again():
    house = House(processes=1)
    (child,) = house.begin()
    child.code = -9
    house.refusal = OSError("no more processes")
    for _ in range(3):
        assert house.tick(LONGEST_PAUSE)
    assert len(house.spawned) == 1
    house.refusal = None
    house.tick(LONGEST_PAUSE)
    assert len(house.spawned) == 2


def test_no_first_child_at_all_is_an_error():
    house = House()
    house.refusal = OSError("no more processes")
    with pytest.raises(DurableError, match="no more processes"):
        house.supervisor.run()


@pytest.mark.parametrize(("code", "graceful"), [(0, True), (1, False), (-9, False)])
def test_stopping_waits_for_all_and_tells_how_they_ended(code: int, graceful: bool):
    house = House()
    first, second = house.begin()
    house.supervisor.ask_to_stop()
    assert (first.told, second.told) == (["stop"], ["stop"])
    first.code = 0
    assert house.tick(1)
    second.code = code
    assert not house.tick(1)
    assert house.supervisor.run() is graceful
    assert len(house.spawned) == 2


def test_a_child_that_is_stopped_before_it_works_leaves_nothing():
    house = House(processes=1)
    house.tick()
    house.supervisor.ask_to_stop()
    house.spawned[0].code = -signal.SIGTERM
    assert house.supervisor.run() is True


def test_one_that_does_not_end_is_killed():
    house = House(processes=1)
    (child,) = house.begin()
    house.supervisor.ask_to_stop()
    assert house.tick(PATIENCE + MARGIN - 1)
    assert "kill" not in child.told
    house.tick(1)
    assert "kill" in child.told
    assert house.supervisor.run() is False


def test_asked_again_it_hurries():
    house = House(processes=1)
    (child,) = house.begin()
    house.supervisor.ask_to_stop()
    house.supervisor.ask_to_stop()
    assert child.told == ["stop", "hurry"]
    house.tick(MARGIN)
    assert "kill" in child.told


def test_a_signal_asks_it_to_stop_and_a_second_one_to_hurry():
    house = House(processes=1)
    (child,) = house.begin()
    running = threading.Thread(target=house.supervisor.run)
    running.start()
    house.supervisor.on_signal(signal.SIGTERM, None)
    wait_for("the stop", lambda: child.told == ["stop"], 10)
    # Said again it means no more; uWSGI says it every second.
    house.supervisor.on_signal(signal.SIGHUP, None)
    house.supervisor.on_signal(signal.SIGTERM, None)
    wait_for("the hurry", lambda: "hurry" in child.told, 10)
    assert child.told == ["stop", "hurry"]
    child.code = 0
    running.join(10)
    assert not running.is_alive()

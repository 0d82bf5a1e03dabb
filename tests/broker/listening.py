"""What the broker's tests hear with, and how they wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pyramid_durable.broker import Broker

DEADLINE = 10.0
"""Seconds for something to happen that takes milliseconds on an idle machine."""


def wait_for(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Return the first true answer of ``condition``; fail when none has come by the deadline."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.005)
    return pytest.fail(f"waited {deadline:g} s for {what}")


class Ear:
    """A handler that remembers; ``fails`` says which commands it cannot store."""

    def __init__(self, fails: Callable[[bytes], bool] = lambda body: False) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._fails = fails
        self._changed = threading.Condition()

    def announced(self, queues: set[str]) -> None:
        self._remember("announced", *sorted(queues))

    def message(self, text: str, queue: str) -> None:
        self._remember("message", text, queue)

    def command(self, body: bytes) -> None:
        self._remember("command", body)
        if self._fails(body):
            raise RuntimeError("cannot store it")

    def connected(self) -> None:
        self._remember("connected")

    def disconnected(self, exc: BaseException) -> None:
        self._remember("disconnected")

    def all(self, kind: str) -> list[tuple[Any, ...]]:
        with self._changed:
            return [event[1:] for event in self.heard if event[0] == kind]

    def wait(self, *event: Any, times: int = 1, deadline: float = DEADLINE) -> None:
        """Wait until an event was heard at least so many times."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.heard.count(event) >= times, deadline):
                pytest.fail(f"waited {deadline:g} s for {event} x{times}, heard {self.heard[-20:]}")

    def _remember(self, *event: Any) -> None:
        with self._changed:
            self.heard.append(event)
            self._changed.notify_all()


@contextmanager
def listening(
    broker: Broker,
    *queues: str,
    incarnation: str = "one",
    commands: bool = False,
    ear: Ear | None = None,
) -> Iterator[Ear]:
    """A daemon's listener in a thread, connected; it has to end when it is told to."""
    ear = ear or Ear()
    stop = threading.Event()
    thread = threading.Thread(
        target=broker.listen,
        args=(queues or ("default",), incarnation, ear, stop),
        kwargs={"commands": commands},
        daemon=True,
    )
    thread.start()
    try:
        ear.wait("connected")
        yield ear
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the listener did not stop"

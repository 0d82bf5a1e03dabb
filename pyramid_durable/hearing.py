"""What the daemon does with what it hears from the broker (daemon)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Hearing:
    """The broker's handler; called in the listener's thread. ``wake`` looks for due jobs."""

    def __init__(self, scheduler: Any, *, wake: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._wake = wake

    def announced(self, queues: set[str]) -> None:
        """Jobs were stored for these queues."""
        self._wake()

    def message(self, text: str, queue: str) -> None:
        """Somebody sent a message to the daemons of a queue."""
        log.info(
            "message to queue %s: %s",
            queue,
            text,
            extra={"action": "message_received", "queue": queue},
        )

    def command(self, body: bytes) -> None:
        """Store a command; returning acknowledges it, raising lets it come again."""
        raise NotImplementedError

    def connected(self) -> None:
        """From now on announcements arrive; those before may have been lost."""
        log.info("listening to the broker", extra={"action": "broker_connected"})
        self._wake()

    def disconnected(self, exc: BaseException) -> None:
        """The broker is away; said once each time."""
        log.warning(
            "the broker is away, new jobs are found within the poll interval: %s",
            exc,
            extra={"action": "broker_away"},
        )

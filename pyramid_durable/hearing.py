"""What the daemon does with what it hears from the broker (daemon)."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Hearing:
    """The broker's handler; called in the listener's thread.

    ``wake`` looks for due jobs; ``take`` stores commands, see Intake.
    """

    def __init__(
        self, *, wake: Callable[[], None], take: Callable[[bytes], None] | None = None
    ) -> None:
        self._wake = wake
        self._take = take

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
        assert self._take is not None, "commands are listened for with producer = broker only"
        self._take(body)

    def connected(self) -> None:
        """From now on announcements arrive; those before may have been lost."""
        self._wake()

    def disconnected(self, exc: BaseException) -> None:
        """The broker is away, which its listener has logged: the poll finds new jobs meanwhile."""

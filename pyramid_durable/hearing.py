"""What the daemon does with what it hears from the broker (daemon)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

PRINT_JOBS: Final = "print-jobs"
"""The message, pyramid_scheduler's, upon which a daemon logs the jobs it sees."""


class Hearing:
    """The broker's handler; called in the listener's thread.

    ``wake`` looks for due jobs; ``take`` stores commands, see Intake; ``print_jobs`` is for the
    message of that name; ``tell`` passes every message on.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        take: Callable[[bytes], None] | None = None,
        print_jobs: Callable[[], None] = lambda: None,
        tell: Callable[[str, str], None] = lambda text, queue: None,
    ) -> None:
        self._wake = wake
        self._take = take
        self._print_jobs = print_jobs
        self._tell = tell

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
        self._tell(text, queue)
        if text.strip() == PRINT_JOBS:
            self._print_jobs()

    def command(self, body: bytes) -> None:
        """Store a command; returning acknowledges it, raising lets it come again."""
        assert self._take is not None, "commands are listened for with producer = broker only"
        self._take(body)

    def connected(self) -> None:
        """From now on announcements arrive; those before may have been lost."""
        self._wake()

    def disconnected(self, exc: BaseException) -> None:
        """The broker is away, which its listener has logged: the poll finds new jobs meanwhile."""

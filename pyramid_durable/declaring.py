"""The daemon's part in declared schedules: its own stand, unless newer code is at work (daemon)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from .fingerprints import generation_of
from .records import ScheduleSpec
from .times import utcnow

log = logging.getLogger(__name__)


class Declaring:
    """Brings the store in line with what this deployment declares.

    ``declared`` makes the schedules, their first fire times counted from a given time; that is the
    store's, since a host whose clock is wrong would fire what is not due. A daemon that is
    behind at its start, since one of a newer generation lives, changes nothing. It asks again after
    its heartbeats, and takes over when none has lived for ``lease`` seconds: the newer version was
    rolled back, and not just restarted. Daemons that were there before the newer version ask
    nothing; they are to be replaced.

    Raises what ``declared`` raises.
    """

    def __init__(
        self,
        store: Any,
        declared: Callable[[datetime], Sequence[ScheduleSpec]],
        *,
        lease: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._declared = declared
        self._lease = lease
        self._clock = clock
        self._behind = False
        self._newer_seen = float("-inf")
        self.digest = generation_of(declared(utcnow()))

    def settle(self) -> None:
        """Bring the store in line, or see that this is not ours to do. Raises StoreUnavailable."""
        with self._store.begin() as connection:
            declared = self._declared(self._store.now(connection))
            standing = self._store.generations.settle(connection, declared, lease=self._lease)
        if standing.behind and not self._behind:
            log.warning(
                "a daemon of a newer deployment is at work: the schedules that this one declares "
                "(generation %d) do not count until the last of those has gone",
                standing.number,
                extra={"action": "generation_behind", "generation": standing.number},
            )
        self._behind = standing.behind
        self._newer_seen = self._clock()

    def ask_again(self) -> None:
        """Take over if we are behind, and nobody is ahead any more. Raises StoreUnavailable."""
        if not self._behind:
            return
        with self._store.read() as connection:
            behind = self._store.generations.is_behind(connection, self.digest, lease=self._lease)
        now = self._clock()
        if behind:
            self._newer_seen = now
        elif now - self._newer_seen >= self._lease:
            self.settle()

"""executor="inline": jobs run in the process that asked for them, after its commit (web, jobs)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from .endings import GiveBack, ending_of
from .exceptions import StoreUnavailable
from .heartbeat import Heartbeat, default_label
from .interfaces import IScheduler
from .recorder import Recorder
from .records import Claim
from .runner import Runner
from .telling import Telling

log = logging.getLogger(__name__)

LAST_WRITES: Final = 5.0
"""Seconds that the caller waits for how its jobs ended to be written: for a failover, not an
outage. What is not written then is run again by a daemon. And as long for listeners."""

_thread = threading.local()


def run_inline(registry: Any, ids: Collection[str]) -> None:
    """Run these jobs, one after the other, in a thread of their own; returns when they have ended.

    They are in the store as others are, and nobody else runs them for a moment. This process claims
    them under a lease of its own: what it does not get to, or dies of, is a daemon's. Jobs that an
    inline job asks for follow it in the same thread. Never raises: how a job ended is kept with it.
    """
    here: _Inline | None = getattr(_thread, "inline", None)
    if here is not None and here.registry is registry:
        here.waiting.extend(ids)
        return
    inline = _Inline(registry, ids)
    thread = threading.Thread(target=inline.work, name="durable-inline", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        # The caller has committed and can only be told afterwards; a daemon finds the jobs.
        _note_left(error)
        return
    thread.join()


class _Inline:
    """Some jobs and the daemon that they need: one that serves no queue."""

    def __init__(self, registry: Any, ids: Iterable[str]) -> None:
        self.registry = registry
        self.waiting = deque(ids)
        self._in_hand: tuple[Claim, ...] = ()

    def work(self) -> None:
        """Run what waits. Never raises."""
        _thread.inline = self
        try:
            self._work()
        except StoreUnavailable as error:
            _note_left(error)
        except BaseException:
            log.critical("inline jobs: a defect", exc_info=True, extra={"action": "inline_failed"})

    def _work(self) -> None:
        scheduler = self.registry.getUtility(IScheduler)
        settings, store = scheduler.settings, scheduler.store
        telling = Telling(scheduler.listeners)
        runner = Runner(self.registry, telling)
        recorder = Recorder(store, poison_limit=settings.poison_limit, telling=telling)
        heart = Heartbeat(
            store,
            queues=(),
            label=f"{settings.id or default_label()} inline",
            interval=settings.heartbeat,
            lease=settings.lease,
            poison_limit=settings.poison_limit,
            running=lambda: self._in_hand,
            cancel=runner.ask_to_cancel,
            rescued=telling.rescued,
            removed=telling.removed,
        )
        heart.start()
        recorder.start()
        try:
            while self.waiting:
                ids = [self.waiting.popleft() for _ in range(len(self.waiting))]
                aside: list[Claim] = []
                owner = heart.incarnation
                with store.begin() as connection:
                    claims = store.claims.take_named(connection, owner, ids, aside=aside)
                telling.claimed([*aside, *claims])
                self._run(claims, runner, recorder, heart, telling)
        finally:
            recorder.stop(LAST_WRITES)
            heart.stop()
            telling.stop(LAST_WRITES)

    def _run(
        self,
        claims: Collection[Claim],
        runner: Runner,
        recorder: Recorder,
        heart: Heartbeat,
        telling: Telling,
    ) -> None:
        taken_at = time.monotonic()
        for claim in claims:
            if not heart.holds(claim):
                # The store was away: it has not started here, and others may have it by now.
                recorder.add(GiveBack(claim=claim))
                continue
            self._in_hand = (claim,)
            outcome = runner.run(claim, waited=time.monotonic() - taken_at)
            self._in_hand = ()
            telling.ended(claim, outcome)
            ending = ending_of(claim, outcome)
            if ending is not None:
                recorder.add(ending)


def _note_left(error: Exception) -> None:
    log.warning(
        "inline jobs are left to a daemon: %s", error, extra={"action": "inline_left_to_daemon"}
    )

"""The heartbeat: it keeps this daemon's lease, and takes over the work of dead ones (daemon)."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from .exceptions import StoreUnavailable
from .records import Claim
from .store import DaemonInfo, Rescued
from .store.retention import Removed

log = logging.getLogger(__name__)

SAFE_SHARE: Final = 0.75
"""The share of the lease in which jobs are started. The rest is for what lies between the look at
the clock and the job's first statement, and for clocks of two machines that do not run alike."""


def default_label() -> str:
    """The name of a daemon whose settings give none: it tells where to look."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Heartbeat:
    """Registers the daemon, renews its lease, and looks after what concerns running jobs.

    ``incarnation`` is the owner in the fence of every claim. It is new at each start of a process
    and whenever others have declared this daemon dead: what it had claimed is theirs then.
    ``running`` gives the claims that have been running for longer than one beat, ``cancel`` is told
    the ids of those that are asked to stop, ``revived`` is called when the lease is held again.
    ``holding`` gives all claims in the daemon's hands, as (id, claim_no). ``declares`` is the digest of
    the schedules that this daemon declares, ``beaten`` is called after each beat, ``rescued`` is told
    which jobs were taken from dead daemons, ``removed`` those whose removal had to wait for their end.
    """

    def __init__(
        self,
        store: Any,
        *,
        queues: Sequence[str],
        label: str | None,
        interval: float,
        lease: float,
        poison_limit: int,
        running: Callable[[], Collection[Claim]] = tuple,
        holding: Callable[[], set[tuple[str, int]]] | None = None,
        cancel: Callable[[Collection[str]], None] = lambda ids: None,
        revived: Callable[[], None] = lambda: None,
        declares: str | None = None,
        beaten: Callable[[], None] = lambda: None,
        rescued: Callable[[Sequence[Rescued]], None] = lambda jobs: None,
        removed: Callable[[Sequence[Removed]], None] = lambda jobs: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._queues = tuple(queues)
        self._label = label or default_label()
        self._interval = interval
        self._lease = lease
        self._poison_limit = poison_limit
        self._running = running
        self._holding = holding
        self._unheld: set[tuple[str, int]] = set()
        self._noted: set[tuple[str, int]] = set()
        self._cancel = cancel
        self._revived = revived
        self._declares = declares
        self._beaten = beaten
        self._rescued = rescued
        self._removed = removed
        self._clock = clock
        self._held_until = float("-inf")
        self._lapsed_until = float("-inf")
        self._away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="durable-heartbeat", daemon=True)
        self.incarnation = str(uuid.uuid4())

    def held(self) -> bool:
        """Tell whether the lease is held for long enough to start a job; asks no database."""
        return self._clock() < self._held_until

    def holds(self, claim: Claim) -> bool:
        """Tell whether this claim is this incarnation's, and its lease held."""
        return claim.owner == self.incarnation and self.held()

    def start(self) -> None:
        """Register the daemon and begin to beat. Raises StoreUnavailable."""
        began = self._clock()
        self._register()
        self._renewed(began)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and leave the list of daemons; what is still claimed is rescued at once."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(self._interval)
        self._held_until = float("-inf")
        try:
            with self._store.begin() as connection:
                self._store.daemons.leave(connection, self.incarnation)
        except StoreUnavailable as error:
            log.warning(
                "could not sign off (%s); others see it when the lease ends",
                error,
                extra={"action": "leave_failed"},
            )

    def beat(self) -> None:
        """One beat: renew the lease or come back as a new incarnation, then look after the jobs.

        Raises StoreUnavailable.
        """
        began = self._clock()
        if not self.held():
            # What kept us from beating may have kept the others too: they get a lease's time to
            # beat before they are taken for dead.
            self._lapsed_until = began + self._lease
        with self._store.begin() as connection:
            alive = self._store.daemons.beat(connection, self.incarnation)
        if not alive:
            self._come_back()
        self._renewed(began)
        running = self._running()
        with self._store.begin() as connection:
            rescued: Sequence[Rescued] = ()
            if began >= self._lapsed_until:
                rescued = self._store.daemons.rescue(
                    connection, lease=self._lease, poison_limit=self._poison_limit
                )
            self._give_back_unheld(connection)
            self._note_started(connection, running)
            removed = self._store.job_changes.sweep(connection)
            asked: Collection[str] = ()
            if running:
                ids = [claim.id for claim in running]
                asked = self._store.jobs.cancel_requested(connection, ids)
        for job in rescued:
            note_rescue(job)
        self._rescued(rescued)
        if removed:
            self._removed(removed)
        if asked:
            self._cancel(asked)
        if rescued:
            self._revived()
        self._beaten()

    def _give_back_unheld(self, connection: Any) -> None:
        """Give back claims that are ours in the store and in nobody's hands here.

        Such are left where the answer to a claim's commit was lost, or giving back failed. Found at
        two beats in a row: at one alone a claim may just be passed from hand to hand.
        """
        if self._holding is None:
            return
        owned = self._store.holdings.owned(connection, self.incarnation)
        unheld = owned - self._holding() if owned else set()
        forgotten = unheld & self._unheld
        self._unheld = unheld
        if forgotten:
            given_back = self._store.holdings.release_owned(connection, self.incarnation, forgotten)
            log.warning(
                "%d claims that an outage had made this daemon forget were given back",
                given_back,
                extra={"action": "forgotten_given_back", "number": given_back},
            )

    def _note_started(self, connection: Any, running: Collection[Claim]) -> None:
        """Let the store know of long-running jobs that had to wait when they were claimed."""
        started = {(claim.id, claim.claim_no): claim for claim in running if not claim.started}
        new = [claim for fence, claim in started.items() if fence not in self._noted]
        if new:
            self._store.holdings.mark_started(connection, new)
        self._noted = set(started)

    def _register(self) -> None:
        info = DaemonInfo(
            incarnation=self.incarnation,
            label=self._label,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._queues,
            declares=self._declares,
        )
        with self._store.begin() as connection:
            self._store.daemons.register(connection, info)

    def _come_back(self) -> None:
        self._held_until = float("-inf")
        lost, self.incarnation = self.incarnation, str(uuid.uuid4())
        self._register()
        log.error(
            "this daemon was declared dead: it had not renewed its lease of %g s; its jobs are "
            "with others now, what it still writes about them is dropped. It goes on as %s",
            self._lease,
            self.incarnation,
            extra={"action": "declared_dead", "incarnation": lost},
        )

    def _renewed(self, began: float) -> None:
        # Counted from before the question: when the answer came in, the lease had been running.
        was_held = self.held()
        self._held_until = began + self._lease * SAFE_SHARE
        if not was_held:
            self._revived()

    def _beat_on(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.beat()
            except StoreUnavailable as error:
                self._note_away(error)
            except Exception:
                log.exception("a heartbeat failed", extra={"action": "heartbeat_failed"})
            else:
                self._note_back()

    def _note_away(self, error: StoreUnavailable) -> None:
        if not self._away:
            log.warning(
                "the lease cannot be renewed, no job is started when it runs out: %s",
                error,
                extra={"action": "lease_unrenewed"},
            )
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.info("the lease is renewed again", extra={"action": "lease_renewed"})
        self._away = False


def note_rescue(job: Rescued, gone: str = "its daemon") -> None:
    """Log that the job of what is gone is free again, or has ended."""
    what = "it runs again"
    if job.ended:
        what = "it has failed, this was the last one allowed"
    elif job.cancelled:
        what = "it had been asked to stop, and is cancelled"
    log.warning(
        "job %s: %s is gone (crash %d); %s",
        job.id,
        gone,
        job.crashes,
        what,
        extra={"action": "rescued", "job": job.id, "queue": job.queue},
    )

"""What the harness observes while it goes on: who is up, whose claims were lost, when they were free."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from .cluster import Cluster, Slot
from .evidence import Fault, Loss

HELD = """
SELECT job.id, job.claim_no FROM durable_job job
JOIN durable_daemon daemon ON daemon.incarnation = job.owner WHERE daemon.pid = :pid
"""

FENCES = "SELECT id, claim_no FROM durable_job WHERE owner IS NOT NULL"

PIDS = "SELECT pid FROM durable_daemon"

LOOK_EVERY = 0.1
"""Seconds between two looks into the store: how precise the times of rescues are."""


LONGEST_HELD = 20.0
"""Seconds for which a claim may be held: a job of some seconds in a daemon that was frozen, the
store away meanwhile. One that is held for longer has been forgotten by its daemon."""


class Watch:
    """Keeps the log of a run. All times are seconds since 1970."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lost: list[tuple[str, int, float]] = []
        self._open: dict[tuple[str, int], Loss] = {}
        self._settled: list[Loss] = []
        self._held_since: dict[tuple[str, int], float] = {}
        self._seen_at: dict[tuple[str, int], float] = {}
        self._next_look = 0.0
        self._dark_since: float | None = time.time()
        self._away = False
        self.dark: list[tuple[float, float]] = []
        self.faults: list[Fault] = []
        self.exits: list[str] = []
        self.forgotten: set[tuple[str, int]] = set()

    @property
    def losses(self) -> list[Loss]:
        return [*self._settled, *self._open.values()]

    def note(self, kind: str, target: str, until: float | None = None) -> None:
        """Log a fault."""
        self.faults.append(Fault(kind=kind, target=target, at=time.time(), until=until))

    def store_is(self, *, away: bool) -> None:
        self._away = away
        self._follow_dark()

    def lost(self, slot: Slot) -> None:
        """From now on a daemon does nothing for its claims."""
        self._lost.append((slot.process, slot.pid, time.time()))
        self._follow_dark()

    def back(self, slot: Slot) -> None:
        """A daemon goes on; what nobody took from it is its own again."""
        for fence, loss in self._open.items():
            if loss.daemon == slot.process and loss.back_at is None:
                self._open[fence] = replace(loss, back_at=time.time())
        self._follow_dark()

    def look(self) -> None:
        """Look after processes and claims; to be called all the time."""
        self._reap()
        self._follow_dark()
        now = time.time()
        if self._away or now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        with suppress(DBAPIError):
            self._look_into_store()

    @property
    def settled(self) -> bool:
        """Whether every lost claim is known to be free."""
        return not self._lost and not self._open

    def _reap(self) -> None:
        for slot in self._cluster.slots:
            if slot.restart_at is not None or not slot.process:
                continue
            code = self._cluster.exit_code(slot)
            if code is None:
                continue
            if slot in self._cluster.daemons and slot.ready:
                self.lost(slot)
            if code != -9:
                self._note_exit(slot, code)
            elif slot in self._cluster.daemons and not self._was_told(slot):
                self.note("killed by a job", slot.process)
            self._cluster.due_again(slot)

    def _was_told(self, slot: Slot) -> bool:
        return any(
            one.target == slot.process and one.kind.startswith("kill ") for one in self.faults
        )

    def _note_exit(self, slot: Slot, code: int) -> None:
        said = self._cluster.place.log(slot.process)
        if slot in self._cluster.daemons and "daemon started" not in said:
            # At the start an unreachable store is a reason to leave, and to be started again.
            self.note("refused to start", slot.process)
            return
        self.exits.append(f"{slot.process} with {code}: {said[-1000:]}")

    def _follow_dark(self) -> None:
        is_dark = self._away or not any(slot.up for slot in self._cluster.daemons)
        if is_dark and self._dark_since is None:
            self._dark_since = time.time()
        elif not is_dark and self._dark_since is not None:
            self.dark.append((self._dark_since, time.time()))
            self._dark_since = None

    def _look_into_store(self) -> None:
        with self._cluster.place.engine.connect() as connection:
            pids = set(connection.execute(text(PIDS)).scalars())
            for lost in list(self._lost):
                process, pid, at = lost
                for id, claim_no in connection.execute(text(HELD), {"pid": pid}):
                    loss = Loss(job=id, claim_no=claim_no, daemon=process, lost_at=at)
                    self._open[id, claim_no] = loss
                self._lost.remove(lost)
            fences = {(row.id, row.claim_no) for row in connection.execute(text(FENCES))}
        now = time.time()
        self._held_since = {fence: self._held_since.get(fence, now) for fence in fences}
        self.forgotten |= {
            fence for fence, since in self._held_since.items() if now - since > LONGEST_HELD
        }
        for slot in self._cluster.daemons:
            slot.ready = slot.ready or (slot.restart_at is None and slot.pid in pids)
        for fence in [fence for fence in self._open if fence not in fences]:
            # A machine that is too busy to look may see it long after; it is held against nobody
            # for longer than it was seen to be held.
            freed_at = min(now, self._seen_at.get(fence, now) + LOOK_EVERY)
            self._settled.append(replace(self._open.pop(fence), freed_at=freed_at))
        self._seen_at.update(dict.fromkeys(self._open, now))

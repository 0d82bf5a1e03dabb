"""The faults: what each does, when it is undone, and the deck they are drawn from."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator

from .cluster import Cluster, Slot
from .evidence import Limits
from .servers import end_connections
from .watch import Watch

DECK = {
    "kill daemon": 4,
    "kill producer": 2,
    "freeze daemon": 3,
    "cut daemon off": 2,
    "end connections": 3,
    "drop store": 1,
    "cut producer off": 1,
    "drop broker": 1,
    "swallow broker": 1,
    "restart store": 2,
    "restart broker": 2,
}
"""How often each comes, before any comes more often. A run that is long enough meets all."""

FIRST = ("kill daemon", "freeze daemon", "end connections", "restart store", "restart broker")
"""What also the shortest run meets."""

AWAY = (0.2, 2.0)
"""Seconds a server is away when it is restarted."""

LONG_AWAY = 0.2
"""The share of restarts of the store that last longer than a lease."""


def deck(rng: random.Random, *, restarts_store: bool, restarts_broker: bool) -> Iterator[str]:
    """The faults in their order, without end."""

    def possible(kind: str) -> bool:
        return {"restart store": restarts_store, "restart broker": restarts_broker}.get(kind, True)

    first = [kind for kind in FIRST if possible(kind)]
    rng.shuffle(first)
    yield from first
    while True:
        cards = [kind for kind, number in DECK.items() if possible(kind) for _ in range(number)]
        rng.shuffle(cards)
        yield from cards


class Faults:
    """Does one thing after the other to a cluster, and undoes what is to end."""

    def __init__(self, cluster: Cluster, watch: Watch, limits: Limits, seed: str) -> None:
        self._cluster = cluster
        self._watch = watch
        self._limits = limits
        self._rng = random.Random(f"{seed}-faults")
        self._deck = deck(
            self._rng,
            restarts_store=cluster.store.restartable,
            restarts_broker=cluster.broker.restartable,
        )
        self._to_undo: list[tuple[float, Callable[[], None]]] = []
        self._busy: set[str] = set()
        self._acts: dict[str, Callable[[], str | None]] = {
            "kill daemon": self._kill_daemon,
            "kill producer": self._kill_producer,
            "freeze daemon": self._freeze_daemon,
            "cut daemon off": self._cut_daemon_off,
            "end connections": self._end_connections,
            "drop store": self._drop_store,
            "cut producer off": self._cut_producer_off,
            "drop broker": self._drop_broker,
            "swallow broker": self._swallow_broker,
            "restart store": self._restart_store,
            "restart broker": self._restart_broker,
        }

    def next(self) -> None:
        """The next fault of the deck; one that has no target now is left out."""
        kind = next(self._deck)
        target = self._acts[kind]()
        if target is not None:
            self._watch.note(kind, target)

    def undo(self, *, all: bool = False) -> None:
        """End the faults that are over, or all of them."""
        now = time.time()
        due = [pair for pair in self._to_undo if all or pair[0] <= now]
        self._to_undo = [pair for pair in self._to_undo if pair not in due]
        for _, undo in due:
            undo()

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        self._to_undo.append((time.time() + seconds, undo))

    def _daemon(self) -> Slot | None:
        """One that is up, while another is too."""
        up = [slot for slot in self._cluster.daemons if slot.up]
        return self._rng.choice(up) if len(up) > 1 else None

    def _producer(self) -> Slot | None:
        up = [slot for slot in self._cluster.producers if slot.up]
        return self._rng.choice(up) if up else None

    def _kill_daemon(self) -> str | None:
        slot = self._daemon()
        if slot is None:
            return None
        self._cluster.send(slot, signal.SIGKILL)
        self._cluster.place.processes[slot.process].wait()
        return slot.process

    def _kill_producer(self) -> str | None:
        slot = self._producer()
        if slot is None:
            return None
        self._cluster.send(slot, signal.SIGKILL)
        self._cluster.place.processes[slot.process].wait()
        return slot.process

    def _freeze_daemon(self) -> str | None:
        slot = self._daemon()
        if slot is None:
            return None
        process = slot.process
        self._cluster.send(slot, signal.SIGSTOP)
        slot.frozen = True
        self._watch.lost(slot)

        def thaw() -> None:
            if slot.process == process and slot.frozen:
                self._cluster.send(slot, signal.SIGCONT)
                slot.frozen = False
                self._watch.back(slot)

        self._later(self._rng.uniform(self._limits.lease + 1, self._limits.rescue + 2), thaw)
        return process

    def _cut_daemon_off(self) -> str | None:
        slot = self._daemon()
        if slot is None:
            return None
        slot.proxy.swallow()
        slot.cut_off = True
        self._watch.lost(slot)

        def heal() -> None:
            slot.proxy.heal()
            slot.cut_off = False
            self._watch.back(slot)

        self._later(self._rng.uniform(self._limits.lease + 1, self._limits.rescue + 2), heal)
        return slot.process

    def _cut_producer_off(self) -> str | None:
        slot = self._producer()
        if slot is None:
            return None
        slot.proxy.swallow()
        slot.cut_off = True

        def heal() -> None:
            slot.proxy.heal()
            slot.cut_off = False

        self._later(self._rng.uniform(*AWAY), heal)
        return slot.process

    def _end_connections(self) -> str | None:
        share = self._rng.choice((0.1, 0.3, 1.0))
        if "store" in self._busy:
            return None
        return str(end_connections(self._cluster.store.url, share, self._rng))

    def _drop_store(self) -> str | None:
        if "store" in self._busy:
            return None
        cut = sum(slot.proxy.cut() for slot in self._cluster.slots if not slot.cut_off)
        return f"{cut} connections"

    def _drop_broker(self) -> str | None:
        if "broker" in self._busy:
            return None
        return f"{self._cluster.broker_proxy.cut()} connections"

    def _swallow_broker(self) -> str | None:
        if not self._take("broker"):
            return None
        self._cluster.broker_proxy.swallow()

        def heal() -> None:
            self._cluster.broker_proxy.heal()
            self._busy.discard("broker")

        self._later(self._rng.uniform(1.0, 6.0), heal)
        return self._cluster.broker.url.partition(":")[0]

    def _restart_store(self) -> str | None:
        if not self._take("store"):
            return None
        seconds = self._rng.uniform(*AWAY)
        if self._rng.random() < LONG_AWAY:
            seconds += self._limits.lease

        def start() -> None:
            self._cluster.store.start()
            self._busy.discard("store")
            self._watch.store_is(away=False)

        self._watch.store_is(away=True)
        self._cluster.store.stop()
        self._later(seconds, start)
        return f"{seconds:.1f} s"

    def _restart_broker(self) -> str | None:
        if not self._take("broker"):
            return None

        def start() -> None:
            self._cluster.broker.start()
            self._busy.discard("broker")

        self._cluster.broker.stop()
        seconds = self._rng.uniform(*AWAY)
        self._later(seconds, start)
        return f"{seconds:.1f} s"

    def _take(self, server: str) -> bool:
        """One outage of a server at a time."""
        if server in self._busy:
            return False
        self._busy.add(server)
        return True

"""The processes under fire: daemons and producers, each behind a proxy of its own to the store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.processes.deployment import ROOT, Deployment

from .application import metadata
from .proxy import Proxy
from .servers import Server, broker_server, store_server

APPLICATION = "tests.concurrent.application:main"

LEASE, HEARTBEAT, POISON_LIMIT = 3.0, 0.5, 3

SETTINGS = {
    "scheduler.heartbeat": f"{HEARTBEAT:g}s",
    "scheduler.lease": f"{LEASE:g}s",
    "scheduler.poll_interval": "500ms",
    "scheduler.shutdown_timeout": "10s",
    "scheduler.threads": "8",
    "scheduler.poison_limit": str(POISON_LIMIT),
    "scheduler.timezone": "UTC",
}

RESTART = (0.0, 0.5)
"""Seconds after which somebody has noticed that a process has died, and starts it again."""


@dataclass
class Slot:
    """A place that one daemon, or one producer, after the other fills."""

    name: str
    proxy: Proxy
    generation: int = 0
    process: str = ""
    pid: int = 0
    ready: bool = False
    frozen: bool = False
    cut_off: bool = False
    restart_at: float | None = None

    @property
    def up(self) -> bool:
        """Whether it is there, and can be expected to work."""
        return self.ready and not self.frozen and not self.cut_off and self.restart_at is None


class Place(Deployment):
    """An application whose processes reach the store by ports of their own."""

    def __init__(
        self, folder: Path, store: Server, broker: str, settings: Mapping[str, str]
    ) -> None:
        url = store.through("STORE_PORT")
        super().__init__(
            folder,
            APPLICATION,
            {
                "sqlalchemy.url": store.url,
                "scheduler.broker.url": broker,
                "chaos.outside": str(folder / "outside.txt"),
                "chaos.starts": str(folder / "starts.txt"),
                **SETTINGS,
                **settings,
            },
        )
        self.engine.dispose()
        # No connection is kept: the server is restarted, and ends those it has.
        self.engine = create_engine(store.url, poolclass=NullPool)
        ini = self.ini.read_text()
        ini = ini.replace(f"= {store.url}\n", f"= {url.replace('STORE_PORT', '%(store_port)s')}\n")
        self.ini.write_text(ini)
        self.variables = {"store_port": str(store.port)}

    def produce(self, slot: Slot, seed: str, rate: float) -> None:
        """Start a producer."""
        arguments = [str(self.ini), str(slot.proxy.port), str(self.folder), slot.process]
        command = [sys.executable, "-m", "tests.concurrent.producer", *arguments, seed, str(rate)]
        with (self.folder / f"{slot.process}.log").open("ab") as log:
            self.processes[slot.process] = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )


@dataclass
class Cluster:
    """All that stands while a run lasts."""

    place: Place
    store: Server
    broker: Server
    broker_proxy: Proxy
    daemons: list[Slot]
    producers: list[Slot]
    seed: str
    rate: float
    folder: Path
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}-cluster")

    @property
    def slots(self) -> list[Slot]:
        return [*self.daemons, *self.producers]

    def start(self, slot: Slot) -> None:
        """Fill a place with a new process."""
        slot.generation += 1
        slot.process = f"{slot.name}-{slot.generation}"
        slot.ready = slot.frozen = False
        slot.restart_at = None
        if slot in self.daemons:
            port = f"store_port={slot.proxy.port}"
            self.place.start("pscheduler", port, name=slot.process)
        else:
            self.place.produce(slot, self.seed, self.rate)
            slot.ready = True
        slot.pid = self.place.processes[slot.process].pid

    def exit_code(self, slot: Slot) -> int | None:
        return self.place.processes[slot.process].poll()

    def send(self, slot: Slot, number: int) -> None:
        self.place.send(slot.process, number)

    def due_again(self, slot: Slot) -> None:
        """Let a dead process be started again, soon."""
        slot.ready = slot.frozen = False
        slot.restart_at = time.time() + self.rng.uniform(*RESTART)

    def stop(self, slot: Slot) -> int:
        """End a process the friendly way, for good; returns its exit code."""
        code = 0 if slot.restart_at is not None else self.place.stop(slot.process, signal.SIGTERM)
        slot.process, slot.restart_at = "", None
        return code


@contextmanager
def cluster(
    folder: Path,
    store: str,
    broker: str,
    *,
    seed: str,
    daemons: int = 3,
    producers: int = 2,
    rate: float = 4.0,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Servers, proxies, an ini and empty places; everything is ended with the block."""
    with ExitStack() as stack:

        def proxy(server: Server) -> Proxy:
            made = Proxy(server.host, server.port)
            stack.callback(made.close)
            return made

        store_here = stack.enter_context(store_server(store, folder))
        broker_here = stack.enter_context(broker_server(broker))
        broker_proxy = proxy(broker_here)
        url = broker_here.through(broker_proxy.port)
        place = Place(folder, store_here, url, settings or {})
        stack.callback(place.close)
        metadata.create_all(place.engine)
        if place.run("pscheduler", "--migrate") != 0:
            raise RuntimeError(f"--migrate failed:\n{place.log('pscheduler0')}")
        yield Cluster(
            place=place,
            store=store_here,
            broker=broker_here,
            broker_proxy=broker_proxy,
            daemons=[Slot(f"daemon{n}", proxy(store_here)) for n in range(1, daemons + 1)],
            producers=[Slot(f"producer{n}", proxy(store_here)) for n in range(1, producers + 1)],
            seed=seed,
            rate=rate,
            folder=folder,
        )

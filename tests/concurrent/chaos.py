"""A run of the chaos: load, faults, an end in peace, and the checker's report."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from .checker import Report, check
from .cluster import HEARTBEAT, LEASE, POISON_LIMIT, Cluster, cluster
from .evidence import Evidence, Limits
from .faults import Faults
from .reading import end_schedules, read_evidence, read_schedules
from .watch import Watch

PLACES = (("postgresql", "amqp"), ("postgresql", "redis"), ("mariadb", "redis"))

LIMITS = Limits(lease=LEASE, heartbeat=HEARTBEAT, poison_limit=POISON_LIMIT, margin=3.0)
"""The margin is for a machine with less processors than there are processes under fire here."""

BETWEEN = (0.3, 1.5)
"""Seconds between two faults."""

TICK = 0.03

STARTED = 60.0
DRAINED = 40.0
"""Seconds for the daemons to start, and, with all daemons up, for the last jobs to end: retries,
rescues, suspects that run alone. It takes a few; only a job that is forgotten needs all of it."""


LEFT = """
SELECT id, name, state, owner FROM durable_job
WHERE state IN ('scheduled', 'running') AND (schedule_id IS NULL OR attempt > 0)
"""


class Stuck(Exception):
    """Something did not come about by its deadline."""


class Chaos:
    """One run on one place."""

    def __init__(self, cluster: Cluster, *, seed: str, seconds: float) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._watch = Watch(cluster)
        self._faults = Faults(cluster, self._watch, LIMITS, seed)
        self._began = time.time()
        self.phases: list[str] = []
        self._pace = random.Random(f"{seed}-pace")

    def run(self) -> Evidence:
        for slot in self._cluster.slots:
            self._cluster.start(slot)
        self._until("the daemons", lambda: all(s.ready for s in self._cluster.daemons), STARTED)
        self._note("started")
        self._rage()
        self._faults.undo(all=True)
        self._note("faults over")
        for slot in self._cluster.producers:
            self._cluster.stop(slot)
        self._until("the daemons", lambda: all(s.up for s in self._cluster.daemons), STARTED)
        with contextlib.suppress(Stuck):  # the checker says what is missing
            self._until("the end of all jobs", self._all_ended, DRAINED)
        self._note("jobs ended")
        return self._read(self._cluster.place.ask(LEFT))

    def _note(self, what: str) -> None:
        self.phases.append(f"{what} at {time.time() - self._began:.1f} s")

    def _rage(self) -> None:
        end = time.time() + self._seconds
        next_at = time.time() + self._pace.uniform(*BETWEEN)
        while time.time() < end:
            if time.time() >= next_at:
                self._faults.next()
                next_at = time.time() + self._pace.uniform(*BETWEEN)
            self._tick()

    def _tick(self) -> None:
        self._faults.undo()
        self._watch.look()
        for slot in self._cluster.slots:
            if slot.restart_at is not None and slot.restart_at <= time.time():
                self._cluster.start(slot)
        time.sleep(TICK)

    def _until(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        end = time.time() + seconds
        while not condition():
            if time.time() > end:
                raise Stuck(f"waited {seconds:.0f} s for {what}")
            self._tick()

    def _all_ended(self) -> bool:
        try:
            return self._watch.settled and not self._cluster.place.ask(LEFT)
        except DBAPIError:
            return False

    def _read(self, left: list[tuple[Any, ...]]) -> Evidence:
        place, exits = self._cluster.place, self._watch.exits
        for slot in self._cluster.daemons:
            self._cluster.send(slot, signal.SIGTERM)
        for slot in self._cluster.daemons:
            code = place.processes[slot.process].wait(DRAINED)
            if code != 0:
                said = place.log(slot.process)[-1000:]
                exits.append(f"{slot.process} with {code} at SIGTERM: {said}")
        self._note("daemons stopped")
        read_at = time.time()
        schedules = read_schedules(place.engine)
        # What the schedules asked for in the last moment is still to be run, and nothing more.
        end_schedules(place.engine)
        if (code := place.run("pscheduler", "--once", "-i")) != 0:
            exits.append(f"--once with {code}")
        return read_evidence(
            place.engine,
            self._cluster.folder,
            schedules=schedules,
            limits=LIMITS,
            losses=self._watch.losses,
            faults=self._watch.faults,
            left=[
                *(f"{id} ({name}) is {state}, of {owner}" for id, name, state, owner in left),
                *(f"{id}, claim {number}" for id, number in sorted(self._watch.forgotten)),
            ],
            dark=self._watch.dark,
            exits=exits,
            read_at=read_at,
        )


def run_chaos(folder: Path, store: str, broker: str, *, seed: str, seconds: float) -> Report:
    """Run on one store and broker; prints what was done and found, and returns the report."""
    say(f"chaos on {store} + {broker}: {seconds:.0f} s, seed {seed}, logs in {folder}")
    began = time.time()
    with cluster(folder, store, broker, seed=seed) as stage:
        chaos = Chaos(stage, seed=seed, seconds=seconds)
        evidence = chaos.run()
    report = check(evidence)
    with (folder / "faults.json").open("w") as log:
        events = [vars(one) for one in (*evidence.faults, *evidence.losses)]
        json.dump({"dark": evidence.dark, "events": events}, log, indent=1)
    for line in report.lines():
        say(f"  {line}")
    say(f"  {', '.join(chaos.phases)}; all {time.time() - began:.1f} s, seed {seed}")
    return report


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

"""A process that adds equal jobs, claims and ends them as fast as it can; see test_behaviors.py.

``python -m tests.concurrent.hammering URL PREFIX NUMBER SECONDS`` prints what it did as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from uuid import uuid4

from pyramid_durable.behaviors import BINDS_WAITING
from pyramid_durable.exceptions import DuplicateJob, StoreUnavailable
from pyramid_durable.records import Completion, JobSpec
from pyramid_durable.store import DaemonInfo, Store
from pyramid_durable.times import new_id

ENDS = ("succeeded", "succeeded", "failed", "scheduled", "given back")
TRIES = 8
SLICE = 0.5
"""Seconds for which all processes ask for one RUN_ONCE key: each has to be won once."""


def make(behavior: str, key: str, queue: str = "default") -> JobSpec:
    return JobSpec(
        id=new_id(),
        func="tests.jobs:noop",
        payload="[[],{}]",
        queue=queue,
        options={"behavior": behavior, "key": key},
        waiting_key=key if behavior in BINDS_WAITING else None,
    )


class Hammer:
    """One of the processes: an application and a daemon, in turns."""

    def __init__(self, store: Store, number: int) -> None:
        self.store = store
        self.random = random.Random(number)
        self.counts: Counter[str] = Counter()
        self.enter()

    def enter(self) -> None:
        self.owner = uuid4().hex
        info = DaemonInfo(incarnation=self.owner, label="x", host="h", pid=1, queues=("default",))
        with self.store.begin() as connection:
            self.store.daemons.register(connection, info)

    def ask(self) -> JobSpec:
        number, now = self.random.randrange(3), int(time.time() / SLICE)
        kinds = [
            make("SCHEDULE_ONCE", f"schedule-{number}"),
            make("RUN_ONCE", f"run-{now}"),
            make("RUN_AND_SCHEDULE_ONCE", f"both-{now}"),
            make("LAST_ONLY", f"last-{number}"),
            make("LAST_ONLY", f"left-{number}", "nobody"),
        ]
        return self.random.choice(kinds)

    def add(self) -> None:
        """Ask for some in one transaction; all processes in one order, lest they wait in a ring."""
        asked = sorted((self.ask() for _ in range(TRIES)), key=lambda spec: spec.options["key"])
        with self.store.begin() as connection:
            for spec in asked:
                what = spec.options["behavior"]
                try:
                    self.store.jobs.add(connection, [spec])
                except DuplicateJob:
                    self.counts[f"{what} refused"] += 1
                else:
                    self.counts[f"{what} added"] += 1
            if self.random.random() < 0.1:
                connection.rollback()

    def add_batch(self) -> None:
        """In any order: a batch finds its own."""
        keys = self.random.sample(range(3), 3)
        with self.store.begin() as connection:
            batch = [make("LAST_ONLY", f"left-{number}", "nobody") for number in keys]
            self.store.jobs.add(connection, batch)
        self.counts["LAST_ONLY added"] += len(batch)

    def work(self) -> None:
        with self.store.read() as connection:
            look = self.store.looks.look(connection, ["default"])
        if look.idle:
            return
        with self.store.begin() as connection:
            claims = self.store.claims.take(connection, self.owner, look, 5)
        self.counts["claimed"] += len(claims)
        if self.random.random() < 0.1:
            # The daemon dies, another rescues what it had, and it ends its jobs all the same.
            with self.store.begin() as connection:
                self.store.daemons.leave(connection, self.owner)
                self.store.daemons.rescue(connection, lease=60.0, poison_limit=2)
            self.enter()
        with self.store.begin() as connection:
            ends = [self.random.choice(ENDS) for _ in claims]
            back = [claim for claim, how in zip(claims, ends, strict=True) if how == "given back"]
            self.store.holdings.release(connection, back)
            done = [
                Completion(
                    id=claim.id,
                    owner=claim.owner,
                    claim_no=claim.claim_no,
                    state=how,
                    attempt=claim.attempt + 1,
                    started_at=claim.claimed_at,
                    delay=0.0,
                    once_key=claim.options["key"] if how == "succeeded" else None,
                )
                for claim, how in zip(claims, ends, strict=True)
                if how != "given back"
            ]
            accepted = self.store.completions.write(connection, done)
        self.counts["ended"] += len(accepted)
        self.counts["lost"] += len(done) - len(accepted)


def main(url: str, prefix: str, number: str, seconds: str) -> None:
    hammer = Hammer(Store(url, prefix=prefix), int(number))
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        for do in (hammer.add, hammer.add_batch, hammer.work):
            try:
                do()
            except StoreUnavailable as error:
                # MariaDB finds some of these in each other's way, and ends one; people try again.
                if "Deadlock" not in str(error):
                    raise
                hammer.counts["deadlock"] += 1
    print(json.dumps(hammer.counts))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])

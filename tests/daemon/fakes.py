"""Stand-ins for the store and the scheduler, for tests of single parts of the daemon."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import datetime, timezone

from pyramid_durable.exceptions import StoreUnavailable
from pyramid_durable.records import SUCCEEDED, Claim, Completion
from pyramid_durable.store import Look, Rescued

NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


def eventually(condition, *, timeout=5.0):
    """Wait until ``condition()`` is true; returns its value, or fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true after {timeout} s")
        pause.wait(0.002)


def claim(id="job", **changes):
    fields = {
        "id": id,
        "owner": "me",
        "claim_no": 1,
        "func": "pkg.mod:func",
        "payload": "[[],{}]",
        "codec": "json",
        "queue": "default",
        "name": None,
        "kind": "async",
        "priority": 5,
        "run_at": NOON,
        "claimed_at": NOON,
        "attempt": 0,
        "max_attempts": 1,
        "crashes": 0,
        "group": None,
        "schedule_id": None,
        "fire_at": None,
        "userdata": None,
        "errors": None,
        "started": True,
        "options": {},
    }
    return Claim(**{**fields, **changes})


def completion(id="job", **changes):
    fields = {"id": id, "owner": "me", "claim_no": 1, "state": SUCCEEDED, "attempt": 1}
    return Completion(**{**fields, "started_at": NOON, **changes})


def rescued(id="job", **changes):
    fields = {
        "id": id,
        "name": None,
        "func": "pkg.mod:func",
        "queue": "default",
        "kind": "async",
        "group": None,
        "schedule_id": None,
        "attempt": 0,
        "max_attempts": 1,
        "owner": "gone",
        "claim_no": 1,
        "crashes": 1,
        "started": True,
        "ended": False,
    }
    return Rescued(**{**fields, **changes})


class Clock:
    """A clock that tests turn."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class FakePrompt:
    """Claims without a look; on most databases that is not possible."""

    def __init__(self, store):
        self.possible = False
        self.broken = False
        self.takes = 0
        self._store = store

    def take(self, owner, queues):
        self.takes += 1
        if self._store.away:
            raise StoreUnavailable("the store is away")
        if self.broken:
            raise RuntimeError("cached plan must not change result type")
        return [self._store.due.pop(0)] if self._store.due else []


class FakeStore:
    """The verbs the daemon uses, over lists; ``away`` makes it unreachable."""

    def __init__(self):
        self.away = False
        self.due = []
        self.next_at = None
        self.released = []
        self.written = []
        self.batches = []
        self.look_count = 0
        self.takes = 0
        self.refuse = lambda batch: None
        self.lost = set()
        self.alive = set()
        self.rescues = []
        self.cancelled = set()
        self.claimed = set()
        self.started = []
        self.interrupted = []
        self.swept = 0
        self.prompt = FakePrompt(self)
        self.claims = self.looks = self.holdings = self.completions = self
        self.daemons = self.jobs = self.job_changes = self

    @contextlib.contextmanager
    def begin(self, purpose=None):
        if self.away:
            raise StoreUnavailable("the store is away")
        yield "connection"

    read = begin

    def look(self, connection, queues):
        self.look_count += 1
        due = (("default", 5),) if self.due else ()
        return Look(
            now=NOON,
            clock=NOON,
            answered=0.0,
            queues=tuple(queues),
            due=due,
            since={},
            next_at=self.next_at,
            schedules_due=False,
        )

    def number_due(self, connection, look, most):
        return min(len(self.due), most)

    def take(self, connection, owner, look, limit, *, starting=None, aside=None):
        self.takes += 1
        taken, self.due = self.due[:limit], self.due[limit:]
        return taken

    def release(self, connection, claims, *, delay=0.0):
        self.released.extend((each, delay) for each in claims)
        return len(claims)

    def works(self):
        return not self.away

    def interrupt(self, connection, claims, *, poison_limit):
        self.interrupted.extend(claims)
        return [rescued(each.id, claim_no=each.claim_no) for each in claims]

    def mark_started(self, connection, claims):
        self.started.extend(claims)
        return len(claims)

    def write(self, connection, completions):
        self.batches.append(len(completions))
        self.refuse(completions)
        self.written.extend(completions)
        return {(each.id, each.claim_no) for each in completions if each.id not in self.lost}

    def register(self, connection, info):
        self.alive.add(info.incarnation)

    def beat(self, connection, incarnation):
        return incarnation in self.alive

    def leave(self, connection, incarnation):
        self.alive.discard(incarnation)

    def rescue(self, connection, *, lease, poison_limit):
        rescued, self.rescues = self.rescues, []
        return rescued

    def owned(self, connection, owner):
        return set(self.claimed)

    def release_owned(self, connection, owner, fences):
        self.released.extend(fences)
        self.claimed -= set(fences)
        return len(fences)

    def cancel_requested(self, connection, ids):
        return self.cancelled & set(ids)

    def sweep(self, connection):
        self.swept += 1
        return []


class FakeScheduler:
    """What an executor needs of APScheduler."""

    def __init__(self):
        self.wakeups = 0
        self.events = []
        self._listeners = ["one"]

    def _create_lock(self):
        return threading.RLock()

    def _dispatch_event(self, event):
        self.events.append(event)

    def wakeup(self):
        self.wakeups += 1

"""The laws by the names under which the checker reports that one was broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

NOT_THERE = "a committed job is not there"
NOT_ENDED = "a committed job has not ended"
FORGOTTEN = "a job was left lying while all daemons were up"
WRONG_END = "a job ended as it must not"
ATTEMPTS = "a job used up other attempts than its own"
ROLLED = "something of a rolled-back transaction is there"
HALF = "of a transaction only a part is there"
NOBODY = "a job is there that nobody asked for"
NO_EFFECT = "a job that succeeded has no effect"
TWICE = "a job has more than one effect"
NOT_UNDONE = "a job that did not succeed left an effect"
TWO_JOBS = "one request led to two jobs"
FIRED_TWICE = "a schedule fired twice for one time"
SKIPPED = "a schedule skipped a time without an account"
OFF_TIME = "a schedule fired at a time that is none of its own"
OVERLAPPED = "a schedule's jobs overlapped"
STALLED = "a schedule has stopped"
LATE = "a rescue took too long"
CHARGED = "a job was charged a crash before which it had not started"
EXITED = "a process ended by itself"

LOSING = frozenset((NOT_THERE, NOT_ENDED, FORGOTTEN, NO_EFFECT, HALF, SKIPPED, STALLED))
DOUBLING = frozenset((TWICE, TWO_JOBS, FIRED_TWICE, NOT_UNDONE))
OTHERS = frozenset(
    (WRONG_END, ATTEMPTS, ROLLED, NOBODY, OFF_TIME, OVERLAPPED, LATE, CHARGED, EXITED)
)


@dataclass(frozen=True, kw_only=True)
class Violation:
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


Found = Iterator[Violation]

"""How many jobs a daemon claims ahead of its threads: pure arithmetic (daemon)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from .records import Claim

BUFFERED_SECONDS: Final = 0.1
"""How much work to claim ahead. A claim's round trip is a few milliseconds, on a busy database some
tens: with less the threads would run dry, with more a job waits here that is free elsewhere."""

LONGEST_WAIT: Final = 0.2
"""How long (s) a claimed job may wait for a thread before it is given back. Twice what is buffered
on purpose, so that an estimate which is a little off does not send jobs back and forth."""

LARGEST_BUFFER: Final = 2000
"""Claims waiting for a thread, at most; one claim brings no more than that and one for each idle thread.
Larger ones gain nothing, and it bounds what one transaction locks and what a crash leaves."""

FIRST_CLAIM: Final = 200
"""Claims, at most, where no thread has anything to do: they work while the next ones are claimed. A
full buffer takes the database tens of milliseconds."""

SHARES: Final = 2
"""A large claim takes one of so many shares of what is due, for there may be other daemons: what one
holds when nothing is left, the others cannot help with. Smaller shares cost more in claims, and in
counting, than they bring."""

FIRST_GUESS: Final = 0.005
"""Seconds a job takes, as long as none has been measured: it buffers 20 jobs a thread."""

REMEMBERED_JOBS: Final = 50
"""The weight (in jobs) of what was measured before against a new measurement, at most."""

GUESSED_JOBS: Final = 3
"""The weight (in jobs) of the first guess: one claim later it is forgotten, but not for one job."""

HUSH: Final = 5.0
"""Seconds for which nothing is claimed so that a suspect, a job that may kill its daemon, can have
this one for itself. Where other jobs take longer, they go first for as long, and it is tried anew."""

HUSH_LOOK: Final = 0.5
"""Seconds until a suspect is looked at again, while it is being made room for."""

HEAD_START: Final = 0.002
"""Seconds that a lone job, claimed without a look, has before its daemon looks what else there is: its
start would wait for the interpreter, and for the processor where there are few."""

FIRST_LOOK: Final = 0.001
LONGEST_LOOK: Final = 0.016
"""Seconds until a thread that stands by looks whether it is needed: soon at first, since a job may
have begun to wait for something, and less and less often while the others get on without it."""

BRISK: Final = 1000.0
"""Jobs a second. One thread that is faster than this is held up by Python itself, not by what its
jobs wait for, as far as a thread that stands by is woken late."""

PROMPT: Final = 0.001
"""Seconds by which a thread that stands by may be woken late, and nobody needed the interpreter."""

LONG_RUNNING: Final = 10.0
"""Seconds after which a job is not in a suspect's way, nor a suspect in that of others."""


class Takes(Protocol):
    """What a job store asks of the executor it claims for."""

    @property
    def waiting(self) -> int:
        """How many claims wait for a thread."""

    @property
    def starting(self) -> int:
        """How many more claims would start at once."""

    def room(self) -> int:
        """How many jobs to claim now."""

    def fed(self, *, full: bool) -> None:
        """Be told whether the claim filled the room."""

    def take_back(self) -> list[Claim]:
        """The claims that are to be given back."""

    def is_quiet(self) -> bool:
        """Whether a suspect can be run now."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The measured seconds a job takes on its thread, from one job's start to the next."""

    seconds: float = FIRST_GUESS
    weight: int = GUESSED_JOBS

    def after(self, jobs: int, seconds: float) -> Pace:
        """The pace after ``jobs`` more, which took ``seconds`` of their threads together."""
        if jobs <= 0:
            return self
        share = jobs / (jobs + self.weight)
        return Pace(
            seconds=self.seconds + share * (seconds / jobs - self.seconds),
            weight=min(self.weight + jobs, REMEMBERED_JOBS),
        )


def needs_another(jobs: int, *, seconds: float, late: float) -> bool:
    """Whether one more thread would start what waits sooner.

    The others have ended so many jobs in these seconds, and who watched them was woken ``late``
    seconds late. Python runs one thread at a time: where its time is used up, further threads only
    take it from each other, and have it spent on changing from one to the next.
    """
    return late < PROMPT or jobs < BRISK * seconds


def buffer_size(pace: Pace, *, moving: int) -> int:
    """How many claims to keep waiting, where ``moving`` threads are not held up by a slow job."""
    if moving <= 0:
        return 0
    return min(LARGEST_BUFFER, int(moving * BUFFERED_SECONDS / max(pace.seconds, 1e-6)))


def fair_room(room: int, due: int) -> int:
    """How many to claim of those that are ``due``: many while there are many, fewer towards their end.

    So daemons end together, with few claims (guided self-scheduling, Polychronopoulos and Kuck 1987).
    """
    return min(room, max(FIRST_CLAIM, due // SHARES))


def room(*, idle: int, busy: int, waiting: int, buffer: int) -> int:
    """How many jobs to claim now: for the idle threads, and to fill the buffer up.

    While half of the buffer is left, and more than the idle threads could take, there is none: a few
    hundred in one claim cost little more than a few. While nothing runs it is a first few hundred.
    """
    if waiting > max(idle, buffer // 2):
        return 0
    number = max(0, idle + buffer - waiting)
    return number if busy or waiting else min(number, max(idle, FIRST_CLAIM))

"""What every job does, and the proof that it did: when it started and how often, in shared memory.

Runs in the contenders' environments too: standard library only.
"""

from __future__ import annotations

import mmap
import os
import time
from functools import cache
from pathlib import Path

TIME = 8
"""Bytes of one start, a double."""


class Witness:
    """A file that all processes map: for each job's number its start, and the count of its runs."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.jobs = len(self._memory) // (TIME + 1)
        self.starts = memoryview(self._memory)[: self.jobs * TIME].cast("d")
        """Seconds since the epoch, by number; 0 where it has not run."""

    @classmethod
    def create(cls, path: Path, jobs: int) -> Witness:
        path.write_bytes(bytes(jobs * (TIME + 1)))
        return cls(path)

    def see(self, number: int) -> None:
        """Note that this job runs, now."""
        self.starts[number] = time.time()
        at = self.jobs * TIME + number
        self._memory[at] = min(self._memory[at] + 1, 255)

    def runs(self) -> bytes:
        """How often each job has run, a byte each."""
        return self._memory[self.jobs * TIME :]

    def ran(self) -> int:
        """How many jobs have run."""
        return self.jobs - self.runs().count(0)

    def doubled(self) -> int:
        """How many jobs have run more than once."""
        runs = self.runs()
        return self.jobs - runs.count(0) - runs.count(1)


@cache
def witness() -> Witness:
    """The one of this measurement."""
    return Witness(Path(os.environ["BENCH_WITNESS"]))


def work(number: int) -> None:
    """The one job that every contender runs."""
    witness().see(number)

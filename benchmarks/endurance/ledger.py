"""A book of what jobs did, kept by the jobs themselves: a line in a file for each run.

So that a job which ran twice, or never, is seen whatever the store says about it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pyramid_durable import current_job, job


class Entry(NamedTuple):
    """One run: the job, the moment it began (epoch), and how late that was, in seconds."""

    id: str
    at: float
    late: float


@cache
def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@job
def noted(path: str, seconds: float = 0.0) -> None:
    """Write a line, one write of its own, and work for so long."""
    now, me = time.time(), current_job()
    os.write(_opened(path), f"{me.id} {now} {now - me.run_at.timestamp()}\n".encode())
    if seconds:
        time.sleep(seconds)


def read(path: Path) -> list[Entry]:
    """What was written so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Entry(id, float(at), float(late)) for id, at, late in map(str.split, lines)]


def check(path: Path, ids: Collection[str]) -> list[Entry]:
    """See that each of these jobs has one line, and nobody else any; returns the lines."""
    entries = read(path)
    runs = Counter(entry.id for entry in entries)
    doubled = [id for id, number in runs.items() if number > 1]
    missing = set(ids) - runs.keys()
    assert not doubled, f"{len(doubled)} jobs ran more than once, such as {doubled[0]}"
    assert not missing, f"{len(missing)} jobs did not run, such as {min(missing)}"
    assert len(runs) == len(set(ids)) == len(ids), (len(runs), len(ids))
    return entries

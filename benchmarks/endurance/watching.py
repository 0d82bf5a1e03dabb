"""What a process uses, as Linux tells it in /proc, and whether a row of figures grows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median

from ..stand import Stand

CONNECTIONS = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ),
    "mysql": (
        "SELECT count(*) FROM information_schema.processlist"
        " WHERE db = database() AND id <> connection_id()"
    ),
}


def memory(pid: int) -> float:
    """What the process has in memory (RSS), in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """What the process has used of the processors so far, its own and the system's time."""
    # The name stands in brackets and may have spaces in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    """The number of the process's open files and sockets."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connections(made: Stand) -> int:
    """The number of connections to the stand's database, but for the one that asks."""
    question = CONNECTIONS.get(made.engine.dialect.name)
    return int(made.ask(question)[0]) if question else 0


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How a row of figures went: least squares over all, and the medians of its ends."""

    slope: float
    """Of the figure, for each unit of what it was taken over."""

    start: float
    end: float
    rise: float
    """What the slope amounts to from the first to the last."""

    @property
    def share(self) -> float:
        """The rise, as a share of the start."""
        return self.rise / self.start if self.start else 0.0


def growth(over: Sequence[float], figures: Sequence[float]) -> Growth:
    """Tell how figures went over time, or over jobs; the ends are a fifth of them each."""
    slope = linear_regression(over, figures).slope
    fifth = max(1, len(figures) // 5)
    return Growth(
        slope=slope,
        start=median(figures[:fifth]),
        end=median(figures[-fifth:]),
        rise=slope * (over[-1] - over[0]),
    )

"""What a run found, as JSON and back: results, versions, and the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from .rounds import Result, Results, Run


@dataclass(frozen=True)
class Report:
    results: Results
    versions: Mapping[str, Mapping[str, str]]
    machine: Mapping[str, str]
    rounds: int
    jobs: int
    most_seconds: float
    note: str = ""
    """What else has to be known of the circumstances."""


def report_of(run: Run, rounds: int) -> Report:
    machine = {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }
    return Report(run.results, run.versions, machine, rounds, run.jobs, run.most_seconds)


def write(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Report:
    found = json.loads(path.read_text())
    found["results"] = {
        work: {id: Result(**result) for id, result in by_contender.items()}
        for work, by_contender in found["results"].items()
    }
    return Report(**found)


@dataclass(frozen=True)
class Figure:
    """One figure over the rounds."""

    median: float
    least: float
    most: float


def figure_of(result: Result, name: str) -> Figure | None:
    """None when no round succeeded, or not all did: a contender that failed once has no figure."""
    if not result.rounds or result.failures:
        return None
    values = [figures[name] for figures in result.rounds]
    return Figure(median(values), min(values), max(values))

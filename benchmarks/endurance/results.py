"""What a measure found: figures of each round, and goals that were met or missed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for; None is the measure's own default."""

    store: str = "postgresql"
    rows: int = 1_000_000
    jobs: int | None = None
    rounds: int = 3
    seconds: float | None = None
    rate: float | None = None
    idle: float = 30.0
    daemons: int | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What was to be reached, what was found, and whether that is enough."""

    goal: str
    found: str
    met: bool


@dataclass(kw_only=True)
class Result:
    """One measure on one store. Each figure's name ends with its unit; a value for each round."""

    measure: str
    place: str
    settings: dict[str, Any]
    figures: dict[str, list[float]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def add(self, figures: Mapping[str, float]) -> None:
        """Add the figures of one more round."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def at_most(self, what: str, limit: float, found: float, unit: str = "") -> None:
        """Note a goal that something stays below a limit."""
        text = f"{what} at most {limit:,g}{unit}"
        self.goals.append(Goal(goal=text, found=f"{found:,.3g}{unit}", met=found <= limit))

    def at_least(self, what: str, limit: float, found: float, unit: str = "") -> None:
        """Note a goal that something reaches a limit."""
        text = f"{what} at least {limit:,g}{unit}"
        self.goals.append(Goal(goal=text, found=f"{found:,.3g}{unit}", met=found >= limit))

    def ratio(self, above: str, below: str) -> float:
        """The median of a figure's rounds over that of another one, round by round."""
        pairs = zip(self.figures[above], self.figures[below], strict=True)
        return median(one / other for one, other in pairs)


def middle(values: Iterable[float]) -> str:
    """A median with the least and the greatest."""
    found = sorted(values)
    text = f"{shown(median(found)):>12}"
    return text if len(found) == 1 else f"{text}   ({shown(found[0])} - {shown(found[-1])})"


def shown(value: float) -> str:
    """A figure as people read it: two digits after the point only where they say something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}".rstrip("0").rstrip(".")


def print_result(result: Result) -> None:
    """Print what was found."""
    told = ", ".join(f"{name} {value:,}" for name, value in result.settings.items())
    print(f"\n{result.measure} on {result.place} ({told})")
    for name, values in result.figures.items():
        print(f"  {name:58} {middle(values)}")
    for goal in result.goals:
        print(f"  {'met   ' if goal.met else 'MISSED'} {goal.goal}: {goal.found}")


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write what was found as JSON."""
    document = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "measures": [asdict(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def read_results(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Read what ``write_results`` wrote: about the machine, and what was found."""
    document = json.loads(path.read_text())
    results = [
        Result(**{**one, "goals": [Goal(**goal) for goal in one["goals"]]})
        for one in document.pop("measures")
    ]
    return document, results

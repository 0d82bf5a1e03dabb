"""Writes the figures into docs/endurance.rst (python -m benchmarks.endurance.page FILE.json...)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from ..stand import ROOT
from .results import Result, read_results, shown

PAGE = ROOT / "docs" / "endurance.rst"

BELOW = ".. Below this line: written by ``make endurance-page`` from the measures' JSON.\n"

TABLE = ".. list-table::\n    :header-rows: 1\n    :widths: 60 40\n"


def tables(files: Iterable[Path]) -> str:
    """What the files say, as reStructuredText; of a measure on one place, the last one counts."""
    found: dict[tuple[str, str], tuple[dict[str, Any], Result]] = {}
    for file in files:
        machine, results = read_results(file)
        found |= {(one.measure, one.place): (machine, one) for one in results}
    return "\n".join(_section(machine, result) for machine, result in found.values())


def _section(machine: dict[str, Any], result: Result) -> str:
    title = f"{result.measure}: {result.place}"
    told = ", ".join(f"{name} {value:,}" for name, value in result.settings.items())
    where = f"{machine['cores']} cores, {machine['machine']}, Python {machine['python']}"
    rows = [("figure", "median (least – most)")]
    rows += [(name, _spread(values)) for name, values in result.figures.items()]
    goals = [("goal", "found")]
    goals += [
        (goal.goal, f"{goal.found}, {'met' if goal.met else '**missed**'}") for goal in result.goals
    ]
    parts = [title, "~" * len(title), "", f"{told}; {where}.", "", TABLE, *map(_row, rows)]
    return "\n".join([*parts, "", TABLE, *map(_row, goals), ""])


def _row(cells: tuple[str, str]) -> str:
    return "    * - {}\n      - {}".format(*cells)


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return shown(values[0])
    return f"{shown(median(values))} ({shown(min(values))} – {shown(max(values))})"


def main() -> int:
    files = [Path(name) for name in sys.argv[1:]]
    if not files:
        print("usage: python -m benchmarks.endurance.page FILE.json...", file=sys.stderr)
        return 2
    kept = PAGE.read_text().partition(BELOW)[0]
    PAGE.write_text(f"{kept}{BELOW}\n{tables(files)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

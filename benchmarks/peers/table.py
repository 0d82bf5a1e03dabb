"""A run's results as text: a table for each figure of each work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .contender import Contender
from .report import Figure, Report, figure_of
from .works import Work


def lines(report: Report, works: Sequence[Work], contenders: Sequence[Contender]) -> Iterator[str]:
    """Medians, least and most, and the ratio to ours, which is the first of the contenders."""
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    yield f"{machine}; {report.rounds} rounds: median (least - most), ratio of medians to ours"
    if report.note:
        yield report.note
    for work in works:
        found = report.results.get(work.id, {})
        shown = [contender for contender in contenders if contender.id in found]
        if not shown:
            continue
        for name, unit in work.figures.items():
            yield f"\n{work.id}: {work.about}, {unit}"
            ours = figure_of(found["ours"], name) if "ours" in found else None
            for contender in shown:
                result = found[contender.id]
                figure = figure_of(result, name)
                label = f"  {contender.title + ', ' + contender.place:46}"
                if figure is None:
                    yield f"{label}  {result.failures[0]}"
                else:
                    yield f"{label} {cell(figure):36} {ratio(figure, ours):>7}  {result.jobs:,} jobs"
    yield "\nversions"
    for contender in contenders:
        if contender.id in report.versions:
            yield f"  {contender.id:20} {versions(report, contender)}"


def versions(report: Report, contender: Contender) -> str:
    """What was installed, in words; empty where it was not run."""
    found = report.versions.get(contender.id, {})
    return ", ".join(f"{name} {version}" for name, version in found.items())


def cell(figure: Figure) -> str:
    return f"{number(figure.median):>9} ({number(figure.least)} - {number(figure.most)})"


def ratio(figure: Figure, ours: Figure | None) -> str:
    return "" if ours is None else f"{figure.median / ours.median:.2f}"


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"

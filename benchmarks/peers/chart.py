"""A run's results as an SVG: bars on a logarithmic scale, ours marked, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .contender import Contender
from .report import Figure, Report, figure_of
from .table import number
from .works import Work

WIDTH = 900
LEFT = 310
"""Where bars begin, in pixels: the names stand before it."""
RIGHT = 740
ROW = 22
BAR = 13
GAP = 44

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.note, .tick { fill: #6e7781; font-size: 11px }
.ours { font-weight: 600 }
.grid { stroke: #d0d7de }
.spread { stroke: #24292f; stroke-width: 1.5 }
rect { fill: #a8b3bf }
rect.ours { fill: #1f7a4d }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note, .tick { fill: #8b949e }
  .grid { stroke: #30363d }
  .spread { stroke: #e6edf3 }
  rect { fill: #57606a }
  rect.ours { fill: #3fb27f }
}
"""


@dataclass(frozen=True)
class Bar:
    """One contender in one panel; without a figure it says why."""

    label: str
    ours: bool
    figure: Figure | None
    reason: str


def chart(report: Report, works: Sequence[Work], contenders: Sequence[Contender]) -> str:
    """The whole picture: a panel for each figure that more than one library has."""
    parts: list[str] = []
    top = 10
    for work in works:
        found = report.results.get(work.id, {})
        shown = [contender for contender in contenders if contender.id in found]
        if len({contender.library for contender in shown}) < 2:
            continue
        for name, unit in work.figures.items():
            bars = [
                Bar(
                    f"{contender.title}, {contender.place}",
                    contender.library == "ours",
                    figure_of(found[contender.id], name),
                    (found[contender.id].failures or [""])[0],
                )
                for contender in shown
            ]
            better = "more is better" if work.by_rate else "less is better"
            parts += panel(f"{work.about}: {unit}", better, in_order(bars, work.by_rate), top)
            top += GAP + ROW * len(bars) + 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" '
        f'height="{top}" role="img">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def in_order(bars: list[Bar], descending: bool) -> list[Bar]:
    """The best first, those without a figure last."""
    sign = -1 if descending else 1
    return sorted(bars, key=lambda bar: sign * bar.figure.median if bar.figure else math.inf)


def panel(title: str, better: str, bars: list[Bar], top: int) -> Iterator[str]:
    """One figure's bars, from ``top`` on."""
    values = [value for bar in bars if bar.figure for value in (bar.figure.least, bar.figure.most)]
    low = math.floor(math.log10(min(values, default=1)))
    high = max(math.ceil(math.log10(max(values, default=10))), low + 1)

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return LEFT + (RIGHT - LEFT) * max(share, 0.004)

    yield f'<text class="title" x="10" y="{top + 16}">{escape(title)}</text>'
    yield f'<text class="note" x="{WIDTH - 10}" y="{top + 16}" text-anchor="end">{better}</text>'
    first, last = top + 28, top + 34 + ROW * len(bars)
    for power in range(low, high + 1):
        at = f"{x(10.0**power):.1f}"
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{first}" y2="{last}"/>'
        tick = f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
        yield f'<text class="tick" x="{at}" y="{last + 14}" text-anchor="middle">{tick}</text>'
    for position, bar in enumerate(bars):
        yield from row(bar, first + 6 + ROW * position, x)


def row(bar: Bar, top: float, x: Callable[[float], float]) -> Iterator[str]:
    """A name, a bar, a line for the spread and the median as a number."""
    of = ' class="ours"' if bar.ours else ""
    base = top + BAR - 2
    yield f'<text{of} x="{LEFT - 10}" y="{base}" text-anchor="end">{escape(bar.label)}</text>'
    if bar.figure is None:
        yield f'<text class="note" x="{LEFT + 6}" y="{base}">{escape(bar.reason)}</text>'
        return
    end, least, most = (x(getattr(bar.figure, name)) for name in ("median", "least", "most"))
    middle = top + BAR / 2
    yield f'<rect{of} x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{BAR}"/>'
    yield f'<line class="spread" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>'
    yield f'<text{of} x="{max(end, most) + 8:.1f}" y="{base}">{number(bar.figure.median)}</text>'

"""A run's results as docs/peers.rst, with its chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill

from ..stand import ROOT
from .chart import chart
from .contender import Contender
from .report import Report, figure_of
from .roster import every_contender
from .table import number, ratio, versions
from .works import WORKS, Work

PAGE = ROOT / "docs" / "peers.rst"
FIGURES = ROOT / "docs" / "figures" / "peers.json"
CHART = FIGURES.with_suffix(".svg")

INTRODUCTION = """\
.. Written by benchmarks/peers/page.py from figures/peers.json. To measure anew: make bench-peers ARGS=--docs.

Beside its peers
================

The same empty job through other libraries, each set up as its own documentation advises for many short
jobs, all in one run on one machine: in every round, at every work, one after the other, in an order that
moves on by one each round. Each on an empty database or queue of its own, PostgreSQL with ``fsync`` and
``synchronous_commit`` as it comes.

.. code-block:: console

    $ make bench-peers                                         # all of it; hours where cores are few
    $ make bench-peers ARGS="--only ours,pgqueuer --works drain --rounds 2"

A job notes its start and counts its runs in memory that all processes share. A figure counts only when every
job has run, none twice, and the contender's own record, where it keeps one, shows all of them ended. What
failed is shown as failed, also when only one of the rounds did. Medians, the least and the most of the rounds in
brackets; the ratio is to the first row.

Another contender is another folder in ``benchmarks/peers/contenders/``; ``benchmarks/peers/contender.py`` says
what belongs in it.
"""

IMAGE = """\
.. image:: figures/peers.svg
    :alt: Bars: the medians of the tables below
"""

CAVEATS = """\

What the figures do not say
---------------------------

- An empty job is the worst case for whoever does more for each job, and the only thing all of them can do
  alike. Each of ours has a Pyramid request and a transaction; most of the others call a function.
- Where "keeps" says *nothing*, a job that has ended is gone, and nothing tells how it ended; how many jobs
  a crash of the broker costs depends on the broker. Redis as it comes writes to disk every minute or so, and
  publishing to RabbitMQ is not confirmed by default in Celery and dramatiq.
- Workers that take jobs and write ends in batches may, after a crash, run a batch's jobs again. So
  may ours, and PgQueuer's; a job of ours that writes to its store's database through ``request.dbsession`` does
  so exactly once.
- A latency below the time of an ``fsync`` is that of a job nobody has written down.
- Two worker processes on few cores, which the databases and brokers share; more cores change the
  ratios.
"""


def documents(report: Report) -> dict[Path, str]:
    """What docs/ has of a run, besides its figures."""
    contenders = every_contender()
    return {PAGE: page(report, WORKS, contenders), CHART: chart(report, WORKS, contenders)}


def page(report: Report, works: Sequence[Work], contenders: Sequence[Contender]) -> str:
    """The page's text."""
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    measured = fill(
        f"Measured on {machine}; {report.rounds} round{'s' if report.rounds != 1 else ''}. A "
        f"contender that would have taken longer than about {report.most_seconds:.0f} seconds for a work "
        f"was given fewer jobs; the column says how many. {report.note}",
        100,
    )
    parts = [INTRODUCTION, f"\n{measured}\n\n{IMAGE}"]
    for work in works:
        found = report.results.get(work.id, {})
        shown = [contender for contender in contenders if contender.id in found]
        if shown:
            parts += ["\n\n", heading(f"{work.id.capitalize()}: {work.about}")]
            parts += [f"{work.measure.__doc__}\n\n", *table(report, work, shown)]
    parts.append("\n" + CAVEATS)
    parts += ["\n\n", heading("How each is set up")]
    parts += [text for contender in contenders for text in set_up(report, contender)]
    return "".join(parts)


def heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}\n\n"


def table(report: Report, work: Work, shown: Sequence[Contender]) -> Iterator[str]:
    """One work's figures."""
    found = report.results[work.id]
    yield ".. list-table::\n    :header-rows: 1\n\n"
    heads = [head for unit in work.figures.values() for head in (unit, "ratio")]
    yield cells(["", "", *heads, "jobs", "keeps"])
    ours = found.get("ours")
    for contender in shown:
        result = found[contender.id]
        values = []
        for name in work.figures:
            figure = figure_of(result, name)
            if figure is None:
                values += [result.failures[0], ""]
            else:
                base = figure_of(ours, name) if ours else None
                spread = f"({number(figure.least)} – {number(figure.most)})"
                values += [f"{number(figure.median)} {spread}", ratio(figure, base)]
        jobs = f"{result.jobs:,}"
        yield cells([contender.title, contender.place, *values, jobs, contender.keeps])


def cells(texts: Sequence[str]) -> str:
    """One row of a list table."""
    first, *others = texts
    lines = [f"    * - {first}", *(f"      - {text}" for text in others)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def set_up(report: Report, contender: Contender) -> Iterator[str]:
    """One contender's versions and configuration."""
    shown = versions(report, contender) or "not run"
    yield f"**{contender.title}, {contender.place}**: {shown}\n\n"
    yield "".join(f"- {text}\n" for text in contender.configured) + "\n"

"""Writes features.rst: what five earlier systems could do, row by row, and the tests that show it.

A test in tests/features/ says by its name which row it shows: test_a3_cancel_by_id is one of A3.
Its name, and the first line of its docstring where it has one, go into the table. After a change
there: ``make features``, or ``python docs/feature_table.py``.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "features.rst"
TESTS = ROOT / "tests" / "features"

WAITING = {
    "B8": "Waits for the dashboard, which is not built yet.",
    "E10": "Waits for the dashboard, which is not built yet.",
}
"""Rows that cannot have a test so far."""

ELSEWHERE = {"D10": ["tests/processes/test_uwsgi.py"]}
"""Files with tests that show a row in depth."""

SYSTEMS = {
    "A": (
        "pyramid_scheduler",
        [
            "including it, in code or by ``pyramid.includes``; ``registry.scheduler``",
            "async, date, interval and cron jobs, by epoch or datetime; ids; options",
            "cancelling by id, and by queue; an unknown id is no error",
            "combined mode, which never starts under scripts; here with several processes too",
            "several queues; daemons restricted to some; several daemons on one",
            "events in a reliable order; listeners with arguments, and their removal",
            "``--message``, ``print-jobs``, ``--reload``, ``--restart``, ``--app-name``; a gentle SIGTERM",
            (
                "delegator, housekeeping and what is appended to it, misfire grace time, the broker's "
                "serializer and compressor, a job store class of one's own"
            ),
            "jobs run with the application's registry and in a transaction",
            (
                "its wishes: run only after the commit; cron by UTC; no delivered messages left behind; "
                "lifecycle events; callables checked at the call; nothing dropped silently; the "
                "function's name as a column"
            ),
        ],
    ),
    "B": (
        "umeboshi",
        [
            (
                "routines with constructor arguments, ``check_validity`` and ``run``; "
                "``schedule(datetime_scheduled, args, silent)``; a missing name or ``run`` is an error"
            ),
            "days and months ahead, in the database",
            "an event's statuses: created, successful, failed, cancelled, broken",
            "behaviors, among equal events; ``DuplicateEvent``, or silently none",
            "task groups: a behavior over several routines",
            "a retry from inside, at another time",
            "a serializer of one's own; a wrong one is an error at start",
            "the admin's pages",
            "no two workers process one event",
        ],
    ),
    "C": (
        "sisy",
        [
            "cron strings with 5 or 6 fields, ranges, steps, lists, ``l``, names, Sunday as 0 and 7",
            (
                "functions, class and static methods, methods of model objects, dotted names; clear "
                "errors for all else"
            ),
            "start and end; after its end a task is retired",
            "iterations; run once, now or later",
            "userdata that lasts from run to run",
            "enabled or not; overlap or not; at once or as scheduled; a label",
            "the task reaches its function",
            "tasks declared by the application, by name",
        ],
    ),
    "D": (
        "uwsgi_tasks",
        [
            "``@task`` with executors auto, mule, spooler and runtime; at once where there is no other",
            "``at``, ``priority`` and ``working_dir``",
            "return codes, retry count and timeout, ``RetryTaskException``",
            "arguments over 64 KB",
            "timers, with iterations, lazy ones, ``target``",
            "cron decorators in uWSGI's numbers, lazy ones",
            "the task from inside: its retries, its buffer, itself again",
            "``add_setup`` before the call",
            "crashes and restarts; other hosts",
            "under uWSGI",
            "functions in ``__main__``, and moved ones",
        ],
    ),
    "E": (
        "django-future",
        [
            "``schedule_job(when, callable)``: datetime, timedelta, ``'5d'``, ``'3h'``, ``'10m'``, ``'2w'``",
            "expiry relative to the scheduled time; an expired job is never run, and marked",
            "args and kwargs; a content object, first or by the name of its method",
            "the job as a parameter; ``reschedule`` copies what is not given",
            "``runscheduledjobs``: run what is due and leave; ``-d``, ``-i``, or stop with the traceback",
            "``run_jobs`` as of a given time",
            "each job in its own transaction; traceback and return value are kept",
            "sticky jobs: one instance is always queued",
            "its caveats: a second runner runs jobs twice; one error stops the runner",
            "the admin's pages",
        ],
    ),
}
"""By the letter of its rows: the system, and what it could do, in the order of the rows."""

INTRODUCTION = """\
.. Written by feature_table.py from the names of the tests. To change it: make features.

What earlier systems could do
=============================

Row by row, with the tests that show it here. :doc:`coming-from` has the new spellings. Tests beside the
modules go deeper than these, which take the view of somebody who comes from there.
"""


def rows() -> dict[str, str]:
    """All rows with their titles."""
    return {
        f"{letter}{number}": title
        for letter, (_, titles) in SYSTEMS.items()
        for number, title in enumerate(titles, 1)
    }


def shown_by_row(folder: Path = TESTS) -> dict[str, list[str]]:
    """What shows each row: a line for each test. Raises SystemExit for a row that does not exist."""
    found: dict[str, list[str]] = {row: [] for row in rows()}
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            named = re.match(r"test_([a-z]\d+)_", node.name)
            row = named[1].upper() if named else None
            if row not in found:
                raise SystemExit(
                    f"{path}: {node.name} shows row {row or 'nothing'}; expected test_<row>_<what>, "
                    "with a row of docs/feature_table.py, as in test_a3_cancel_by_id"
                )
            about = (ast.get_docstring(node) or "").partition("\n")[0]
            found[row].append(f"``{node.name}``" + (f": {about}" if about else ""))
    for row, paths in ELSEWHERE.items():
        found[row] += [f"``{path}``" for path in paths]
    return found


def make_page(folder: Path = TESTS) -> str:
    """The text of features.rst."""
    found = shown_by_row(folder)
    parts = [INTRODUCTION]
    for letter, (system, titles) in SYSTEMS.items():
        numbers = [f"{letter}{number}" for number in range(1, len(titles) + 1)]
        parts.append(f"\n\n{system}\n{'-' * len(system)}\n\n")
        if (files := sorted(folder.glob(f"test_{letter.lower()}_*.py"))) != []:
            names = ", ".join(f"``tests/features/{file.name}``" for file in files)
            parts.append(f"Tests named here are in {names}.\n\n")
        parts.append(".. list-table::\n    :header-rows: 1\n    :widths: 6 34 60\n\n")
        parts.append("    * - row\n      - what it could do\n      - shown by\n")
        parts += [
            f"    * - {row}\n{_cell([title])}{_cell(_shown_by(row, found[row]))}"
            for row, title in zip(numbers, titles, strict=True)
        ]
    return "".join(parts)


def _shown_by(row: str, tests: list[str]) -> list[str]:
    if tests:
        return tests
    return [WAITING.get(row, "No test of its own yet.")]


def _cell(lines: list[str]) -> str:
    """A table's cell: a text, or a list of several."""
    if len(lines) > 1:
        lines = [f"- {line}" for line in lines]
    hang = "  " if len(lines) > 1 else ""
    text = "\n".join(
        textwrap.fill(line, 100, subsequent_indent=hang, break_on_hyphens=False) for line in lines
    )
    return "      - " + textwrap.indent(text, " " * 8).lstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(make_page())

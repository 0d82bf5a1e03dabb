"""Reading, after a run, what is there: in plain SQL, without the package's own code."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from .application import SCHEDULES
from .book import read_books
from .evidence import Evidence, Fault, Job, Limits, Loss, Schedule

JOBS = """
SELECT id, name, state, attempt, crashes, errors, schedule_id, fire_at, created_at, finished_at,
       options
FROM durable_job
"""

MANY_AT_A_TIME = frozenset(("each",))
"""Schedules whose jobs may overlap."""


def read_schedules(engine: Engine) -> tuple[Schedule, ...]:
    """The schedules, as they stand when nobody fires them any more."""
    question = "SELECT id, created_at, due_at FROM durable_schedule"
    with engine.connect() as connection:
        return tuple(
            Schedule(
                id=row.id,
                period=SCHEDULES[row.id],
                created_at=_seconds(row.created_at) or 0.0,
                next_at=_seconds(row.due_at) or 0.0,
                alone=row.id not in MANY_AT_A_TIME,
            )
            for row in connection.execute(text(question))
        )


def end_schedules(engine: Engine) -> None:
    """Let no schedule fire any more."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE durable_schedule SET due_at = NULL, next_run_at = NULL"))


def read_evidence(
    engine: Engine,
    folder: Path,
    *,
    schedules: tuple[Schedule, ...],
    limits: Limits,
    losses: list[Loss],
    faults: list[Fault],
    left: list[str],
    dark: list[tuple[float, float]],
    exits: list[str],
    read_at: float,
) -> Evidence:
    with engine.connect() as connection:
        jobs = [_job(row) for row in connection.execute(text(JOBS))]
        effects = list(connection.execute(text("SELECT job FROM effect")).scalars())
        asked = connection.execute(text("SELECT asked_key, job FROM asked")).all()
    return Evidence(
        jobs=tuple(jobs),
        effects=tuple(effects),
        outside=_lines(folder / "outside.txt"),
        starts=_lines(folder / "starts.txt"),
        entries=tuple(read_books(folder)),
        asked=dict(map(tuple, asked)),
        schedules=schedules,
        losses=tuple(losses),
        faults=tuple(faults),
        limits=limits,
        left=tuple(left),
        dark=tuple(dark),
        exits=tuple(exits),
        read_at=read_at,
    )


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().split()) if path.exists() else ()


def _job(row: Any) -> Job:
    passed = json.loads(row.options or "{}").get("passed")
    return Job(
        id=row.id,
        key=row.name or "",
        state=row.state,
        attempt=row.attempt,
        crashes=row.crashes,
        error="\n".join(json.loads(row.errors or "[]")),
        schedule=row.schedule_id or (row.name if passed else None),
        fire_at=_seconds(row.fire_at),
        created_at=_seconds(row.created_at) or 0.0,
        finished_at=_seconds(row.finished_at),
        passed=passed and (passed["number"], _iso(passed["first"]), _iso(passed["last"])),
    )


def _seconds(value: Any) -> float | None:
    """A time of any of the databases as seconds since 1970; without a zone it is UTC."""
    if value is None:
        return None
    assert isinstance(value, datetime)
    aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
    return aware.timestamp()


def _iso(value: str) -> float:
    return datetime.fromisoformat(value).timestamp()

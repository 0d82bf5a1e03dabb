"""Between rows of the tables and the values of records.py (web and daemon)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Row, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from ..behaviors import BINDS_WAITING, KEY_OPTION
from ..fingerprints import declaration_of
from ..records import (
    NO_OPTIONS,
    SCHEDULED,
    Claim,
    JobSpec,
    Progress,
    ScheduleSpec,
    StoredJob,
    StoredSchedule,
)

_WORK = ("name", "func", "payload", "codec", "queue", "priority", "max_attempts", "userdata")


CLAIM_NAMES = {"group": "group_name"}
"""The fields of a Claim whose columns are called otherwise: the word is SQL's own."""


_write = json.JSONEncoder(separators=(",", ":")).encode


def dump_options(options: Mapping[str, Any]) -> str | None:
    """Write the rarely used options of a job as JSON; most jobs have none."""
    return _write(dict(options)) if options else None


def load_options(text: str | None) -> Mapping[str, Any]:
    """Read what dump_options wrote."""
    return json.loads(text) if text else NO_OPTIONS


def work_values(spec: JobSpec) -> dict[str, Any]:
    """Return the columns that say what to run."""
    return {
        "name": spec.name,
        "func": spec.func,
        "payload": spec.payload,
        "codec": spec.codec,
        "queue": spec.queue,
        "priority": spec.priority,
        "max_attempts": spec.max_attempts,
        "group_name": spec.group,
        "options": dump_options(spec.options),
        "userdata": spec.userdata,
    }


def job_values(spec: JobSpec) -> dict[str, Any]:
    """Return a new job's columns, but for its times."""
    return {
        **work_values(spec),
        "id": spec.id,
        "kind": spec.kind,
        "schedule_id": spec.schedule_id,
        "fire_at": spec.fire_at,
        "overlap_key": spec.schedule_id,
        "waiting_key": spec.waiting_key,
        "equal_key": spec.options.get(KEY_OPTION),
    }


def ended_values(state: str, now: Any) -> dict[str, Any]:
    """Return the columns of a job that ends without having run: it binds nothing any more."""
    return {
        "state": state,
        "finished_at": now,
        "due_at": None,
        "overlap_key": None,
        "waiting_key": None,
        "equal_key": None,
    }


def with_reason(errors: str | None, reason: str) -> str:
    """Return the stored list of a job's errors with one more: why it ended."""
    return json.dumps([*json.loads(errors or "[]"), reason])


def schedule_values(spec: ScheduleSpec) -> dict[str, Any]:
    """Return a schedule's columns, but for created_at and what its running changes."""
    return {
        **work_values(spec.job),
        "id": spec.id,
        "kind": spec.kind,
        "trigger_json": json.dumps(dict(spec.trigger), sort_keys=True),
        "timezone": spec.timezone,
        "next_run_at": spec.next_run_at,
        "due_at": spec.next_run_at,
        "start_date": spec.start_date,
        "end_date": spec.end_date,
        "iterations_left": spec.iterations,
        "coalesce_missed": spec.coalesce,
        "max_instances": spec.max_instances,
        "declared": spec.declared,
        "generation": spec.generation,
        "declaration": declaration_of(spec) if spec.declared else None,
    }


class Options(TypeDecorator[Mapping[str, Any]]):
    """The column of options, read as what ``dump_options`` wrote."""

    impl = Text
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return load_options


def to_claims(rows: Iterable[Sequence[Any]], shared: Sequence[Any] = ()) -> list[Claim]:
    """Make the values a daemon works with from the rows it has just claimed, in the fields' order.

    ``shared`` are the last fields, where they are the same in all: the database need not say it of
    each. The columns' types have read everything: this is on the way of every job.
    """
    return [_new_claim((*row, *shared)) for row in rows]


_new_claim = partial(tuple.__new__, Claim)
"""As ``Claim._make``, without a look at the number of fields."""


def to_stored_job(row: Row[Any]) -> StoredJob:
    """Make the value people's questions are answered with; the row has the joined columns too."""
    progress = None
    if row.progress_done is not None:
        progress = Progress(
            done=row.progress_done, total=row.progress_total, message=row.progress_message
        )
    return StoredJob(
        id=row.id,
        name=row.name,
        func=row.func,
        payload=row.payload,
        codec=row.codec,
        queue=row.queue,
        priority=row.priority,
        kind=row.kind,
        state=row.state,
        run_at=row.run_at,
        due_at=row.due_at,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        claim_no=row.claim_no,
        crashes=row.crashes,
        owner=row.owner,
        daemon=row.daemon_label,
        group=row.group_name,
        schedule_id=row.schedule_id,
        fire_at=row.fire_at,
        options=load_options(row.options),
        result=row.result,
        errors=row.errors,
        userdata=row.userdata,
        progress=progress,
        cancel_requested=row.cancel_requested_at is not None,
        paused=row.state == SCHEDULED and row.due_at is None,
    )


def to_job_spec(row: Row[Any]) -> JobSpec:
    """Make what would put a job's row into the store anew, to be changed."""
    return JobSpec(
        **{name: getattr(row, name) for name in _WORK},
        id=row.id,
        kind=row.kind,
        run_at=row.run_at,
        group=row.group_name,
        options=load_options(row.options),
        schedule_id=row.schedule_id,
        fire_at=row.fire_at,
        waiting_key=row.waiting_key,
    )


def to_schedule_spec(row: Row[Any]) -> ScheduleSpec:
    """Make what would put a schedule's row into the store anew, to be changed."""
    schedule = to_stored_schedule(row)
    return ScheduleSpec(
        id=schedule.id,
        job=schedule.job,
        kind=schedule.kind,
        trigger=schedule.trigger,
        next_run_at=schedule.next_run_at,
        timezone=schedule.timezone,
        start_date=schedule.start_date,
        end_date=schedule.end_date,
        iterations=schedule.iterations_left,
        coalesce=schedule.coalesce,
        max_instances=schedule.max_instances,
    )


def to_stored_schedule(row: Row[Any]) -> StoredSchedule:
    """Make a schedule's value; its ``job`` has the schedule's id and no time."""
    options = load_options(row.options)
    is_unique = options.get("behavior") in BINDS_WAITING
    job = JobSpec(
        **{name: getattr(row, name) for name in _WORK},
        id=row.id,
        kind=row.kind,
        group=row.group_name,
        options=options,
        schedule_id=row.id,
        waiting_key=options.get(KEY_OPTION) if is_unique else None,
    )
    return StoredSchedule(
        id=row.id,
        kind=row.kind,
        job=job,
        trigger=json.loads(row.trigger_json),
        timezone=row.timezone,
        next_run_at=row.next_run_at,
        last_run_at=row.last_run_at,
        paused=row.paused,
        iterations_left=row.iterations_left,
        start_date=row.start_date,
        end_date=row.end_date,
        coalesce=row.coalesce_missed,
        max_instances=row.max_instances,
        declared=row.declared,
        generation=row.generation,
    )

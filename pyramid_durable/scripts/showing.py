"""The commands of pjobs that show: jobs, schedules, queues, daemons, figures, and the export."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, Final

from ..exceptions import InvalidQueue
from ..records import STATES, JobInfo
from .common import CommandFailed

PAGE: Final = 500
"""Jobs that are exported at a time: few enough to hold in memory with their arguments."""


def show_jobs(scheduler: Any, options: argparse.Namespace) -> None:
    """``list``: jobs, newest first."""
    rows = (
        (
            job.id,
            job.state,
            job.queue,
            "paused" if job.paused else _time(job.run_at),
            f"{job.attempt}",
            job.name,
        )
        for job in scheduler.get_jobs(**_filters(scheduler, options), limit=options.limit)
    )
    _table(("ID", "STATE", "QUEUE", "RUN AT", "TRIES", "NAME"), rows)


def export_jobs(scheduler: Any, options: argparse.Namespace) -> None:
    """``export``: every job that matches, one JSON object a line, newest first."""
    filters = _filters(scheduler, options)
    last = None
    while page := scheduler.get_jobs(**filters, before=last, limit=PAGE):
        for job in page:
            print(json.dumps(_plain(job), default=str))
        last = page[-1].id


def show_one(scheduler: Any, options: argparse.Namespace) -> None:
    """``show``: a job with its arguments and errors, or a schedule."""
    found = scheduler.get_job(options.id) or scheduler.get_schedule(options.id)
    if found is None:
        raise CommandFailed(f"there is no job or schedule {options.id!r}")
    for name, value in _plain(found, _shown).items():
        if name not in ("error", "errors"):
            print(f"{name + ':':<16}{value}")
    errors = found.errors if isinstance(found, JobInfo) else ()
    for number, error in enumerate(errors, 1):
        print(f"\nerror of attempt {number} of {len(errors)}:\n{error.rstrip()}")


def show_schedules(scheduler: Any, options: argparse.Namespace) -> None:
    """``schedules``: when they fire."""
    _check_queue(scheduler, options.queue)
    rows = (
        (
            schedule.id,
            schedule.queue,
            "paused" if schedule.paused else _time(schedule.next_run_at),
            _time(schedule.last_run_at),
            json.dumps(dict(schedule.trigger), default=str),
            schedule.func,
        )
        for schedule in scheduler.get_schedules(queue=options.queue)
    )
    _table(("ID", "QUEUE", "NEXT", "LAST", "TRIGGER", "FUNCTION"), rows)


def show_queues(scheduler: Any, options: argparse.Namespace) -> None:
    """``queues``: how each is doing."""
    rows = (
        (
            queue.name,
            "paused" if queue.paused else "active",
            *(str(queue.jobs.get(state, 0)) for state in STATES),
            "-" if queue.oldest_due is None else f"{queue.oldest_due:.1f} s",
            str(queue.daemons),
        )
        for queue in scheduler.stats().queues.values()
    )
    states = (state.upper() for state in STATES)
    _table(("QUEUE", "", *states, "OLDEST DUE", "DAEMONS"), rows)


def show_daemons(scheduler: Any, options: argparse.Namespace) -> None:
    """``daemons``: those that are on the list."""
    with scheduler.store.read() as connection:
        daemons = scheduler.store.daemons.list(connection)
        now = scheduler.store.now(connection)
    rows = (
        (
            daemon.label,
            daemon.host,
            str(daemon.pid),
            " ".join(daemon.queues),
            "-" if daemon.generation is None else str(daemon.generation),
            _time(daemon.started_at),
            f"{(now - daemon.heartbeat_at).total_seconds():.0f} s ago",
        )
        for daemon in daemons
    )
    _table(("DAEMON", "HOST", "PID", "QUEUES", "GENERATION", "STARTED", "HEARTBEAT"), rows)


def show_stats(scheduler: Any, options: argparse.Namespace) -> None:
    """``stats``: the figures of all queues together."""
    stats = scheduler.stats()
    queues = stats.queues.values()
    for state in STATES:
        print(f"{state:<10} {sum(queue.jobs.get(state, 0) for queue in queues)}")
    oldest = [queue.oldest_due for queue in queues if queue.oldest_due is not None]
    print(f"oldest due {f'{max(oldest):.1f} s' if oldest else '-'}")
    print(f"daemons    {stats.daemons}")
    paused = [queue.name for queue in queues if queue.paused]
    print(f"paused     {' '.join(paused) or '-'}")


def _filters(scheduler: Any, options: argparse.Namespace) -> dict[str, Any]:
    _check_queue(scheduler, options.queue)
    return {"queue": options.queue, "state": options.state, "func": options.func}


def _check_queue(scheduler: Any, name: str | None) -> None:
    """Refuse a queue that is neither configured nor has anything left from when it was."""
    configured = scheduler.settings.queues
    if name is None or name in configured:
        return
    if not scheduler.get_jobs(queue=name, limit=1) and not scheduler.get_schedules(queue=name):
        raise InvalidQueue(
            f"queue {name!r} is not among the configured ones (scheduler.queues = "
            f"{' '.join(configured)}), and has neither jobs nor schedules"
        )


def _plain(info: Any, form: Any = None) -> dict[str, Any]:
    """An info's fields; each value as ``form`` has it, else as JSON has it, nearly."""
    return {name: (form or _json)(value) for name, value in _fields(info)}


def _fields(info: Any) -> Iterator[tuple[str, Any]]:
    # Not asdict, which copies what is below: arguments may be objects that cannot be copied.
    for name in info.__dataclass_fields__:
        yield name, getattr(info, name)


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _json(asdict(value))
    return value


def _time(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone().isoformat(" ", "seconds")


def _shown(value: Any) -> str:
    return _time(value) if isinstance(value, datetime) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (f"{text:<{width}}" for text, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())

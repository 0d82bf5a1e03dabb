"""pjobs: looking at an application's jobs, and cancelling them, from a shell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ..interfaces import IScheduler
from ..records import ENDED, STATES
from ..settings import checked_queues
from ..store.retention import PURGED
from ..telling import Telling
from ..times import parse_duration
from .common import (
    DONE,
    CommandFailed,
    add_config_arguments,
    add_config_vars,
    load_registry,
    parse_vars,
    run_command,
)

NAME = "pjobs"


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog=NAME, description="Look at the jobs of an application.")
    add_config_arguments(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="jobs, newest first")
    listing.add_argument("-q", "--queue", help="of this queue only")
    listing.add_argument("-s", "--state", choices=STATES, help="in this state only")
    listing.add_argument("-f", "--func", help="of this function only")
    listing.add_argument("-n", "--limit", type=int, default=50, help="at most (default: 50)")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="one job, with its arguments and errors")
    show.add_argument("id")
    show.set_defaults(run=_show)

    schedules = commands.add_parser("schedules", help="schedules and when they fire next")
    schedules.add_argument("-q", "--queue", help="of this queue only")
    schedules.set_defaults(run=_schedules)

    queues = commands.add_parser("queues", help="queues, with the number of jobs in each state")
    queues.set_defaults(run=_queues)

    daemons = commands.add_parser("daemons", help="the daemons that are running")
    daemons.set_defaults(run=_daemons)

    stats = commands.add_parser("stats", help="the number of jobs in each state")
    stats.set_defaults(run=_stats)

    cancel = commands.add_parser("cancel", help="cancel a job, or end a schedule")
    cancel.add_argument("id")
    cancel.add_argument("-q", "--queue", help="only if it is in this queue")
    cancel.set_defaults(run=_cancel)

    purge = commands.add_parser("purge", help="remove ended jobs now")
    purge.add_argument(
        "--older-than",
        type=age,
        metavar="AGE",
        help="that ended so long ago, such as 7d or 0 (default: scheduler.retention)",
    )
    purge.add_argument(
        "-s",
        "--state",
        action="append",
        choices=ENDED,
        help="in this state only; may be given several times (default: all but broken)",
    )
    purge.add_argument("-q", "--queue", help="of this queue only")
    purge.set_defaults(run=_purge)

    for command in commands.choices.values():
        add_config_vars(command)
    return parser


def age(text: str) -> float:
    """Read a duration, in seconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 for a failure. Wrong usage exits with 2."""
    parser = make_parser()
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    config_vars = parse_vars(parser, options.config_vars)

    def command() -> int:
        scheduler = load_registry(options.config_uri, config_vars, NAME).getUtility(IScheduler)
        # Opened now: it is the store that is asked, whatever scheduler.producer says.
        scheduler.store  # noqa: B018
        options.run(scheduler, options)
        return DONE

    return run_command(NAME, command)


def _list(scheduler: Any, options: argparse.Namespace) -> None:
    jobs = scheduler.get_jobs(
        queue=options.queue, state=options.state, func=options.func, limit=options.limit
    )
    rows = (
        (job.id, job.state, job.queue, _time(job.run_at), f"{job.attempt}", job.name)
        for job in jobs
    )
    _table(("ID", "STATE", "QUEUE", "RUN AT", "TRIES", "NAME"), rows)


def _show(scheduler: Any, options: argparse.Namespace) -> None:
    job = scheduler.get_job(options.id)
    if job is None:
        raise CommandFailed(f"there is no job {options.id!r}")
    errors = job.errors
    for name, value in asdict(job).items():
        if name not in ("error", "errors"):
            print(f"{name + ':':<15}{_shown(value)}")
    for number, error in enumerate(errors, 1):
        print(f"\nerror of attempt {number} of {len(errors)}:\n{error.rstrip()}")


def _schedules(scheduler: Any, options: argparse.Namespace) -> None:
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


def _queues(scheduler: Any, options: argparse.Namespace) -> None:
    counts = _counts(scheduler)
    names = [*scheduler.settings.queues, *sorted(set(counts) - {*scheduler.settings.queues})]
    rows = (
        (name, *(str(counts.get(name, {}).get(state, 0)) for state in STATES)) for name in names
    )
    _table(("QUEUE", *(state.upper() for state in STATES)), rows)


def _daemons(scheduler: Any, options: argparse.Namespace) -> None:
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


def _stats(scheduler: Any, options: argparse.Namespace) -> None:
    counts = _counts(scheduler).values()
    for state in STATES:
        print(f"{state:<10} {sum(queue.get(state, 0) for queue in counts)}")


def _cancel(scheduler: Any, options: argparse.Namespace) -> None:
    if not scheduler.cancel_job(options.id, options.queue):
        raise CommandFailed(f"there is nothing to cancel by the id {options.id!r}")
    print(f"{options.id} cancelled.")


def _purge(scheduler: Any, options: argparse.Namespace) -> None:
    settings = scheduler.settings
    older_than = settings.retention if options.older_than is None else options.older_than
    if older_than is None:
        raise CommandFailed(
            "scheduler.retention = none keeps all; say --older-than AGE, such as 7d"
        )
    if options.queue is not None:
        checked_queues([options.queue], settings.queues)
    batches = scheduler.store.retention.remove(
        older_than=older_than, states=options.state or PURGED, queue=options.queue
    )
    telling = Telling(scheduler.listeners)
    number = 0
    for batch in batches:
        number += len(batch)
        telling.removed(batch)
    telling.stop(None)
    print(f"{number} jobs removed.")


def _counts(scheduler: Any) -> dict[str, dict[str, int]]:
    with scheduler.store.read() as connection:
        counts: dict[str, dict[str, int]] = scheduler.store.jobs.counts(connection)
    return counts


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


if __name__ == "__main__":
    sys.exit(main())

"""pjobs: looking at an application's jobs, schedules and queues, and changing them, from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
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
from .showing import (
    export_jobs,
    show_daemons,
    show_jobs,
    show_one,
    show_queues,
    show_schedules,
    show_stats,
)

NAME = "pjobs"


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Look at the jobs of an application, and change them."
    )
    add_config_arguments(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="jobs, newest first")
    _add_filters(listing)
    listing.add_argument("-n", "--limit", type=int, default=50, help="at most (default: 50)")
    listing.set_defaults(run=show_jobs)

    show = commands.add_parser("show", help="one job, with its arguments and errors, or schedule")
    show.add_argument("id")
    show.set_defaults(run=show_one)

    schedules = commands.add_parser("schedules", help="schedules and when they fire next")
    schedules.add_argument("-q", "--queue", help="of this queue only")
    schedules.set_defaults(run=show_schedules)

    queues = commands.add_parser("queues", help="queues, with the number of jobs in each state")
    queues.set_defaults(run=show_queues)

    daemons = commands.add_parser("daemons", help="the daemons that are running")
    daemons.set_defaults(run=show_daemons)

    stats = commands.add_parser("stats", help="jobs in each state, the oldest due one, daemons")
    stats.set_defaults(run=show_stats)

    export = commands.add_parser("export", help="jobs as JSON, one a line, newest first")
    _add_filters(export)
    export.set_defaults(run=export_jobs)

    _add_changes(commands)
    for command in commands.choices.values():
        add_config_vars(command)
    return parser


def _add_filters(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--queue", help="of this queue only")
    command.add_argument("-s", "--state", choices=STATES, help="in this state only")
    command.add_argument("-f", "--func", help="of this function only")


def _add_changes(commands: Any) -> None:
    cancel = commands.add_parser("cancel", help="cancel a job, or end a schedule")
    cancel.add_argument("id")
    cancel.add_argument("-q", "--queue", help="only if it is in this queue")
    cancel.set_defaults(run=_cancel)

    for name, run, help in (
        ("pause", _pause, "keep a job from starting, a schedule from firing, or a whole queue"),
        ("resume", _resume, "let a paused job, schedule or queue go on"),
    ):
        command = commands.add_parser(name, help=help)
        command.add_argument("id", nargs="?", help="of a job or schedule")
        command.add_argument("-q", "--queue", help="the queue, instead of an id")
        command.set_defaults(run=run)

    for name, run, help in (
        ("run", _run, "make a waiting job due now; of a schedule, make one job more"),
        ("retry", _retry, "let a job that ended without success wait again"),
        ("remove", _remove, "delete a job, or a schedule"),
    ):
        command = commands.add_parser(name, help=help)
        command.add_argument("id")
        command.set_defaults(run=run)

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
    if options.command in ("pause", "resume"):
        _read_target(parser, options)
    config_vars = parse_vars(parser, options.config_vars)

    def command() -> int:
        scheduler = load_registry(options.config_uri, config_vars, NAME).getUtility(IScheduler)
        # Opened now: it is the store that is asked, whatever scheduler.producer says.
        scheduler.store  # noqa: B018
        options.run(scheduler, options)
        return DONE

    return run_command(NAME, command)


def _read_target(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Either an id or a queue; beside a queue, what looks like an id is a key=value."""
    if options.queue is None:
        if options.id is None:
            parser.error("expected the id of a job or schedule, or -q QUEUE")
    elif options.id is not None:
        if "=" not in options.id:
            parser.error(f"{options.id!r}: expected either an id or -q QUEUE, not both")
        options.config_vars = [options.id, *options.config_vars]


def _cancel(scheduler: Any, options: argparse.Namespace) -> None:
    done = scheduler.cancel_job(options.id, options.queue)
    _report(done, options.id, "cancelled", "cancel")


def _pause(scheduler: Any, options: argparse.Namespace) -> None:
    _turn(options, "pause", "paused", scheduler.pause_job, scheduler.pause_queue)


def _resume(scheduler: Any, options: argparse.Namespace) -> None:
    _turn(options, "resume", "resumed", scheduler.resume_job, scheduler.resume_queue)


def _turn(
    options: argparse.Namespace,
    verb: str,
    past: str,
    of_job: Callable[[str], bool],
    of_queue: Callable[[str], bool],
) -> None:
    if options.queue is None:
        _report(of_job(options.id), options.id, past, verb)
    elif of_queue(options.queue):
        print(f"queue {options.queue} {past}.")
    else:
        state = "paused already" if verb == "pause" else "not paused"
        raise CommandFailed(f"queue {options.queue!r} is {state}")


def _run(scheduler: Any, options: argparse.Namespace) -> None:
    _report(scheduler.run_job(options.id), options.id, "is due now", "run")


def _retry(scheduler: Any, options: argparse.Namespace) -> None:
    _report(scheduler.retry_job(options.id), options.id, "waits again", "retry")


def _remove(scheduler: Any, options: argparse.Namespace) -> None:
    running = scheduler.get_job(options.id)
    stops = running is not None and running.state == "running"
    past = "is asked to stop, and removed then" if stops else "removed"
    _report(scheduler.remove_job(options.id), options.id, past, "remove")


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
        telling.flush(None)
    telling.stop(None)
    print(f"{number} jobs removed.")


def _report(done: bool, id: str, past: str, verb: str) -> None:
    if not done:
        raise CommandFailed(f"there is nothing to {verb} by the id {id!r}")
    print(f"{id} {past}.")


if __name__ == "__main__":
    sys.exit(main())

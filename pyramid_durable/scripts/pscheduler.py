"""pscheduler: the daemon as a process of its own, and what is done beside it."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ..daemon import Daemon
from ..exceptions import DurableError
from ..interfaces import IDaemonFactory, IScheduler
from ..runner import run_due
from ..store import Store
from .common import (
    DONE,
    FAILED,
    add_config_arguments,
    add_config_vars,
    load_registry,
    parse_vars,
    run_command,
)

NAME = "pscheduler"

log = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Run the jobs of a Pyramid application until SIGTERM or SIGINT: then what is "
        "running may finish (scheduler.shutdown_timeout); a second signal does not wait.",
    )
    add_config_arguments(parser)
    add_config_vars(parser)
    parser.add_argument(
        "-q",
        "--queue",
        action="append",
        dest="queues",
        metavar="QUEUE",
        help="serve this queue only; may be given several times (default: scheduler.queues)",
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="jobs at a time (default: scheduler.threads)"
    )
    parser.add_argument("--app-name", metavar="NAME", help="the application's section in the ini")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--once", action="store_true", help="run what is due, one job at a time, and leave"
    )
    what.add_argument(
        "--migrate", action="store_true", help="bring the store's tables up to date, and leave"
    )
    what.add_argument(
        "--message", metavar="TEXT", help="send a message to the running daemons, and leave"
    )
    parser.add_argument(
        "-d", "--delete-completed", action="store_true", help="with --once: delete what succeeded"
    )
    parser.add_argument(
        "-i",
        "--ignore-errors",
        action="store_true",
        help="with --once: go on after a job that failed, instead of stopping with its traceback",
    )
    return parser


def positive(text: str) -> int:
    """Read a number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 for a failure. Wrong usage exits with 2."""
    parser = make_parser()
    options = parser.parse_intermixed_args(sys.argv[1:] if argv is None else argv)
    if (options.delete_completed or options.ignore_errors) and not options.once:
        parser.error("-d and -i are for --once")
    config_vars = parse_vars(parser, options.config_vars)
    config_uri = options.config_uri
    if options.app_name:
        config_uri = f"{config_uri.partition('#')[0]}#{options.app_name}"
    return run_command(NAME, lambda: _command(options, config_uri, config_vars))


def _command(options: argparse.Namespace, config_uri: str, config_vars: dict[str, str]) -> int:
    registry = load_registry(config_uri, config_vars, NAME)
    if options.migrate:
        return _migrate(registry)
    if options.message is not None:
        return _send(registry, options.message, options.queues)
    if options.once:
        return _once(registry, options)
    return _serve(registry, options)


def _migrate(registry: Any) -> int:
    settings = registry.getUtility(IScheduler).settings
    store = Store(settings.store_url, prefix=settings.prefix)
    store.migrate()
    print(f"The store {store.masked_url} is up to date.")
    return DONE


def _send(registry: Any, text: str, queues: Sequence[str] | None) -> int:
    scheduler = registry.getUtility(IScheduler)
    for queue in queues or scheduler.settings.queues:
        scheduler.send_message(text, queue)
    return DONE


def _once(registry: Any, options: argparse.Namespace) -> int:
    try:
        done = run_due(
            registry,
            delete_completed=options.delete_completed,
            ignore_errors=options.ignore_errors,
            queues=options.queues,
        )
    except DurableError:
        raise
    except Exception:  # noqa: BLE001 - a job's own, whatever it is
        traceback.print_exc()
        return FAILED
    failed = [job for job in done if job.state in ("failed", "broken")]
    print(f"{len(done)} jobs run, {len(failed)} of them failed.")
    return DONE


def _serve(registry: Any, options: argparse.Namespace) -> int:
    scheduler = registry.getUtility(IScheduler)
    if scheduler.aps is not None:
        # An application that starts its combined daemon under every script: ours takes its place.
        scheduler.shutdown()
    daemon = Daemon(registry, queues=options.queues, threads=options.threads)
    registry.registerUtility(lambda registry: daemon, IDaemonFactory)
    signalled = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if signalled.is_set():
            daemon.hurry()
        signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    # What is loaded by now stays: full collections need not walk the whole application each time,
    # which would be a seventh of all the work where jobs are small.
    gc.collect()
    gc.freeze()
    # Started by the scheduler, which knows it from then on: registry.scheduler.aps in a job.
    scheduler.start()
    signalled.wait()
    scheduler.shutdown()
    return DONE


if __name__ == "__main__":
    sys.exit(main())

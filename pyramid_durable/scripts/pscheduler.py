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
from functools import partial
from queue import SimpleQueue
from typing import Any

from ..bootstrapping import Ini
from ..checking import JOB, SCHEDULE, Check
from ..daemon import Daemon
from ..due import run_due
from ..exceptions import DurableError
from ..interfaces import IDaemonFactory, IScheduler
from ..lifeline import Lifeline
from ..store import Store
from .common import (
    DONE,
    FAILED,
    INTERRUPTED,
    add_config_arguments,
    add_config_vars,
    load_registry,
    parse_vars,
    run_command,
)
from .reloading import start_watched, watch
from .supervising import same_command, stop_signals, supervise

NAME = "pscheduler"

log = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Run the jobs of a Pyramid application until SIGTERM or SIGINT: then what is "
        "running may finish (scheduler.shutdown_timeout); a second one does not wait. SIGHUP asks for "
        "the same, and may be repeated without hurrying anything.",
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
        "--threads",
        type=positive,
        metavar="N",
        help="jobs at a time in each process (default: scheduler.threads)",
    )
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="daemon processes; one that dies is replaced (default: scheduler.processes)",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="for development: start again when the code or the ini changes",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start again when the daemon dies (with several processes that is always so)",
    )
    parser.add_argument(
        "--preload",
        action="store_true",
        help="with several processes, or --restart: fork them from the application that their "
        "supervisor has loaded, instead of loading it in each; it must not start threads or leave "
        "connections open then, and new code needs a new pscheduler (a single process without "
        "--restart loads it anyway)",
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
        "--check",
        action="store_true",
        help="compare all that is stored with what this code can run, and leave: with exit code 1 "
        "and one line for each problem, if there are any",
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
    leaves = options.once or options.migrate or options.check or options.message is not None
    if (options.reload or options.restart or options.preload) and leaves:
        parser.error("--reload, --restart and --preload are for the daemon")
    if options.reload and options.preload:
        parser.error("--reload loads what has changed anew, --preload forks what is loaded")
    config_vars = parse_vars(parser, options.config_vars)
    config_uri = options.config_uri
    if options.app_name:
        config_uri = f"{config_uri.partition('#')[0]}#{options.app_name}"
    return run_command(NAME, lambda: _command(options, config_uri, config_vars, argv))


def _command(
    options: argparse.Namespace,
    config_uri: str,
    config_vars: dict[str, str],
    argv: Sequence[str] | None,
) -> int:
    lifeline = Lifeline.adopt()
    if options.reload and lifeline is None and not watch(config_uri):
        return start_watched(config_uri, sys.argv[1:] if argv is None else argv)
    registry = load_registry(config_uri, config_vars, NAME)
    if options.migrate:
        return _migrate(registry)
    if options.check:
        return _check(registry)
    if options.message is not None:
        return _send(registry, options.message, options.queues)
    if options.once:
        return _once(registry, options)
    serve = partial(_serve, registry, options, Ini(uri=config_uri, variables=config_vars))
    processes = options.processes or registry.getUtility(IScheduler).settings.processes
    if (processes > 1 or options.restart) and lifeline is None:
        return supervise(
            registry,
            options,
            processes,
            command=same_command(f"{__package__}.{NAME}", argv),
            serve=lambda lifeline: run_command(NAME, lambda: serve(lifeline)),
        )
    return serve(lifeline)


def _migrate(registry: Any) -> int:
    settings = registry.getUtility(IScheduler).settings
    store = Store(settings.store_url, prefix=settings.prefix)
    store.migrate()
    print(f"The store {store.masked_url} is up to date.")
    return DONE


def _check(registry: Any) -> int:
    check = Check(registry.getUtility(IScheduler))
    for problem in check.problems:
        print(problem)
    if check.problems:
        return FAILED
    jobs, schedules = check.looked_at[JOB], check.looked_at[SCHEDULE]
    print(f"All that is stored can run: {jobs} jobs, {schedules} schedules.")
    return DONE


def _send(registry: Any, text: str, queues: Sequence[str] | None) -> int:
    scheduler = registry.getUtility(IScheduler)
    for queue in queues or scheduler.settings.queues:
        scheduler.send_message(text, queue)
    return DONE


def _once(registry: Any, options: argparse.Namespace) -> int:
    # A service manager's way to say Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    blamed: list[BaseException] = []
    try:
        done = run_due(
            registry,
            delete_completed=options.delete_completed,
            ignore_errors=options.ignore_errors,
            queues=options.queues,
            blame=blamed.append,
        )
    except KeyboardInterrupt:
        print(f"{NAME}: interrupted; the job that was running is given back", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, DurableError) and not blamed:
            raise
        traceback.print_exc()
        return FAILED
    failed = [job for job in done if job.state in ("failed", "broken")]
    print(f"{len(done)} jobs run, {len(failed)} of them failed.")
    return DONE


def _serve(registry: Any, options: argparse.Namespace, ini: Ini, lifeline: Lifeline | None) -> int:
    scheduler = registry.getUtility(IScheduler)
    # An application may start its combined daemon under every script: ours takes its place.
    scheduler.shutdown()
    label = scheduler.settings.id
    if lifeline is not None and label is not None:
        label = f"{label}:{lifeline.number}"
    daemon = Daemon(registry, queues=options.queues, threads=options.threads, label=label, ini=ini)
    registry.registerUtility(lambda registry: daemon, IDaemonFactory)
    stop = _stop_by_signal(daemon)
    # What is loaded by now stays: full collections need not walk the whole application each time,
    # which would be a seventh of all the work where jobs are small.
    gc.collect()
    gc.freeze()
    # Nor has what passes through to be looked at each 700 objects: an attempt leaves no cycles.
    gc.set_threshold(10_000, 10, 10)
    # Started by the scheduler, which knows it from then on: registry.scheduler.aps in a job.
    scheduler.start()
    if lifeline is not None:
        lifeline.say_started()
        lifeline.watch(stop.set, daemon.hurry)
    stop.wait()
    scheduler.shutdown()
    return DONE


def _stop_by_signal(daemon: Daemon) -> threading.Event:
    """What the first signal sets; the second one, unless it is SIGHUP, hurries the daemon."""
    stop = threading.Event()
    signals: SimpleQueue[int] = SimpleQueue()

    def obey() -> None:
        signals.get()
        stop.set()
        while signals.get() == signal.SIGHUP:
            pass
        daemon.hurry()

    # Not in the handlers: an Event that is set there may find its lock taken by the very wait
    # that the signal interrupted.
    threading.Thread(target=obey, name="durable-signals", daemon=True).start()
    for number in stop_signals():
        signal.signal(number, lambda number, frame: signals.put(number))
    return stop


if __name__ == "__main__":
    sys.exit(main())

"""pscheduler --processes N and --restart: the supervisor of the processes that serve (scripts)."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..forking import Forks, check_threads
from ..interfaces import IScheduler
from ..lifeline import ChildProcess, Lifeline
from ..settings import checked_queues
from ..supervisor import Child, Supervisor
from .common import DONE, FAILED, CommandFailed


def supervise(
    registry: Any,
    options: argparse.Namespace,
    processes: int,
    *,
    command: Sequence[str],
    serve: Callable[[Lifeline], int],
) -> int:
    """Keep processes running until a signal: each starts ``command``, or, with ``--preload``, is
    forked and does ``serve``. Returns the exit code."""
    if os.name != "posix":
        raise CommandFailed(
            f"{processes} processes, or --restart: on this system pscheduler starts none besides "
            "itself; expected --processes 1, and as many pscheduler as you like"
        )
    scheduler = registry.getUtility(IScheduler)
    scheduler.shutdown()
    # What would stop each of the children is said once, and before any of them is there.
    checked_queues(options.queues, scheduler.settings.queues)
    scheduler.store.dispose()
    signals = stop_signals()
    spawn: Callable[[int], Child] = partial(ChildProcess, command)
    if options.preload:
        # An application may have asked for jobs while it was loaded.
        scheduler.broker.close()
        check_threads()
        spawn = Forks(serve, signals=signals).spawn
        # What collections in the children do not look at stays one copy in memory.
        gc.collect()
        gc.freeze()
    supervisor = Supervisor(
        spawn, processes=processes, patience=scheduler.settings.shutdown_timeout
    )
    for number in signals:
        signal.signal(number, supervisor.on_signal)
    return DONE if supervisor.run() else FAILED


def same_command(module: str, argv: Sequence[str] | None) -> list[str]:
    """The command line of this process; that of ``module`` where it was called with ``argv``."""
    if argv is None:
        # As Python itself was started: with its options, by a script, -m or -c.
        return [sys.executable, *sys.orig_argv[1:]]
    return [sys.executable, "-m", module, *argv]


def stop_signals() -> list[signal.Signals]:
    """The signals that stop a daemon; SIGHUP is not among them where nohup has it ignored."""
    # A shell that starts a daemon in the background has SIGINT ignored: whoever sends it means it.
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers

"""The process that runs jobs one at a time for a daemon: what happens inside of it (its child)."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from .bootstrapping import Ini, load_application
from .interfaces import IScheduler
from .outcomes import Outcome, reason_of
from .records import Claim, Completion
from .runner import Runner
from .telling import Telling

log = logging.getLogger(__name__)

SCRIPT: Final = "pscheduler"
"""Under which name the application is loaded: it belongs to a daemon, whoever started that."""

READY: Final = "ready"
UNABLE: Final = "unable"
STARTED: Final = "started"
"""What a child says: that it can run jobs, with its pid; why it cannot, as text; that the own code of
the job with this id comes next."""

PARENT_CHECK: Final = 1.0
"""Seconds between two looks whether the daemon is still there."""

FAILED_TO_START: Final = 1
ORPHANED: Final = 3


@dataclass(frozen=True, kw_only=True)
class Report:
    """An Outcome on its way to the daemon. What a job returned or raised may fit into no pickle,
    and goes as text: ``result`` as the store would keep it."""

    state: str
    error: str | None
    result: str | None
    completion: Completion | None
    give_back: float | None
    crashed: bool
    started: bool
    reason: str


class _Work:
    """What this process has when it is ready, and whether its daemon asks when the job starts."""

    runner: Runner
    scheduler: Any
    line: Connection
    tells_start = False


class _Starts(Telling):
    """Tells the daemon when a job starts, which tells it to those who listen there; nothing else."""

    def starting(self) -> Callable[[Claim], None] | None:
        return self._say if _Work.tells_start else None

    def _say(self, claim: Claim) -> None:
        with contextlib.suppress(OSError):
            _Work.line.send((STARTED, claim.id))


def begin(ini: Ini, line: Connection) -> None:
    """Become ready to run jobs: the application is loaded from its ini, as a daemon does it.

    ``line`` is the tie to the daemon: it says who is to stop, and closes when the daemon is gone.
    """
    # A service manager, a terminal or uWSGI may signal all processes at once; the daemon then waits
    # for what runs here, and ends this process when it is time. (Handled, not ignored: programs
    # that jobs start would ignore them too.)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    _end_with_parent()
    threading.Thread(target=_listen, args=(line,), name="durable-line", daemon=True).start()
    try:
        registry = load_application(ini, SCRIPT)
        _Work.scheduler = registry.getUtility(IScheduler)
        # An application may start its combined daemon under every script.
        _Work.scheduler.shutdown()
        _Work.line = line
        _Work.runner = Runner(registry, _Starts())
    except BaseException as error:
        log.exception("a process for jobs cannot load the application from %s", ini.uri)
        line.send((UNABLE, f"{type(error).__name__}: {error}"))
        os._exit(FAILED_TO_START)
    line.send((READY, os.getpid()))


def run_claim(claim: Claim, waited: float, asked_at: float, tells_start: bool) -> Report:
    """Run a job that its daemon had claimed ``waited`` seconds before ``asked_at`` (epoch)."""
    _Work.tells_start = tells_start
    waited += max(time.time() - asked_at, 0.0)
    return report_of(_Work.runner.run(claim, waited=waited))


def report_of(outcome: Outcome) -> Report:
    """Put an outcome into what every process can read."""
    result = None
    if outcome.result is not None:
        with contextlib.suppress(ValueError, TypeError):
            result = _Work.scheduler.serializer.dumps(outcome.result)
    return Report(
        state=outcome.state,
        error=None if outcome.error is None else repr(outcome.error),
        result=result,
        completion=outcome.completion,
        give_back=outcome.give_back,
        crashed=outcome.crashed,
        started=outcome.started,
        reason=reason_of(outcome.error),
    )


def _end_with_parent() -> None:
    """Let the kernel end this process when the daemon is gone, also in the midst of C code.

    The pipe by which Python started it closes then; with nothing else to tell, that is a SIGIO,
    which nobody handles. Where a system cannot do that, the line's end is noticed by a thread.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)


def _listen(line: Connection) -> None:
    parent = os.getppid()
    # The line stays open where a job of the daemon has forked, and the fork lives on.
    with contextlib.suppress(EOFError, OSError):
        while os.getppid() == parent:
            if line.poll(PARENT_CHECK):
                _hear(line.recv())
    os._exit(ORPHANED)


def _hear(id: str) -> None:
    runner = getattr(_Work, "runner", None)
    if runner is not None:
        runner.ask_to_cancel([id])

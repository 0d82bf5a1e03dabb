"""Combined mode: the web process starts its daemon at the first request (web)."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from pyramid.threadlocal import manager as threadlocals

from .exceptions import DurableError
from .scheduler import Scheduler

log = logging.getLogger(__name__)

PAUSE: Final = 5.0
"""Seconds until another request tries again, after the store could not be reached: each try may
take as long as a connection attempt, and a request has to wait for it."""


class _Progress:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.not_before = float("-inf")


class FirstRequest:
    """A subscriber to NewRequest: makes ready, once in each process, what waits for a server.

    A script sends no NewRequest: pshell, pscheduler and pjobs make a request and push it, no more.
    What they or a job send through the application comes with another request beneath it, and
    prequest marks its own. None of these starts a daemon.
    """

    def __init__(self, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._ready: set[int] = set()
        self._processes: dict[int, _Progress] = {}

    def __call__(self, event: Any) -> None:
        # By process, like all that a fork must not share: a lock may be held at that moment.
        pid = os.getpid()
        progress = self._processes.get(pid)
        if progress is None:
            progress = self._processes.setdefault(pid, _Progress())
        if pid in self._ready or not is_from_outside(event.request):
            return
        with progress.lock:
            if pid in self._ready or self._clock() < progress.not_before:
                return
            try:
                self._make_ready()
                self._ready.add(pid)
            except DurableError as error:
                # The request may well do without; one that cannot will meet the error itself.
                progress.not_before = self._clock() + PAUSE
                log.warning("not ready yet: %s", error, extra={"action": "start_failed"})

    def _make_ready(self) -> None:
        settings = self._scheduler.settings
        if settings.create and settings.producer == "store":
            # Now, while the request has written nothing: SQLite has one writer, and the view's
            # own open transaction would keep the tables from being made.
            self._scheduler.store  # noqa: B018 - looking is what creates them
        if settings.combined:
            self._scheduler.start()


def is_from_outside(request: Any) -> bool:
    """Tell the request of a server from one that a script or a job sends to the application."""
    if request.environ.get("paste.command_request"):
        return False
    return sum(1 for entry in threadlocals.stack if entry["request"] is not None) <= 1

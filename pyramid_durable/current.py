"""The job that is running here: what current_job() gives its code (daemon)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .records import Progress

_running: ContextVar[CurrentJob | None] = ContextVar("pyramid_durable_current_job", default=None)


class CurrentJob:
    """The running job, for its own code.

    ``id`` is the job's id, ``attempt`` the number of this attempt, from 1. ``userdata`` is a dict
    that lasts across attempts, and across the runs of a schedule; it is saved when the attempt
    ends, also when that fails. The functions are what the daemon gives it to reach the store.
    """

    def __init__(
        self,
        *,
        id: str,
        attempt: int,
        userdata: dict[str, Any],
        progress: Callable[[Progress], None],
        save: Callable[[Mapping[str, Any]], None],
        reschedule: Callable[..., str],
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.userdata = userdata
        self._progress = progress
        self._save = save
        self._reschedule = reschedule
        self._cancel_requested = False

    def __repr__(self) -> str:
        return f"<CurrentJob {self.id} attempt {self.attempt}>"

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody has asked this job to stop; a long job looks now and then."""
        return self._cancel_requested

    def request_cancel(self) -> None:
        """Note that somebody wants this job to stop; called by the daemon."""
        self._cancel_requested = True

    def set_progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the job is; others see it at once, before the job commits."""
        self._progress(Progress(done=done, total=total, message=str(message)))

    def save_userdata(self) -> None:
        """Save ``userdata`` now rather than when the attempt ends."""
        self._save(self.userdata)

    def reschedule(self, date: Any, **changes: Any) -> str:
        """Add a job like this one at ``date`` and return its id.

        ``changes`` replaces what it would copy: args, kwargs, queue, and the options.
        """
        return self._reschedule(date, **changes)


def current_job() -> CurrentJob:
    """The job that is running in this context.

    Raises LookupError outside of a job: code that may run in both asks ``in_job()`` first.
    """
    running = _running.get()
    if running is None:
        raise LookupError("current_job(): no job is running here; this is not inside of a job")
    return running


def in_job() -> bool:
    """Whether this code runs inside of a job."""
    return _running.get() is not None


@contextmanager
def use_job(job: CurrentJob) -> Iterator[CurrentJob]:
    """Make ``job`` the running one for a with block."""
    token = _running.set(job)
    try:
        yield job
    finally:
        _running.reset(token)

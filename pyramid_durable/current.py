"""What is current here: the running job (daemon), and the application's scheduler (both)."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

from pyramid.threadlocal import get_current_registry

from .exceptions import DurableError
from .records import Progress

_running: ContextVar[CurrentJob | None] = ContextVar("pyramid_durable_current_job", default=None)


class NotInJob(DurableError, LookupError):
    """Raised when the running job is asked for where none is running."""


class Reaching(Protocol):
    """What the running job asks of its daemon."""

    def set_progress(self, progress: Progress) -> None:
        """Show how far the job is."""

    def save_userdata(self, userdata: Mapping[str, Any]) -> None:
        """Keep the userdata as they are now."""

    def reschedule(self, date: Any, **changes: Any) -> str:
        """Add a job like this one; returns its id."""


class CurrentJob:
    """The running job, for its own code.

    ``id`` is the job's id, ``attempt`` the number of this attempt, from 1, ``run_at`` the time the
    job was meant for, an aware datetime, however late it runs. ``userdata`` is a dict
    that lasts across attempts, and across the runs of a schedule; it is saved when the attempt
    ends, also when that fails. ``reaching`` is what the daemon gives it to reach the store.
    """

    def __init__(
        self, id: str, attempt: int, run_at: datetime, userdata: dict[str, Any], reaching: Reaching
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.run_at = run_at
        self.userdata = userdata
        self._reaching = reaching
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
        self._reaching.set_progress(Progress(done=done, total=total, message=str(message)))

    def save_userdata(self) -> None:
        """Save ``userdata`` now rather than when the attempt ends."""
        self._reaching.save_userdata(self.userdata)

    def reschedule(self, date: Any, **changes: Any) -> str:
        """Add a job like this one at ``date`` and return its id.

        A relative ``date`` counts from now; from the job's own time it is ``run_at`` plus a timedelta.
        ``changes`` replaces what it would copy: args, kwargs, queue, and the options, among them
        ``content_object``. ``args`` are without it, and without the object of a method.

        Raises DuplicateJob where this job's behavior allows one at a time: it has not ended itself.
        """
        return self._reaching.reschedule(date, **changes)


def current_job() -> CurrentJob:
    """The job that is running in this context.

    Raises NotInJob outside of one, rather than return None for each caller to look at: code that
    runs in both asks ``in_job()`` first.
    """
    running = _running.get()
    if running is None:
        raise NotInJob(
            "current_job(): no job is running here; a daemon sets it while it runs one, a plain "
            "call of the function does not (ask in_job() first)"
        )
    return running


def in_job() -> bool:
    """Whether this code runs inside of a job."""
    return _running.get() is not None


class use_job:  # noqa: N801 - a verb, as with contextlib's own; a class costs half of a generator
    """Make ``job`` the running one for a with block."""

    __slots__ = ("_job", "_token")

    def __init__(self, job: CurrentJob) -> None:
        self._job = job

    def __enter__(self) -> CurrentJob:
        self._token: Token[CurrentJob | None] = _running.set(self._job)
        return self._job

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _running.reset(self._token)


def current_scheduler() -> Any:
    """The scheduler of the current request or application, for calls on a definition.

    Raises DurableError where there is none.
    """
    scheduler = getattr(get_current_registry(), "scheduler", None)
    if scheduler is None:
        raise DurableError(
            "no application is active here: call registry.scheduler.add_async_job(...), or run "
            "this where Pyramid has made its registry current"
        )
    return scheduler

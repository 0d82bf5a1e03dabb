"""One try at one job: what the steps of the runner pass on, and the call itself (daemon)."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import CoroutineType, MappingProxyType
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper

from .completing import JobSession, joined_session
from .current import CurrentJob
from .definitions import Definition
from .exceptions import BrokenJob, DuplicateJob, InvalidJob, JobTimeout, LostClaim, StoreUnavailable
from .job_transaction import JobTransactionManager
from .jobrequest import JobRequests
from .records import Claim, Progress
from .references import import_name
from .rescheduling import copy_of, is_its_own_duplicate
from .retry import Cancel
from .serializers import EntityRef, Serializer
from .stopping import Guard
from .times import parse_date

log = logging.getLogger(__name__)

PROGRESS_INTERVAL: Final = 0.1
"""Seconds between two writes of a job's progress: people cannot tell, and a loop that reports each
of a million rows is not slowed down. The last report is written in any case."""


class Attempt:
    """One try at one job. The runner fills it in step by step."""

    # What a step fills in stands on the class until then: most of it is never touched.
    begun = False
    definition: Definition
    store: Any = None
    requests: JobRequests
    request: Any = None
    manager: JobTransactionManager
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})
    current: CurrentJob | None = None
    guard: Guard
    serializer: Serializer
    scheduler: Any
    coroutine: Any = None
    result: Any = None
    _on_store = False
    _next_progress = 0.0
    _late_progress: Progress | None = None
    _saved_userdata: str | None = None

    def __init__(
        self,
        claim: Claim,
        started_at: datetime,
        as_of: datetime | None,
        delete_completed: bool,
        on_start: Callable[[Claim], None] | None = None,
    ) -> None:
        self.claim = claim
        self.started_at = started_at
        self.as_of = as_of
        self.delete_completed = delete_completed
        self.on_start = on_start

    def prepare(self, serializer: Serializer, scheduler: Any) -> CurrentJob:
        """Make what ``current_job()`` gives the job's code."""
        self.serializer = serializer
        self.scheduler = scheduler
        claim = self.claim
        userdata = {} if claim.userdata is None else serializer.loads(claim.userdata)
        self.current = CurrentJob(claim.id, claim.attempt + 1, claim.run_at, userdata, self)
        return self.current

    def begin(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The job's own code is next. What cannot be called with these arguments never starts."""
        if self.on_start is not None:
            if not _fits(func, args, kwargs):
                return
            self.on_start(self.claim)
        self.begun = True

    def dump_result(self, max_size: int) -> str | None:
        """The result as text; None where there is none, or it cannot be kept.

        That is no reason to undo what the job did, and to do it again.
        """
        if self.result is None:
            return None
        try:
            text = self.serializer.dumps(self.result)
        except InvalidJob as error:
            self._warn("its result is not kept", f"result{error}")
            return None
        if len(text) > max_size:
            self._warn("its result is not kept", f"it takes {len(text):,} bytes")
            return None
        return text

    def dump_userdata(self) -> str | None:
        """The userdata as text, as the job has left it; None where it has not touched it."""
        current, saved, before = self.current, self._saved_userdata, self.claim.userdata
        if current is None or (not current.userdata and before is None and saved is None):
            return None
        try:
            text = self.serializer.dumps(current.userdata)
        except InvalidJob as error:
            self._warn("its userdata is not saved", f"userdata{error}")
            return saved
        return None if text == before and saved is None else text

    def joined(self) -> JobSession | None:
        """The session this job writes to a database with, None as long as it uses none."""
        found = joined_session(self.store, self.requests.session(self.request), self.manager)
        self._on_store = found is not None and found.on_store
        return found

    def has_transaction(self) -> bool:
        """Whether the job has a transaction open by now, with any database that we know of."""
        try:
            return self.joined() is not None
        except (StoreUnavailable, SQLAlchemyError):
            return True

    def is_on_store(self) -> bool:
        """Whether the job works, or did, on the store's own database.

        A commit that failed has ended the session, so what was found before it counts too.
        """
        if self._on_store or self.request is None:
            return self._on_store
        try:
            self.joined()
        except (StoreUnavailable, SQLAlchemyError):
            # The first job of a process to ask, while the database that would tell is away.
            return True
        return self._on_store

    def finish_progress(self) -> None:
        """Write the last report of progress, if it came too soon after the one before."""
        if self._late_progress is not None:
            self._next_progress = 0.0
            self.set_progress(self._late_progress)

    # What the job's own code asks for: it is what CurrentJob reaches.

    def set_progress(self, progress: Progress) -> None:
        """Show how far the job is, now or when it has been a while since the last time."""
        now = time.monotonic()
        if now < self._next_progress:
            self._late_progress = progress
            return
        self._next_progress = now + PROGRESS_INTERVAL
        self._late_progress = None
        try:
            with self._beside() as connection:
                self.store.jobs.set_progress(connection, self.claim.id, progress)
        except StoreUnavailable as error:
            self._warn("its progress cannot be shown", error)

    def save_userdata(self, userdata: Mapping[str, Any]) -> None:
        """Keep the userdata as they are now. Raises LostClaim."""
        text = self.serializer.dumps(dict(userdata))
        with self._beside() as connection:
            if not self.store.holdings.save_userdata(connection, self.claim, text):
                raise LostClaim(f"job {self.claim.id}: its claim is another daemon's now")
        self._saved_userdata = text

    @contextmanager
    def _beside(self) -> Iterator[Connection]:
        """A connection for what others are to see before the job commits."""
        joined = self.joined() if self.store.dialect.local_clock else None
        if joined is not None and joined.is_writing:
            # SQLite has one writer, and that is this job: its own transaction must carry it.
            yield joined.session.connection()
            return
        with self.store.begin() as connection:
            yield connection

    def reschedule(self, date: Any, **changes: Any) -> str:
        """Add a job like this one; returns its id."""
        claim = self.claim
        userdata = None if self.current is None else self.current.userdata
        func, options = copy_of(claim, self.definition.ref, self.args, self.kwargs, userdata)
        if self.as_of is not None:
            # Else "1d" would be over at once in a run as of next year, and again, without an end.
            date = parse_date(date, now=self.as_of, zone=self.scheduler.settings.zone)
        try:
            id: str = self.scheduler.add_date_job(func, date, **{**options, **changes})
        except DuplicateJob as error:
            if error.id == claim.id and "id" not in changes:
                raise is_its_own_duplicate(claim) from error
            raise
        return id

    def _warn(self, what: str, why: object) -> None:
        extra = {"action": "job_warning", "job": self.claim.id, "queue": self.claim.queue}
        log.warning("job %s: %s: %s", self.claim.id, what, why, extra=extra)


def load_entity(request: Any, name: str, ref: EntityRef) -> Any:
    """Load a mapped object that is an argument, in the job's own session, ``request.<name>``.

    Raises BrokenJob where that is not possible.
    """
    cls = import_name(ref.cls)
    if not isinstance(sqlalchemy.inspect(cls, raiseerr=False), Mapper):
        raise BrokenJob(f"{ref.cls}, an argument's class, is not mapped by SQLAlchemy")
    session = getattr(request, name, None)
    if session is None:
        raise BrokenJob(
            f"an argument is a {ref.cls}, and the request has no {name!r} to load it with "
            "(scheduler.dbsession)"
        )
    found = session.get(cls, ref.pk)
    if found is None:
        raise BrokenJob(f"{ref.cls} {ref.pk!r}, an argument, does not exist any more")
    return found


def invoke(attempt: Attempt) -> Any:
    """Call the job's definition, and run a coroutine to its end; returns what it returned."""
    result = call(attempt)
    return attempt.guard.run(result) if isinstance(result, CoroutineType) else result


def call(attempt: Attempt) -> Any:
    """Call the job's definition; returns what it returned, of an ``async def`` its coroutine.

    Raises what it raises; BrokenJob where it could not even be called; Cancel where a routine says
    that it is not valid any more.
    """
    definition = attempt.definition
    args = attempt.args
    if definition.pass_job:
        args = (attempt.current, *args)
    if definition.pass_request:
        args = (attempt.request, *args)
    func = definition.func
    if definition.is_routine:
        func, args = _routine(attempt, func, args), ()
        kwargs: Mapping[str, Any] = {}
    else:
        kwargs = attempt.kwargs
        attempt.begin(func, args, kwargs)
    try:
        return func(*args, **kwargs)
    except TypeError as error:
        if _was_not_entered(error, func, args, kwargs):
            raise BrokenJob(
                f"{definition.ref} cannot be called with its arguments: {error}"
            ) from error
        raise


def _routine(attempt: Attempt, cls: Any, args: tuple[Any, ...]) -> Any:
    """Construct a routine and check it; returns its ``run``."""
    try:
        routine = cls(*args, **attempt.kwargs)
    except (Cancel, JobTimeout):
        raise
    except Exception as error:
        raise BrokenJob(f"the constructor of {cls.__qualname__} failed: {error!r}") from error
    attempt.begin(routine.run, (), {})
    check = getattr(routine, "check_validity", None)
    if check is not None and not check():
        raise Cancel("check_validity() said that it is not valid any more")
    return routine.run


def _was_not_entered(
    error: TypeError, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Tell a call that did not fit the signature from a TypeError inside the function."""
    trace = error.__traceback__
    if trace is None or trace.tb_next is not None:
        return False
    return not _fits(func, args, kwargs)


def _fits(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function takes these arguments, as far as it tells."""
    try:
        inspect.signature(func).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # a function in C that tells no signature
        return True
    return True

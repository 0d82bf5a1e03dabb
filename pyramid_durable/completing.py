"""A job's end as the last statement of the job's own transaction (daemon)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.orm import Session
from transaction.interfaces import IDataManager, NoTransaction
from zope.interface import implementer
from zope.sqlalchemy.datamanager import STATUS_READONLY

from .exceptions import LostClaim
from .job_transaction import JobTransactionManager
from .joining import StoreSessionManager
from .records import Completion
from .sessions import bind_of, zope_listener

BEFORE_SESSIONS: Final = "~pyramid_durable:end"
"""Sorts between ordinary data managers and zope.sqlalchemy's "~sqlalchemy:…". All sessions flush
in tpc_begin, ours writes in the commit phase, and only in the vote do the sessions commit."""


class JobSession:
    """A session that a job has written with, or may have, and how it is to end.

    ``on_store``: it is on the store's own database, so that the job's end can be part of it.
    ``commits``: nobody else commits it, so that is left to us. ``mark`` tells zope.sqlalchemy that
    something was written.
    """

    def __init__(
        self,
        session: Session,
        *,
        on_store: bool,
        commits: bool = False,
        mark: Callable[[Session], None] | None = None,
    ) -> None:
        self.session = session
        self.on_store = on_store
        self.commits = commits
        self.mark = mark

    @property
    def is_writing(self) -> bool:
        """Whether, on SQLite, it holds the one write lock."""
        if not self.on_store:
            return False
        driver = self.session.connection().connection.dbapi_connection
        return bool(getattr(driver, "in_transaction", False))


def joined_session(
    store: Any, session: Session | None, manager: JobTransactionManager
) -> JobSession | None:
    """The session that a job has used.

    The request's comes first. Where that is on another database, or was not used, it may be the
    one through which the job has added further jobs.
    """
    used = None
    if session is not None and session.in_transaction():
        used = _of_the_request(store, session)
        if used.on_store:
            return used
    if manager.is_untouched:
        return used
    try:
        resources = manager.get()._resources  # the only place that knows who takes part
    except NoTransaction:
        return used
    for resource in resources:
        if isinstance(resource, StoreSessionManager) and resource.session is not None:
            if used is not None and used.commits:
                break
            return JobSession(resource.session, on_store=True)
    return used


def commit(
    store: Any,
    joined: JobSession | None,
    completion: Completion | None,
    manager: JobTransactionManager,
) -> bool:
    """Commit what a job has done; True where its completion was committed with it.

    Raises LostClaim, and whatever a data manager raises.
    """
    part_of_it = joined is not None and joined.on_store
    if joined is not None and (joined.on_store or joined.commits):
        end = SessionEnd(store, joined, completion if part_of_it else None, manager)
        _transaction_of(manager).join(end)
    if manager.is_untouched:
        manager.commit()  # so that it is over for whoever asks from now on
    else:
        _transaction_of(manager).commit()
    return part_of_it


def _transaction_of(manager: JobTransactionManager) -> Any:
    """The transaction to commit; a new one where the job has ended its own by itself."""
    try:
        return manager.get()
    except NoTransaction:
        return manager.begin()


def _of_the_request(store: Any, session: Session) -> JobSession:
    listener = zope_listener(session)
    if listener is None:
        on_store = _is_on(store, session)
        return JobSession(session, on_store=on_store, commits=True)
    readonly = listener.initial_state is STATUS_READONLY
    on_store = not readonly and _is_on(store, session)
    return JobSession(session, on_store=on_store, mark=listener.mark_changed)


def _is_on(store: Any, session: Session) -> bool:
    bind = bind_of(session)
    return bind is not None and store.is_held_by(bind)


@implementer(IDataManager)
class SessionEnd:
    """Writes a completion through the job's session, so that both commit or neither does.

    Raises LostClaim out of the commit when the claim is no longer ours: then nothing of the job is
    kept. A session that zope.sqlalchemy does not know is committed here too.
    """

    def __init__(
        self, store: Any, joined: JobSession, completion: Completion | None, manager: Any
    ) -> None:
        self.transaction_manager = manager
        self._store = store
        self._joined = joined
        self._session = joined.session
        self._completion = completion

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return BEFORE_SESSIONS

    def tpc_begin(self, txn: Any) -> None:
        if self._joined.commits:
            self._session.flush()

    def commit(self, txn: Any) -> None:
        if self._completion is None:
            return
        connection = self._session.connection()
        if not self._store.completions.write(connection, [self._completion]):
            raise LostClaim(
                f"job {self._completion.id}: claim {self._completion.claim_no} is another daemon's "
                "now; what this attempt did is rolled back"
            )
        if self._joined.mark is not None:
            # Core statements alone do not mark the session; unmarked it would be rolled back.
            self._joined.mark(self._session)

    def tpc_vote(self, txn: Any) -> None:
        if self._joined.commits:
            self._session.commit()

    def tpc_finish(self, txn: Any) -> None:
        """It was committed in the vote."""

    def abort(self, txn: Any) -> None:
        if self._joined.commits:
            self._session.rollback()

    def tpc_abort(self, txn: Any) -> None:
        self.abort(txn)

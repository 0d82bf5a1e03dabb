"""Where a call on the scheduler is written: in the caller's transaction, or at once (web, jobs)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import transaction
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session
from transaction._transaction import Status
from transaction.interfaces import ITransaction, ITransactionManager, NoTransaction
from zope.sqlalchemy.datamanager import STATUS_READONLY

from .exceptions import StoreUnavailable
from .joining import Announcement, News, SessionAnnouncement, StoreSessionManager, Tell
from .sessions import bind_of, session_of, zope_listener
from .store import ALONE, WRITING, Store
from .store.outages import is_outage

Made = TypeVar("Made")


class Enlister(Generic[Made]):
    """Finds the transaction a caller is in, and writes there.

    "In a transaction" means: pyramid_tm (or repoze.tm) is active, ``request.tm`` is an explicit
    manager that has begun (a running job's is), or the request's session has begun. Then data and
    job share one database transaction where the session is on the store's database; where it is
    not, a session of our own joins the same transaction manager and commits last. Otherwise the
    call has a short transaction of its own.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        *,
        dbsession: str,
        tell: Tell,
        outbox: Callable[..., Made],
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._dbsession = dbsession
        self._tell = tell
        # Keys of what is kept with a zope transaction, which tells them apart by identity.
        self._announcements = object()
        self._managers = object()

    @contextlib.contextmanager
    def writing(self, request: Any, *, alone: bool = False) -> Iterator[Made]:
        """What writes on a connection, and notes what is to be told when that is committed.

        ``alone``: it will be a single statement.
        Raises StoreUnavailable where the store cannot be reached.
        """
        store = self._store()
        news = News()
        manager, txn = transaction_of(request)
        session = self._deciding_session(store, request, txn)
        if session is not None:
            connection = session.connection()
            yield self._outbox(store, connection, news, gathers=True)
            self._written(session, connection, news)
        elif txn is not None:
            with _outages_of(store):
                connection = self._own_session(store, manager, txn).connection()
                yield self._outbox(store, connection, news)
            self._tell_after(txn, news)
        else:
            with store.begin(ALONE if alone else WRITING) as connection:
                yield self._outbox(store, connection, news)
            if news:
                self._tell(news)

    @contextlib.contextmanager
    def reading(self, request: Any) -> Iterator[Connection]:
        """A connection to read on, one that sees what this transaction has written so far.

        Raises StoreUnavailable where the store cannot be reached.
        """
        store = self._store()
        session = None if request is None else session_of(request, self._dbsession)
        if session is not None and session.in_transaction() and _is_on(store, session):
            yield session.connection()
            return
        _, txn = transaction_of(request)
        kept = None if txn is None else _kept(txn, self._managers)
        if kept is not None and kept.session is not None:
            yield kept.session.connection()
            return
        with store.read() as connection:
            yield connection

    def _deciding_session(
        self, store: Store, request: Any, txn: ITransaction | None
    ) -> Session | None:
        """The request's session, where it is on the store's database and decides about the job.

        In a transaction it is asked for even if nobody did so far: data that are written later
        belong to the same transaction. One that has not begun and follows another manager, or
        none, does not decide: nobody might ever commit it.
        """
        if request is None:
            return None
        if txn is None:
            session = session_of(request, self._dbsession)
        else:
            session = _real(getattr(request, self._dbsession, None))
        if session is None or not _is_on(store, session):
            return None
        listener = zope_listener(session)
        if listener is not None and listener.initial_state is STATUS_READONLY:
            return None
        if session.in_transaction():
            return session
        if listener is None or txn is None:
            return None
        try:
            return session if listener.transaction_manager.get() is txn else None
        except NoTransaction:
            return None

    def _written(self, session: Session, connection: Connection, news: News) -> None:
        listener = zope_listener(session)
        if listener is not None:
            # Core statements alone do not mark the session, and it would roll back. Only now has
            # it surely joined, with the manager that the listener knows.
            listener.mark_changed(session)
            self._tell_after(listener.transaction_manager.get(), news, connection)
        elif news:
            announcement = session.info.get(self._announcements)
            if announcement is None:
                announcement = SessionAnnouncement(session, self._tell)
                session.info[self._announcements] = announcement
            announcement.add(news)

    def _tell_after(
        self, txn: ITransaction, news: News, connection: Connection | None = None
    ) -> None:
        if not news:
            return
        announcement = _kept(txn, self._announcements)
        if announcement is None:
            announcement = Announcement(self._tell, self._write)
            txn.set_data(self._announcements, announcement)
        announcement.add(txn, news, connection)

    def _write(self, connection: Connection) -> None:
        self._store().jobs.write_gathered(connection)

    def _own_session(self, store: Store, manager: ITransactionManager, txn: Any) -> Session:
        kept = _kept(txn, self._managers)
        # A rollback to a savepoint from before it joined has ended it.
        if kept is None or kept.session is None:
            session = Session(store.engine)
            store.dialect.let_idle(session.connection())
            kept = StoreSessionManager(session, manager)
            txn.set_data(self._managers, kept)
        own: Session = kept.session
        return own


def transaction_of(
    request: Any,
) -> tuple[ITransactionManager | None, ITransaction | None]:
    """The transaction that the request is in, with its manager; (None, None) outside of one.

    A thread-local manager begins by itself when it is asked for its transaction, so it counts
    only while pyramid_tm or repoze.tm says that it will end it.
    """
    if request is None:
        return None, None
    environ = request.environ
    if environ.get("tm.active"):
        manager = environ.get("tm.manager") or request.tm
    elif "repoze.tm.active" in environ:
        manager = transaction.manager
    else:
        manager = getattr(request, "tm", None)
        if not getattr(manager, "explicit", False):
            return None, None
    try:
        txn = manager.get()
    except NoTransaction:
        return None, None
    # Inside an after-commit hook the transaction is still there, but takes nothing any more.
    return (None, None) if txn.status is Status.COMMITTED else (manager, txn)


def is_in_transaction(request: Any, dbsession: str) -> bool:
    """Tell whether what the request asks for now would wait for a commit."""
    if request is None:
        return False
    if transaction_of(request)[1] is not None:
        return True
    session = session_of(request, dbsession)
    return session is not None and session.in_transaction()


def _real(session: Any) -> Session | None:
    """The session behind a scoped one; None for what is no session."""
    if isinstance(session, scoped_session):
        session = session()
    return session if isinstance(session, Session) else None


def _is_on(store: Store, session: Session) -> bool:
    bind = bind_of(session)
    return bind is not None and store.is_held_by(bind)


def _kept(txn: ITransaction, key: object) -> Any:
    try:
        return txn.data(key)
    except KeyError:
        return None


@contextlib.contextmanager
def _outages_of(store: Store) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not is_outage(error):
            raise
        raise StoreUnavailable(f"the store {store.masked_url}: {error.orig}") from error

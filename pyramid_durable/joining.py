"""What takes part in the caller's transaction, and acts when it has been committed (web, jobs)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager, ITransaction
from zope.interface import implementer
from zope.sqlalchemy.datamanager import STATUS_CHANGED, SessionDataManager


class News:
    """What is to be done when a transaction has been committed: queues to be announced, and ids of
    jobs that this process runs itself, in their order."""

    def __init__(self, queues: Iterable[str] = (), inline: Iterable[str] = ()) -> None:
        self.queues = set(queues)
        self.inline = dict.fromkeys(inline)

    def __bool__(self) -> bool:
        return bool(self.queues or self.inline)

    def add(self, news: News) -> None:
        """Take these in too."""
        self.queues |= news.queues
        self.inline |= news.inline

    def copy(self) -> News:
        """The same, not changed by what comes later."""
        return News(self.queues, self.inline)


Tell = Callable[[News], None]
Write = Callable[[Connection], None]

log = logging.getLogger(__name__)

# zope.sqlalchemy commits sessions one after the other during the vote, those with "~sqlalchemy:"
# in the order of their keys. The application's goes first, so that a job is never there without
# the data it is about; then the store's; then whoever acts on a commit that is sure.
STORE_KEY: Final = "~~pyramid_durable:1:store"
AFTER_KEY: Final = "~~pyramid_durable:2:after"


class StoreSessionManager(SessionDataManager):
    """Joins a session of our own, on the store's engine, to the application's transaction."""

    def __init__(self, session: Session, manager: Any) -> None:
        super().__init__(session, STATUS_CHANGED, manager)

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return STORE_KEY

    @property
    def savepoint(self) -> Callable[[], Any]:
        """Also on SQLite, where the store begins its transactions itself; see its dialect."""
        return self._savepoint


@implementer(ISavepointDataManager)
class Announcement:
    """Tells the news of a transaction, when all of it has been committed.

    Before anybody votes, it has written what is gathered for the connections it is given: once the
    first session has committed, little may go wrong with the others.

    A data manager rather than an after-commit hook: a transaction that has such hooks aborts all
    its other data managers when they are done, which not all of them expect.
    """

    transaction_manager = None

    def __init__(self, tell: Tell, write: Write) -> None:
        self._tell = tell
        self._write = write
        self._connections: set[Connection] = set()
        self._joined = False
        self.news = News()

    def add(self, txn: ITransaction, news: News, connection: Connection | None) -> None:
        """Tell this too. After a rollback to an earlier savepoint it joins once more."""
        if not self._joined:
            txn.join(self)
            self._joined = True
        self.news.add(news)
        if connection is not None:
            self._connections.add(connection)

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self)

    def abort(self, txn: ITransaction) -> None:
        self.news = News()
        self._joined = False

    def tpc_begin(self, txn: ITransaction) -> None:
        """Nothing to prepare."""

    def commit(self, txn: ITransaction) -> None:
        for connection in self._connections:
            self._write(connection)

    def tpc_vote(self, txn: ITransaction) -> None:
        """No objection."""

    def tpc_finish(self, txn: ITransaction) -> None:
        if self.news:
            self._tell(self.news)

    def tpc_abort(self, txn: ITransaction) -> None:
        self.abort(txn)

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return AFTER_KEY


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, announcement: Announcement) -> None:
        self._announcement = announcement
        self._then = announcement.news.copy()

    def rollback(self) -> None:
        self._announcement.news = self._then.copy()


class SessionAnnouncement:
    """The same for a session that zope.sqlalchemy knows nothing of: its own events tell.

    There is one for each session, however many transactions it sees.
    """

    def __init__(self, session: Session, tell: Tell) -> None:
        self._tell = tell
        self._news = News()
        self._committed = False
        self._rolled_back = False
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_transaction_end)

    def add(self, news: News) -> None:
        """Tell this when the session commits."""
        self._news.add(news)

    def _after_commit(self, session: Session) -> None:
        # Sent for the release of a savepoint too.
        self._committed = not session.in_nested_transaction()

    def _after_rollback(self, session: Session) -> None:
        self._rolled_back = not session.in_nested_transaction()

    def _after_transaction_end(self, session: Session, txn: SessionTransaction) -> None:
        if txn.parent is not None:
            return
        news, self._news = self._news, News()
        committed, self._committed = self._committed, False
        rolled_back, self._rolled_back = self._rolled_back, False
        if not news:
            return
        if committed:
            # Only now has the session given its connection back, which an inline job may need.
            self._tell(news)
        elif not rolled_back:
            queues = sorted(news.queues)
            log.warning(
                "a session was closed without a commit: the jobs added in it are gone, for %s",
                ", ".join([*queues, *news.inline]),
                extra={"action": "jobs_discarded", "queues": queues},
            )

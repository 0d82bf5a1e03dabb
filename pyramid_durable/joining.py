"""What takes part in the caller's transaction, and acts when it has been committed (web, jobs)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager, ITransaction
from zope.interface import implementer
from zope.sqlalchemy.datamanager import STATUS_CHANGED, SessionDataManager

Announce = Callable[[Collection[str]], None]

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
    """Hands the queues of a transaction's new jobs on, when all of it has been committed.

    A data manager rather than an after-commit hook: a transaction that has such hooks aborts all
    its other data managers when they are done, which not all of them expect.
    """

    transaction_manager = None

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._joined = False
        self._queues: set[str] = set()

    def add(self, txn: ITransaction, queues: Collection[str]) -> None:
        """Announce these too. After a rollback to an earlier savepoint it joins once more."""
        if not self._joined:
            txn.join(self)
            self._joined = True
        self._queues.update(queues)

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self._queues)

    def abort(self, txn: ITransaction) -> None:
        self._queues.clear()
        self._joined = False

    def tpc_begin(self, txn: ITransaction) -> None:
        """Nothing to prepare."""

    def commit(self, txn: ITransaction) -> None:
        """Nothing is written."""

    def tpc_vote(self, txn: ITransaction) -> None:
        """No objection."""

    def tpc_finish(self, txn: ITransaction) -> None:
        if self._queues:
            self._announce(frozenset(self._queues))

    def tpc_abort(self, txn: ITransaction) -> None:
        self.abort(txn)

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return AFTER_KEY


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, queues: set[str]) -> None:
        self._queues = queues
        self._then = frozenset(queues)

    def rollback(self) -> None:
        self._queues.intersection_update(self._then)


class SessionAnnouncement:
    """The same for a session that zope.sqlalchemy knows nothing of: its own events tell.

    There is one for each session, however many transactions it sees.
    """

    def __init__(self, session: Session, announce: Announce) -> None:
        self._announce = announce
        self._queues: set[str] = set()
        self._rolled_back = False
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_transaction_end)

    def add(self, queues: Collection[str]) -> None:
        """Announce these when the session commits."""
        self._queues.update(queues)

    def _after_commit(self, session: Session) -> None:
        # Sent for the release of a savepoint too.
        if self._queues and not session.in_nested_transaction():
            queues, self._queues = self._queues, set()
            self._announce(queues)

    def _after_rollback(self, session: Session) -> None:
        self._rolled_back = not session.in_nested_transaction()

    def _after_transaction_end(self, session: Session, txn: SessionTransaction) -> None:
        if txn.parent is not None:
            return
        if self._queues and not self._rolled_back:
            log.warning(
                "a session was closed without a commit: the jobs added in it are gone, for %s",
                ", ".join(sorted(self._queues)),
                extra={"action": "jobs_discarded", "queues": sorted(self._queues)},
            )
        self._queues.clear()
        self._rolled_back = False

"""Commands in the caller's transaction: published when it commits, or at once (web)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from transaction.interfaces import (
    IDataManagerSavepoint,
    ISavepointDataManager,
    ITransaction,
    NoTransaction,
)
from zope.interface import implementer

from .command_items import Item
from .commanding import CommandOutbox, Message, Sender
from .enqueue import transaction_of
from .exceptions import DurableError
from .joining import STORE_KEY
from .sessions import session_of, zope_listener

log = logging.getLogger(__name__)


class CommandEnlister:
    """Finds the transaction a caller is in, as Enlister does, and publishes when it commits.

    ``check`` raises InvalidJob for a function that no daemon would run.
    """

    def __init__(self, sender: Sender, *, dbsession: str, check: Callable[[str], None]) -> None:
        self._sender = sender
        self._dbsession = dbsession
        self._check = check
        # The key of what is kept with a zope transaction or a session.
        self._kept = object()

    @contextlib.contextmanager
    def writing(self, request: Any) -> Iterator[CommandOutbox]:
        """What to put commands into; they are published when the caller's transaction commits.

        Raises BrokerUnavailable where there is none, and the broker cannot be reached.
        """
        outbox = CommandOutbox(self._check)
        yield outbox
        if not outbox.items:
            return
        _, txn = transaction_of(request)
        session = None
        if txn is None and request is not None:
            txn, session = _begun(session_of(request, self._dbsession))
        if txn is not None:
            self._of_transaction(txn).add(txn, outbox.items)
        elif session is not None:
            self._of_session(session).add(outbox.items)
        else:
            self._sender.send(self._sender.seal(outbox.items))

    def _of_transaction(self, txn: ITransaction) -> TransactionCommands:
        try:
            kept: TransactionCommands = txn.data(self._kept)
        except KeyError:
            kept = TransactionCommands(self._sender)
            txn.set_data(self._kept, kept)
        return kept

    def _of_session(self, session: Session) -> SessionCommands:
        kept: SessionCommands | None = session.info.get(self._kept)
        if kept is None:
            kept = session.info[self._kept] = SessionCommands(session, self._sender)
        return kept


def _begun(session: Session | None) -> tuple[ITransaction | None, Session | None]:
    """The transaction that a session has begun outside of pyramid_tm: zope's, or its own."""
    if session is None or not session.in_transaction():
        return None, None
    listener = zope_listener(session)
    if listener is None:
        return None, session
    try:
        return listener.transaction_manager.get(), None
    except NoTransaction:
        return None, None


@implementer(ISavepointDataManager)
class TransactionCommands:
    """The commands of one zope transaction.

    It votes after the application's session has committed: a command is never there without the
    data it is about. So that the data are not there without the command, the broker is asked
    before anything is committed; what remains is a broker that goes away in between.
    """

    transaction_manager = None

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._joined = False
        self._items: list[Item] = []
        self._messages: list[Message] = []

    def add(self, txn: ITransaction, items: Sequence[Item]) -> None:
        """Publish these too. After a rollback to an earlier savepoint it joins once more."""
        if not self._joined:
            try:
                txn.join(self)
            except ValueError as error:
                raise DurableError(
                    "the transaction is being committed already and takes no first job any more; "
                    "ask for it before the commit, or after it"
                ) from error
            self._joined = True
        self._items.extend(items)

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self._items)

    def abort(self, txn: ITransaction) -> None:
        self._items.clear()
        self._joined = False

    def tpc_begin(self, txn: ITransaction) -> None:
        if self._items:
            self._sender.probe()

    def commit(self, txn: ITransaction) -> None:
        # Not in the vote: what cannot be written as a command has to fail before data are there.
        self._messages = self._sender.seal(self._items)

    def tpc_vote(self, txn: ITransaction) -> None:
        self._sender.send(self._messages)

    def tpc_finish(self, txn: ITransaction) -> None:
        self.abort(txn)

    def tpc_abort(self, txn: ITransaction) -> None:
        self.abort(txn)

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return STORE_KEY


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, items: list[Item]) -> None:
        self._items = items
        self._then = len(items)

    def rollback(self) -> None:
        del self._items[self._then :]


class SessionCommands:
    """The commands of a session that zope.sqlalchemy knows nothing of.

    Its own events tell. After the commit nobody can object any more, so the commands are sent
    right before it, when the data have been flushed. There is one for each session, however many
    transactions it sees.
    """

    def __init__(self, session: Session, sender: Sender) -> None:
        self._sender = sender
        self._items: list[Item] = []
        # How many there were when a savepoint was made. Of those made before we listened we know
        # as much: there were none.
        self._marks: WeakKeyDictionary[SessionTransaction, int] = WeakKeyDictionary()
        event.listen(session, "before_commit", self._before_commit)
        event.listen(session, "after_transaction_create", self._after_create)
        event.listen(session, "after_soft_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_end)

    def add(self, items: Sequence[Item]) -> None:
        """Publish these when the session commits."""
        self._items.extend(items)

    def _before_commit(self, session: Session) -> None:
        # Sent for the release of a savepoint too.
        if not self._items or session.in_nested_transaction():
            return
        session.flush()
        self._sender.send(self._sender.seal(self._items))
        self._items.clear()

    def _after_create(self, session: Session, txn: SessionTransaction) -> None:
        if txn.nested:
            self._marks[txn] = len(self._items)

    def _after_rollback(self, session: Session, txn: SessionTransaction) -> None:
        if txn.nested:
            del self._items[self._marks.get(txn, 0) :]
        elif txn.parent is None:
            self._items.clear()

    def _after_end(self, session: Session, txn: SessionTransaction) -> None:
        if txn.parent is not None:
            return
        if self._items:
            log.warning(
                "a session was closed without a commit: its jobs are not published: %s",
                ", ".join(item.id for item in self._items),
                extra={"action": "jobs_discarded", "jobs": [item.id for item in self._items]},
            )
            self._items.clear()

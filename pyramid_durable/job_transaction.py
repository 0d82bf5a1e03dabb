"""The transaction of one attempt, made when somebody first asks for it (daemon)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from transaction import Transaction, TransactionManager
from transaction._transaction import Status
from transaction.interfaces import AlreadyInTransaction, NoTransaction
from transaction.weakset import WeakSet


class _NoSynchs:
    """A set of synchronizers that is empty; the library's own costs as much as a transaction."""

    def __bool__(self) -> bool:
        return False

    def map(self, call: Callable[[Any], Any]) -> None:
        """Call it for each of them."""

    def remove(self, synch: Any) -> None:
        raise KeyError(id(synch))

    def clear(self) -> None:
        """Forget them all."""


_NO_SYNCHS: Final = _NoSynchs()


class JobTransaction(Transaction):
    """The library's transaction, made and ended in a third of the time where nothing takes part.

    Its constructor looks for a logger with the thread's name, under a lock that all loggers share;
    its commit asks hooks, synchronizers and resources in turn, and then forgets them.
    """

    log = logging.getLogger("txn")  # as the library's, but for the thread's number
    _failure_traceback = None

    def __init__(self, synchronizers: Any, manager: Any) -> None:
        self.status = Status.ACTIVE
        self._synchronizers = synchronizers
        self._manager = manager
        self._resources: list[Any] = []
        self._adapters: Any = {}
        self._voted: Any = {}
        self.extension: Any = {}
        self._before_commit: list[Any] = []
        self._after_commit: list[Any] = []
        self._before_abort: list[Any] = []
        self._after_abort: list[Any] = []

    def commit(self) -> None:
        alone = not (
            self._resources
            or self._before_commit
            or self._after_commit
            or self._synchronizers
            or self._savepoint2index
        )
        if alone and self.status is Status.ACTIVE:
            self.status = Status.COMMITTED
            self._free()
        else:
            super().commit()


class JobTransactionManager(TransactionManager):
    """An explicit manager that is in a transaction from ``open`` to ``commit`` or ``abort``.

    To everybody who asks it is what it would be after ``begin``. A job that never asks, and with
    which nothing takes part, costs no transaction: making and ending one takes as long as many a
    small job.
    """

    def __init__(self) -> None:
        # Not the library's: it makes the set of synchronizers, which hardly any job has.
        self.explicit = True
        self._txn: Any = None
        self._synchs: Any = _NO_SYNCHS
        self._opened = False
        self._lock = threading.RLock()

    def open(self) -> None:
        """Begin a transaction, as ``begin`` does, without making it yet."""
        self._opened = self._txn is None

    @property
    def is_untouched(self) -> bool:
        """Whether it is in a transaction that nobody has asked for: nothing takes part in it."""
        return self._opened

    def begin(self) -> Any:
        if self._opened or self._txn is not None:
            raise AlreadyInTransaction
        return self._make()

    def get(self) -> Any:
        if self._opened:
            # Two threads of the job may be the first to ask; and what hears of a new one asks.
            with self._lock:
                if self.is_untouched:
                    self._make()
        txn = self._txn
        if txn is None:
            raise NoTransaction
        return txn

    def _make(self) -> JobTransaction:
        txn = self._txn = JobTransaction(self._synchs, self)
        # Before anybody is told, who may ask for it, end it, or fail.
        self._opened = False
        if self._synchs:
            self._synchs.map(lambda synch: synch.newTransaction(txn))
        return txn

    def registerSynch(self, synch: Any) -> None:  # noqa: N802 - the interface's word
        if self._opened:
            self.get()  # it is to hear of this transaction's end
        with self._lock:
            if self._synchs is _NO_SYNCHS:
                self._synchs = WeakSet()
                if self._txn is not None:
                    self._txn._synchronizers = self._synchs
        super().registerSynch(synch)

    def commit(self) -> None:
        if self._opened:
            self._opened = False
        else:
            super().commit()

    def abort(self) -> None:
        if self._opened:
            self._opened = False
        else:
            super().abort()

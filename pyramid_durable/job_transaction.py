"""The transaction of one attempt, made when somebody first asks for it (daemon)."""

from __future__ import annotations

import threading
from typing import Any

from transaction import TransactionManager
from transaction.interfaces import AlreadyInTransaction


class JobTransactionManager(TransactionManager):
    """An explicit manager that is in a transaction from ``open`` to ``commit`` or ``abort``.

    To everybody who asks it is what it would be after ``begin``. A job that never asks, and with
    which nothing takes part, costs no transaction: making and ending one takes as long as many a
    small job.
    """

    def __init__(self) -> None:
        super().__init__(explicit=True)
        self._opened = False
        self._lock = threading.RLock()

    def open(self) -> None:
        """Begin a transaction, as ``begin`` does, without making it yet."""
        self._opened = True

    @property
    def is_untouched(self) -> bool:
        """Whether it is in a transaction that nobody has asked for: nothing takes part in it."""
        return self._opened

    def begin(self) -> Any:
        if self._opened:
            raise AlreadyInTransaction
        return super().begin()

    def get(self) -> Any:
        if self._opened:
            self._make()
        return super().get()

    def _make(self) -> None:
        # Two threads of the job may be the first to ask; and what hears of a new transaction asks.
        with self._lock:
            if self._opened and self._txn is None:
                super().begin()
            self._opened = False

    def registerSynch(self, synch: Any) -> None:  # noqa: N802 - the interface's word
        if self._opened:
            self.get()  # it is to hear of this transaction's end
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

import threading

import pytest
import transaction
from transaction.interfaces import AlreadyInTransaction, NoTransaction

from pyramid_durable.job_transaction import JobTransactionManager


@pytest.fixture
def manager():
    made = JobTransactionManager()
    made.open()
    return made


class Synch:
    def __init__(self):
        self.heard = []

    def newTransaction(self, txn):  # noqa: N802 - the interface's word
        self.heard.append("new")

    def beforeCompletion(self, txn):  # noqa: N802
        self.heard.append("before")

    def afterCompletion(self, txn):  # noqa: N802
        self.heard.append("after")


def test_whoever_asks_gets_the_one_transaction(manager):
    assert manager.is_untouched
    txn = manager.get()
    assert manager.get() is txn
    assert not manager.is_untouched
    assert not manager.isDoomed()
    manager.commit()
    with pytest.raises(NoTransaction):
        manager.get()


@pytest.mark.parametrize("touched", [False, True])
def test_it_is_in_a_transaction_like_any_explicit_manager(manager, touched):
    if touched:
        manager.get()
    with pytest.raises(AlreadyInTransaction):
        manager.begin()


@pytest.mark.parametrize("end", ["commit", "abort"])
@pytest.mark.parametrize("touched", [False, True])
def test_after_its_end_there_is_none_until_one_is_begun(manager, touched, end):
    if touched:
        manager.get()
    getattr(manager, end)()
    assert not manager.is_untouched
    for call in (manager.get, manager.commit, manager.abort):
        with pytest.raises(NoTransaction):
            call()
    txn = manager.begin()
    assert manager.get() is txn


def test_doom_counts_although_nobody_had_asked_before(manager):
    manager.doom()
    with pytest.raises(transaction.interfaces.DoomedTransaction):
        manager.commit()


def test_a_synchronizer_hears_of_the_whole_transaction(manager):
    synch = Synch()
    manager.registerSynch(synch)
    manager.commit()
    assert synch.heard == ["new", "before", "after"]


def test_threads_that_are_the_first_to_ask_get_the_same_one():
    for _ in range(200):
        manager = JobTransactionManager()
        manager.open()
        gate = threading.Barrier(3)
        found = []

        def ask(manager=manager, gate=gate, found=found):
            gate.wait(10)
            found.append(manager.get())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3
        assert len(set(map(id, found))) == 1


def test_a_synchronizer_may_ask_for_the_transaction_it_hears_of(manager):
    found = []

    class Asking(Synch):
        def newTransaction(self, txn):  # noqa: N802
            found.append((txn, manager.get()))

    synch = Asking()
    manager.commit()
    manager.registerSynch(synch)
    manager.open()
    txn = manager.get()
    assert found == [(txn, txn)]


def test_a_synchronizer_that_fails_leaves_a_transaction_that_can_be_ended(manager):
    class Failing(Synch):
        def newTransaction(self, txn):  # noqa: N802 - the interface's word
            super().newTransaction(txn)
            raise ValueError("not with me")

    synch = Failing()
    manager.commit()
    manager.registerSynch(synch)
    manager.open()
    with pytest.raises(ValueError, match="not with me"):
        manager.get()
    assert not manager.is_untouched
    manager.abort()
    assert synch.heard == ["new", "before", "after"]
    with pytest.raises(NoTransaction):
        manager.get()


def test_opening_one_that_has_begun_changes_nothing(manager):
    txn = manager.get()
    manager.open()
    assert manager.get() is txn
    assert not manager.is_untouched


def test_it_has_what_the_librarys_own_manager_has(manager):
    assert vars(manager).keys() >= vars(transaction.TransactionManager(explicit=True)).keys()


def test_its_transaction_has_what_the_librarys_own_has(manager):
    own = transaction.Transaction()
    txn = manager.get()
    assert all(hasattr(txn, name) for name in vars(own))
    assert {name: getattr(txn, name) for name in ("status", "extension", "_failure_traceback")} == {
        name: getattr(own, name) for name in ("status", "extension", "_failure_traceback")
    }
    manager.commit()
    own.commit()
    kept = set(vars(own)) - {"log", "_synchronizers", "_failure_traceback"}
    assert {name: vars(txn)[name] for name in kept} == {name: vars(own)[name] for name in kept}


class Resource:
    """A data manager that notes what it is asked, and refuses where it is told to."""

    transaction_manager = None

    def __init__(self, refuses=None):
        self.heard = []
        self.refuses = refuses

    def sortKey(self):  # noqa: N802 - the interface's word
        return "resource"

    def _hear(self, what):
        self.heard.append(what)
        if what == self.refuses:
            raise ValueError(what)

    def __getattr__(self, name):
        if name in {"tpc_begin", "commit", "tpc_vote", "tpc_finish", "tpc_abort", "abort"}:
            return lambda txn: self._hear(name)
        raise AttributeError(name)


def test_what_takes_part_is_committed_in_two_phases(manager):
    resource = Resource()
    manager.get().join(resource)
    manager.commit()
    assert resource.heard == ["tpc_begin", "commit", "tpc_vote", "tpc_finish"]


def test_a_commit_that_fails_is_told_and_stays_failed(manager):
    manager.get().join(Resource(refuses="tpc_vote"))
    for error in (ValueError, transaction.interfaces.TransactionFailedError):
        with pytest.raises(error):
            manager.commit()
    manager.abort()
    with pytest.raises(NoTransaction):
        manager.get()


def test_hooks_are_called_where_nothing_takes_part(manager):
    heard = []
    txn = manager.get()
    txn.addBeforeCommitHook(heard.append, ("before",))
    txn.addAfterCommitHook(heard.append)
    manager.commit()
    assert heard == ["before", True]
    manager.begin().addAfterAbortHook(heard.append, ("aborted",))
    manager.abort()
    assert heard == ["before", True, "aborted"]


def test_a_commit_alone_forgets_what_was_kept_with_it(manager):
    txn, key = manager.get(), object()
    txn.set_data(key, "kept")
    savepoint = txn.savepoint()
    manager.commit()
    with pytest.raises(KeyError):
        txn.data(key)
    with pytest.raises(transaction.interfaces.InvalidSavepointRollbackError):
        savepoint.rollback()
    assert txn.status == "Committed"


def test_synchronizers_come_and_go(manager):
    synch, other = Synch(), Synch()
    assert not manager.registeredSynchs()
    with pytest.raises(KeyError):
        manager.unregisterSynch(synch)
    manager.clearSynchs()
    manager.get()
    manager.registerSynch(synch)
    manager.registerSynch(other)
    assert manager.registeredSynchs()
    manager.unregisterSynch(other)
    manager.commit()
    assert synch.heard == ["new", "before", "after"]
    assert other.heard == ["new"]
    manager.clearSynchs()
    assert not manager.registeredSynchs()

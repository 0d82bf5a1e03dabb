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


def test_it_has_what_the_librarys_own_manager_has(manager):
    assert vars(manager).keys() >= vars(transaction.TransactionManager(explicit=True)).keys()


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

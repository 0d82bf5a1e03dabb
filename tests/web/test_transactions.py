"""Law 1 in real applications: a job exists exactly if the transaction that asked for it commits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import transaction
import zope.sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from transaction.interfaces import ISavepointDataManager
from zope.interface import implementer

from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.scheduler import Scheduler
from tests.web.jobs import charge, report
from tests.web.site import Rental, Site

MakeSite = Callable[..., Site]
CHARGE = "tests.web.jobs:charge"
REPORT = "tests.web.jobs:report"

APPLICATIONS = [
    pytest.param({"tm": tm, "session": session, "where": where}, id=f"{tm}-{session}-{where}")
    for tm in ("explicit", "thread")
    for session, where in (("zope", "same"), ("zope", "other"), (None, "same"))
]
"""All of these leave the commit to pyramid_tm."""


class ViewError(Exception):
    """What a view raises."""


def rent(request: Any) -> None:
    if hasattr(request, "dbsession"):
        request.dbsession.add(Rental(ski="blue"))


def fail(request: Any) -> None:
    raise ViewError


@pytest.fixture(params=["request", "registry"])
def scheduler_of(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """The two spellings, which behave the same."""
    if request.param == "request":
        return lambda request: request.scheduler
    return lambda request: request.registry.scheduler


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_view_that_commits_leaves_its_rows_and_its_job(
    site: MakeSite, options: dict[str, Any], scheduler_of: Callable[[Any], Any]
) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        rent(request)
        scheduler_of(request).add_async_job(charge, [1])
        assert here.jobs() == []
        assert here.announced == []

    here.get(view)
    assert here.jobs() == [CHARGE]
    assert here.rentals() == (options["session"] is not None)
    # After the commit: who hears it finds the job.
    assert here.announced == [({"default"}, 1)]


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_view_that_raises_leaves_neither_job_nor_announcement(
    site: MakeSite, options: dict[str, Any], scheduler_of: Callable[[Any], Any]
) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        rent(request)
        scheduler_of(request).add_async_job(charge, [1])
        scheduler_of(request).add_interval_job(charge, minutes=5, id="often")
        fail(request)

    with pytest.raises(ViewError):
        here.get(view)
    assert (here.jobs(), here.schedules(), here.rentals(), here.announced) == ([], [], 0, [])


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_job_that_comes_before_the_data_is_in_the_same_transaction(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        request.scheduler.add_async_job(charge)
        rent(request)

    here.get(view)
    assert here.jobs() == [CHARGE]
    assert here.rentals() == (options["session"] is not None)


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_doomed_transaction_leaves_nothing(site: MakeSite, options: dict[str, Any]) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        request.scheduler.add_async_job(charge)
        request.tm.doom()

    here.get(view)
    assert (here.jobs(), here.announced) == ([], [])


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_commit_that_fails_leaves_nothing(site: MakeSite, options: dict[str, Any]) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        request.scheduler.add_async_job(charge)
        request.tm.get().join(Objector())

    with pytest.raises(ViewError):
        here.get(view)
    assert (here.jobs(), here.announced) == ([], [])


@implementer(ISavepointDataManager)
class Objector:
    """Takes part in a transaction and votes against it, before the sessions commit."""

    def tpc_vote(self, txn: Any) -> None:
        raise ViewError

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return "a"

    def _nothing(self, txn: Any) -> None: ...

    tpc_begin = commit = tpc_finish = tpc_abort = abort = _nothing


@pytest.mark.parametrize("options", APPLICATIONS)
def test_one_announcement_for_all_queues_of_a_transaction(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        for queue in ("default", "mail", "mail", "default"):
            request.scheduler.add_async_job(charge, queue=queue)

    here.get(view)
    assert here.announced == [({"default", "mail"}, 4)]


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_view_sees_its_own_jobs_before_the_commit(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)
    seen: list[Any] = []

    def view(request: Any) -> None:
        id = request.scheduler.add_async_job(charge, [7])
        request.scheduler.add_interval_job(charge, minutes=5, id="often")
        seen.append(request.scheduler.get_job(id))
        seen.append(request.registry.scheduler.get_jobs())
        seen.append([schedule.id for schedule in request.scheduler.get_schedules()])
        assert here.jobs() == []

    here.get(view)
    job, jobs, schedules = seen
    assert job.args == (7,)
    assert jobs == [job]
    assert schedules == ["often"]


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_job_is_cancelled_exactly_if_the_transaction_commits(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)
    id = here.scheduler.add_async_job(charge)

    def cancel(request: Any) -> None:
        assert request.scheduler.cancel_job(id) is True

    with pytest.raises(ViewError):
        here.get(lambda request: (cancel(request), fail(request)))
    assert here.scheduler.get_job(id).state == "scheduled"
    here.get(cancel)
    assert here.scheduler.get_job(id).state == "cancelled"


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_duplicate_id_leaves_the_transaction_usable(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)
    here.scheduler.add_async_job(charge, id="one")

    def view(request: Any) -> None:
        rent(request)
        with pytest.raises(DuplicateJob, match="'one'"):
            request.scheduler.add_async_job(charge, id="one")
        request.scheduler.add_async_job(report)

    here.get(view)
    assert here.jobs() == [CHARGE, REPORT]
    assert here.rentals() == (options["session"] is not None)


def test_many_jobs_at_once(site: MakeSite) -> None:
    here = site()

    def view(request: Any) -> None:
        ids = request.scheduler.add_jobs(
            [
                {"func": charge, "args": [1]},
                {"func": report, "queue": "mail", "date": "5d"},
                {"func": report, "minutes": 5, "id": "often"},
                {"func": report, "crontab": "0 3 * * *", "id": "nightly"},
            ]
        )
        assert ids[2:] == ["often", "nightly"]
        assert len(set(ids)) == 4

    here.get(view)
    assert here.jobs() == [CHARGE, REPORT]
    assert here.schedules() == ["nightly", "often"]
    assert here.announced == [({"default", "mail"}, 2)]
    assert here.scheduler.add_jobs([]) == []


def test_the_applications_own_objects_as_arguments(site: MakeSite) -> None:
    here = site()

    def view(request: Any) -> None:
        rental = Rental(ski="blue")
        request.dbsession.add(rental)
        request.dbsession.flush()
        ids = [
            request.scheduler.add_async_job(charge, [rental], content_object=rental),
            request.scheduler.add_async_job(rental.remind, [1]),
            request.scheduler.add_async_job("remind", [1], content_object=rental),
        ]
        first, *methods = [request.scheduler.get_job(id) for id in ids]
        assert first.args[0] == first.args[1]
        for job in methods:
            assert job.func == "tests.web.site:Rental.remind"
            assert job.args == (first.args[0], 1)

    here.get(view)
    assert len(here.jobs()) == 3


# Savepoints and other sub-transactions.


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along(site: MakeSite) -> None:
    # Without a session of the application's, which on SQLite would refuse savepoints.
    here = site(session=None)

    def view(request: Any) -> None:
        request.scheduler.add_async_job(report)
        savepoint = request.tm.savepoint()
        request.scheduler.add_async_job(charge, queue="mail")
        savepoint.rollback()

    here.get(view)
    assert here.jobs() == [REPORT]
    assert here.announced == [({"default"}, 1)]


def test_a_savepoint_before_the_first_job(site: MakeSite) -> None:
    here = site(session=None)

    def view(request: Any) -> None:
        savepoint = request.tm.savepoint()
        request.scheduler.add_async_job(charge, queue="mail")
        savepoint.rollback()
        request.scheduler.add_async_job(report)

    here.get(view)
    assert here.jobs() == [REPORT]
    assert here.announced == [({"default"}, 1)]


def test_savepoints_of_a_session_that_shares_its_database(site: MakeSite, store: Any) -> None:
    if "sqlite" in store.dialect.names:
        pytest.skip("zope.sqlalchemy has no savepoints on SQLite")
    here = site()

    def view(request: Any) -> None:
        request.scheduler.add_async_job(report)
        savepoint = request.tm.savepoint()
        rent(request)
        request.scheduler.add_async_job(charge, queue="mail")
        savepoint.rollback()
        with pytest.raises(ViewError), request.dbsession.begin_nested():
            request.scheduler.add_async_job(charge)
            raise ViewError
        with request.dbsession.begin_nested():
            request.scheduler.add_async_job(report)

    here.get(view)
    assert here.jobs() == [REPORT, REPORT]
    assert here.rentals() == 0
    assert here.announced == [({"default"}, 2)]


# Sessions that zope.sqlalchemy does not know: their own commit decides.


@pytest.mark.parametrize("tm", [None, "explicit"])
def test_a_session_of_its_own_decides_by_its_commit(site: MakeSite, tm: str | None) -> None:
    here = site(tm=tm, session="plain")

    def commits(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge)
        assert (here.jobs(), here.announced) == ([], [])
        request.dbsession.commit()
        assert here.announced == [({"default"}, 1)]

    here.get(commits)
    assert (here.jobs(), here.rentals(), len(here.announced)) == ([CHARGE], 1, 1)


@pytest.mark.parametrize("tm", [None, "explicit"])
def test_a_session_of_its_own_that_is_rolled_back(
    site: MakeSite, tm: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(tm=tm, session="plain")

    def rolls_back(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge, queue="mail")
        request.dbsession.rollback()
        rent(request)
        request.scheduler.add_async_job(report)
        request.dbsession.commit()

    here.get(rolls_back)
    assert (here.jobs(), here.rentals()) == ([REPORT], 1)
    assert here.announced == [({"default"}, 1)]
    assert caplog.records == []


@pytest.mark.parametrize("tm", [None, "explicit"])
def test_a_session_of_its_own_under_a_view_that_raises(site: MakeSite, tm: str | None) -> None:
    here = site(tm=tm, session="plain")

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge)
        fail(request)

    with pytest.raises(ViewError):
        here.get(view)
    assert (here.jobs(), here.rentals(), here.announced) == ([], 0, [])


def test_jobs_that_go_with_a_session_nobody_commits_are_logged(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(tm=None, session="plain")

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge)

    with caplog.at_level(logging.WARNING, "pyramid_durable"):
        here.get(view)
    assert here.jobs() == []
    assert [record.action for record in caplog.records] == ["jobs_discarded"]  # type: ignore[attr-defined]


def test_a_session_of_its_own_that_has_not_begun_leaves_the_job_to_pyramid_tm(
    site: MakeSite,
) -> None:
    here = site(session="plain")
    here.get(lambda request: (request.dbsession, request.scheduler.add_async_job(charge)))
    assert here.jobs() == [CHARGE]
    with pytest.raises(ViewError):
        here.get(lambda request: (request.scheduler.add_async_job(report), fail(request)))
    assert here.jobs() == [CHARGE]


def test_the_release_of_a_savepoint_is_no_commit(site: MakeSite, store: Any) -> None:
    if "sqlite" in store.dialect.names:
        pytest.skip("Python's driver begins no transaction before a savepoint on SQLite")
    here = site(tm=None, session="plain")

    def view(request: Any) -> None:
        with request.dbsession.begin_nested():
            request.scheduler.add_async_job(charge)
        assert here.announced == []
        request.dbsession.commit()

    here.get(view)
    assert here.announced == [({"default"}, 1)]


# Without pyramid_tm.


def test_without_a_transaction_a_job_exists_at_once(site: MakeSite) -> None:
    here = site(tm=None, session=None)

    def view(request: Any) -> None:
        request.scheduler.add_async_job(charge)
        assert here.jobs() == [CHARGE]
        assert here.announced == [({"default"}, 1)]
        fail(request)

    with pytest.raises(ViewError):
        here.get(view)
    assert here.jobs() == [CHARGE]


def test_without_a_request_a_job_exists_at_once(site: MakeSite) -> None:
    here = site()
    here.scheduler.add_async_job(charge)
    assert here.jobs() == [CHARGE]
    assert here.announced == [({"default"}, 1)]


@pytest.mark.parametrize("session", ["plain", "zope"])
def test_a_session_that_has_not_begun_is_no_transaction(site: MakeSite, session: str) -> None:
    here = site(tm=None, session=session)

    def view(request: Any) -> None:
        assert not request.dbsession.in_transaction()
        request.scheduler.add_async_job(charge)
        assert here.jobs() == [CHARGE]

    here.get(view)


def test_the_thread_local_manager_without_pyramid_tm(site: MakeSite) -> None:
    here = site(tm=None, session="zope")

    def aborts(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge)
        transaction.abort()

    def commits(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(report)
        assert here.jobs() == []
        transaction.commit()

    here.get(aborts)
    assert (here.jobs(), here.rentals(), here.announced) == ([], 0, [])
    here.get(commits)
    assert (here.jobs(), here.rentals()) == ([REPORT], 1)
    assert here.announced == [({"default"}, 1)]


# Corners.


def test_the_applications_own_session_commits_first(site: MakeSite) -> None:
    here = site(where="other")
    order: list[str] = []

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge)
        request.tm.get().join(Witness(lambda: order.append(f"{here.rentals()} {here.jobs()}")))

    here.get(view)
    # Between the two commits, as far as one can look: the data are there, the job is not yet.
    assert order == ["1 []"]
    assert here.jobs() == [CHARGE]


@implementer(ISavepointDataManager)
class Witness:
    """Looks on during the vote, after the application's sessions and before the store's."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look

    def tpc_vote(self, txn: Any) -> None:
        self._look()

    def sortKey(self) -> str:  # noqa: N802 - the interface's word
        return "~sqlalchemy:zzz"

    def _nothing(self, txn: Any) -> None: ...

    tpc_begin = commit = tpc_finish = tpc_abort = abort = _nothing


def test_after_the_commit_is_outside_of_the_transaction(site: MakeSite) -> None:
    here = site()

    def view(request: Any) -> None:
        rent(request)
        request.tm.get().addAfterCommitHook(
            lambda committed: request.scheduler.add_async_job(charge)
        )
        request.add_finished_callback(lambda request: request.scheduler.add_async_job(report))

    here.get(view)
    assert here.jobs() == [CHARGE, REPORT]
    assert here.announced == [({"default"}, 1), ({"default"}, 2)]


def test_a_read_only_session_is_left_alone(site: MakeSite) -> None:
    def configure(config: Any) -> None:
        def reader(request: Any) -> Session:
            session = sessionmaker(config.registry["engine"])()
            zope.sqlalchemy.register(session, "readonly", transaction_manager=request.tm)
            return session

        config.add_request_method(reader, "reader", reify=True)

    here = site(configure=configure, settings={"scheduler.dbsession": "reader"})
    here.scheduler.registry["engine"] = here.engine

    def view(request: Any) -> None:
        request.reader.query(Rental).all()
        request.scheduler.add_async_job(charge)

    here.get(view)
    assert here.jobs() == [CHARGE]


def test_a_scoped_session(site: MakeSite) -> None:
    scoped: Any = scoped_session(sessionmaker())
    zope.sqlalchemy.register(scoped)

    def configure(config: Any) -> None:
        config.add_request_method(lambda request: scoped, "db", property=True)

    here = site(
        tm="thread", session=None, configure=configure, settings={"scheduler.dbsession": "db"}
    )
    scoped.configure(bind=here.engine)

    def view(request: Any) -> None:
        request.scheduler.add_async_job(charge)
        scoped.add(Rental(ski="red"))

    with pytest.raises(ViewError):
        here.get(lambda request: (view(request), fail(request)))
    assert (here.jobs(), here.rentals()) == ([], 0)
    here.get(view)
    assert (here.jobs(), here.rentals()) == ([CHARGE], 1)


def test_a_session_under_another_name(site: MakeSite) -> None:
    def configure(config: Any) -> None:
        config.add_request_method(lambda request: request.dbsession, "db", reify=True)

    here = site(configure=configure, settings={"scheduler.dbsession": "db"})

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(charge)
        connection = request.dbsession.connection()
        assert here.store.jobs.list(connection) != []

    here.get(view)
    assert here.jobs() == [CHARGE]


def test_a_session_that_follows_another_manager_does_not_decide(site: MakeSite) -> None:
    # The slip of an application: nobody will ever commit this session.
    def configure(config: Any) -> None:
        def lost(request: Any) -> Session:
            session = sessionmaker(config.registry["engine"])()
            zope.sqlalchemy.register(session, transaction_manager=transaction.TransactionManager())
            return session

        config.add_request_method(lost, "lost", reify=True)

    here = site(configure=configure, settings={"scheduler.dbsession": "lost"})
    here.scheduler.registry["engine"] = here.engine
    here.get(lambda request: request.scheduler.add_async_job(charge))
    assert here.jobs() == [CHARGE]


def test_another_applications_request_is_not_joined(site: MakeSite) -> None:
    here = site(session=None)

    def view(request: Any) -> None:
        # As where one WSGI process serves two applications that know each other.
        other = Scheduler(type(request.registry)("other"))
        other.registry.settings = request.registry.settings
        other.broker.announce = lambda queues: None  # type: ignore[method-assign]
        other.add_async_job(report)
        assert here.jobs() == [REPORT]
        fail(request)

    with pytest.raises(ViewError):
        here.get(view)
    assert here.jobs() == [REPORT]

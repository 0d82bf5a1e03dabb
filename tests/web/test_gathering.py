"""A view that asks for several jobs has them as if each were written at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from pyramid_durable.store import Store
from tests.store.wire import Wire, recorded
from tests.web.jobs import charge, report
from tests.web.site import Site
from tests.web.test_transactions import APPLICATIONS, CHARGE, REPORT, ViewError, Witness, fail, rent

MakeSite = Callable[..., Site]


def ask(request: Any, number: int = 3, func: Any = charge) -> list[str]:
    return [request.scheduler.add_async_job(func, [n]) for n in range(number)]


def inserts(wire: Wire) -> int:
    return sum("INSERT" in statement and "_job" in statement for statement, _ in wire.statements)


@pytest.mark.parametrize("options", APPLICATIONS)
def test_they_exist_exactly_if_the_view_commits(site: MakeSite, options: dict[str, Any]) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        ask(request)
        rent(request)
        ask(request)
        assert here.jobs() == []

    with pytest.raises(ViewError):
        here.get(lambda request: (view(request), fail(request)))
    assert (here.jobs(), here.announced) == ([], [])
    here.get(view)
    assert here.jobs() == [CHARGE] * 6
    assert here.announced == [({"default"}, 6)]


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_view_that_does_nothing_else_commits_them(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)
    here.get(ask)
    assert here.jobs() == [CHARGE] * 3
    assert here.announced == [({"default"}, 3)]


@pytest.mark.parametrize("options", APPLICATIONS)
def test_the_view_sees_and_changes_them(site: MakeSite, options: dict[str, Any]) -> None:
    here = site(**options)

    def view(request: Any) -> None:
        scheduler = request.scheduler
        ids = ask(request)
        assert [job.id for job in scheduler.get_jobs()] == ids[::-1]
        ids = ask(request)
        assert scheduler.get_job(ids[-1]).args == (2,)
        for change in (scheduler.cancel_job, scheduler.pause_job, scheduler.remove_job):
            assert change(ask(request)[-1]) is True
        scheduler.modify_job(ask(request)[-1], priority=1)
        scheduler.reschedule_job(ask(request)[-1], "1h")
        assert scheduler.stats() is not None

    here.get(view)
    assert len(here.jobs()) == 20
    assert len(here.scheduler.get_jobs(state="cancelled")) == 1
    assert [job.args for job in here.scheduler.get_jobs() if job.priority == 1] == [(2,)]


@pytest.mark.parametrize(
    ("session", "where"), [("zope", "same"), ("zope", "other"), (None, "same")]
)
def test_jobs_that_are_asked_for_while_it_commits(
    site: MakeSite, session: str | None, where: str
) -> None:
    here = site(session=session, where=where)

    def view(request: Any) -> None:
        ask(request)
        request.tm.get().addBeforeCommitHook(lambda: ask(request, func=report))
        if session is None:
            return
        rent(request)

        def flushed(session: Any, context: Any) -> None:
            ask(request)

        event.listen(request.dbsession, "after_flush", flushed, once=True)

    here.get(view)
    assert here.jobs() == [CHARGE] * (3 if session is None else 6) + [REPORT] * 3
    assert here.announced == [({"default"}, len(here.jobs()))]


@pytest.mark.parametrize("tm", [None, "explicit"])
def test_a_session_of_its_own_takes_them_along(site: MakeSite, tm: str | None) -> None:
    here = site(tm=tm, session="plain")

    def view(request: Any) -> None:
        rent(request)
        ask(request)
        request.dbsession.rollback()
        rent(request)
        ask(request)
        assert here.announced == []
        with recorded(here.engine) as wire:
            request.dbsession.commit()
        assert inserts(wire) == 1
        rent(request)
        ask(request)

    here.get(view)
    assert here.jobs() == [CHARGE] * 3
    assert here.announced == [({"default"}, 3)]


def test_savepoints_take_theirs_along(site: MakeSite, store: Store) -> None:
    if "sqlite" in store.dialect.names:
        pytest.skip("zope.sqlalchemy has no savepoints on SQLite")
    here = site()

    def view(request: Any) -> None:
        ask(request, func=report)
        savepoint = request.tm.savepoint()
        ask(request)
        savepoint.rollback()
        ask(request, func=report)
        with pytest.raises(ViewError), request.dbsession.begin_nested():
            ask(request)
            raise ViewError
        with request.dbsession.begin_nested():
            ask(request, func=report)

    here.get(view)
    assert here.jobs() == [REPORT] * 9
    assert here.announced == [({"default"}, 9)]


def test_they_are_written_before_anybody_votes(site: MakeSite) -> None:
    # Once the application's other session has committed, an INSERT that fails would be too late.
    here = site()
    written: list[int] = []

    def view(request: Any) -> None:
        ask(request, 10)
        witness = Witness(lambda: written.append(inserts(wire)))
        witness.sortKey = lambda: "a"  # type: ignore[method-assign]
        request.tm.get().join(witness)

    with recorded(here.engine) as wire:
        here.get(view)
    assert written == [2]
    assert inserts(wire) == 2


def test_one_that_cannot_be_written_takes_everything_back(
    site: MakeSite, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    taken = here.scheduler.add_async_job(report)

    def view(request: Any) -> None:
        rent(request)
        ask(request)
        monkeypatch.setattr("pyramid_durable.job_specs.new_id", lambda: taken)
        request.scheduler.add_async_job(charge)

    with pytest.raises(IntegrityError):
        here.get(view)
    assert (here.jobs(), here.rentals()) == ([REPORT], 0)
    assert len(here.announced) == 1


def test_what_cannot_be_a_job_is_refused_at_the_call(site: MakeSite) -> None:
    here = site()

    def view(request: Any) -> None:
        ask(request)
        for wrong in ({"func": lambda: None}, {"func": charge, "args": [object()]}):
            with pytest.raises(ValueError, match=r"."):
                request.scheduler.add_async_job(**wrong)
        with pytest.raises(TypeError):
            request.scheduler.add_async_job(charge, colour="red")

    here.get(view)
    assert here.jobs() == [CHARGE] * 3


def test_a_statement_of_the_application_sees_them(site: MakeSite, store: Store) -> None:
    here = site()
    count = text(f"SELECT count(*) FROM {store.tables.job.fullname}")

    def view(request: Any) -> None:
        ask(request)
        assert request.dbsession.execute(count).scalar_one() == 3
        ask(request)
        assert request.dbsession.connection().execute(count).scalar_one() == 6

    here.get(view)
    assert here.jobs() == [CHARGE] * 6

"""The claim of a lone job without a look: what it takes, what it leaves, and that nobody gets it twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyramid_durable.exceptions import StoreUnavailable
from pyramid_durable.records import JobSpec
from pyramid_durable.store import Store
from pyramid_durable.store import prompt as module

from .conftest import register

Make = Callable[..., JobSpec]


@pytest.fixture
def prompt_store(store: Store) -> Store:
    if not store.prompt.possible:
        pytest.skip("this database claims after a look only")
    register(store, "me")
    return store


def add(store: Store, *specs: JobSpec) -> None:
    with store.begin() as connection:
        store.jobs.add(connection, specs)


def take(store: Store, *queues: str) -> list[str]:
    return [claim.id for claim in store.prompt.take("me", queues or ("default",))]


def test_only_a_database_that_skips_what_is_locked_is_claimed_from_without_a_look(
    store: Store,
) -> None:
    assert store.prompt.possible == (store.engine.dialect.name == "postgresql")


def test_the_first_by_priority_and_time_of_these_queues_is_claimed_and_starts(
    prompt_store: Store, spec: Make
) -> None:
    store = prompt_store
    add(store, spec(id="a"), spec(id="b"), spec(id="urgent", priority=1, queue="mail"))
    add(store, spec(id="later", delay=60.0, priority=0), spec(id="elsewhere", queue="other"))
    assert [take(store, "default", "mail") for _ in range(4)] == [["urgent"], ["a"], ["b"], []]
    with store.read() as connection:
        job = store.jobs.get(connection, "a")
    assert job is not None
    assert (job.state, job.owner, job.claim_no, job.due_at) == ("running", "me", 1, None)
    assert job.started_at is not None


def test_it_is_the_same_claim_as_any_other(prompt_store: Store, spec: Make) -> None:
    store = prompt_store
    given = {"options": {"timeout": 5}, "group": "g", "userdata": "{}", "max_attempts": 3}
    add(store, spec(id="a", **given), spec(id="b", **given))
    (one,) = store.prompt.take("me", ["default"])
    with store.begin() as connection:
        look = store.looks.look(connection, ["default"])
        (other,) = store.claims.take(connection, "me", look, 1, starting=1)
    own = {"id": "", "run_at": one.run_at, "claimed_at": one.claimed_at}
    assert one._replace(**own) == other._replace(**own)
    assert one.options == {"timeout": 5}
    assert one.started


def test_what_needs_more_than_a_claim_is_left_to_one_after_a_look(
    prompt_store: Store, spec: Make
) -> None:
    store = prompt_store
    once = {"key": "k", "behavior": "RUN_ONCE"}
    add(store, spec(id="compared", options=once), spec(id="back", queue="mail"))
    add(store, spec(id="paused", queue="shop"))
    with store.begin() as connection:
        look = store.looks.look(connection, ["mail"])
        store.holdings.release(connection, store.claims.take(connection, "me", look, 1))
        connection.execute(store.tables.queue.insert().values(name="shop", paused=True))
    for queue in ("default", "mail", "shop"):
        assert take(store, queue) == [], queue
    with store.read() as connection:
        assert {job.state for job in store.jobs.list(connection)} == {"scheduled"}


def test_a_job_that_another_is_claiming_is_passed_over(prompt_store: Store, spec: Make) -> None:
    store = prompt_store
    add(store, spec(id="a"), spec(id="b"))
    with store.begin() as connection:
        look = store.looks.look(connection, ["default"])
        assert [claim.id for claim in store.claims.take(connection, "me", look, 1)] == ["a"]
        assert take(store) == ["b"]
        assert take(store) == []


def test_each_job_is_had_once_however_many_ask(prompt_store: Store, spec: Make) -> None:
    store = prompt_store
    add(store, *(spec(id=f"{number:02}") for number in range(40)))

    def ask(_: int) -> list[str]:
        return [id for _ in range(20) for id in take(store)]

    with ThreadPoolExecutor(4) as pool:
        had = [id for ids in pool.map(ask, range(4)) for id in ids]
    assert sorted(had) == sorted(set(had))
    with store.read() as connection:
        jobs = store.jobs.list(connection, limit=100)
    assert {job.id for job in jobs if job.state == "running"} == set(had)


def test_a_connection_that_was_slow_is_not_used_again(
    prompt_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = prompt_store

    def session() -> int:
        with store.read() as connection:
            number: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            return number

    before = session()
    take(store)
    assert session() == before
    monkeypatch.setattr(module, "SLOW", 0.0)
    take(store)
    assert session() != before


def test_a_connection_that_breaks_is_an_outage_and_not_used_again(
    prompt_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = prompt_store
    broken = "SELECT pg_terminate_backend(pg_backend_pid())", {}, []
    with monkeypatch.context() as patched:
        patched.setattr(store.prompt, "_compiled", lambda *args: broken)
        with pytest.raises(StoreUnavailable):
            take(store)
    assert take(store) == []

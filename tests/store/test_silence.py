"""Peers that do not answer, and servers that do not take writes any more, on real databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.orm import Session

from pyramid_durable.exceptions import InvalidSetting, StoreUnavailable
from pyramid_durable.store import ALONE, LOOKING, SWEEPING, WRITING, Store, patience
from tests.concurrent.proxy import Proxy
from tests.processes.deployment import database
from tests.services import service_url

ANSWER = 0.5
"""Seconds that one answer may take, as the URL says."""


@contextmanager
def behind_a_proxy(kind: str, timeout: str) -> Iterator[tuple[Store, Proxy]]:
    url = make_url(service_url(kind))
    proxy = Proxy(url.host or "127.0.0.1", url.port or {"postgresql": 5432}.get(kind, 3306))
    limits = {"read_timeout": timeout, "connect_timeout": "2"}
    through = url.set(host="127.0.0.1", port=proxy.port).update_query_dict(limits)
    store = Store(through.render_as_string(hide_password=False))
    try:
        yield store, proxy
    finally:
        proxy.close()
        store.dispose()


def _noting(execute: Any, asked: list[object]) -> Any:
    """``execute`` of a cursor, that notes what it is asked."""

    def noting(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        asked.append(query)
        return execute(cursor, query, *args, **options)

    return noting


def ask(store: Store, question: str = "SELECT 1", purpose: str = WRITING) -> None:
    with store.begin(purpose) as connection:
        connection.exec_driver_sql(question, {})


@pytest.mark.parametrize("purpose", [WRITING, ALONE])
@pytest.mark.parametrize(("kind", "timeout"), [("postgresql", "0.5"), ("mariadb", "1")])
def test_a_peer_that_says_nothing_is_an_outage_within_the_timeout(
    kind: str, timeout: str, purpose: str
) -> None:
    with behind_a_proxy(kind, timeout) as (store, proxy):
        ask(store)
        with pytest.raises(StoreUnavailable), store.begin(purpose) as connection:
            proxy.swallow()
            began = time.monotonic()
            connection.exec_driver_sql("SELECT 2", {})
        assert float(timeout) <= time.monotonic() - began < 5
        proxy.heal()
        ask(store)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_an_answer_that_takes_long_is_waited_for_within_the_timeout(kind: str) -> None:
    with behind_a_proxy(kind, "30") as (store, _):
        ask(store, {"postgresql": "SELECT pg_sleep(0.5)", "mariadb": "SELECT sleep(0.5)"}[kind])


def test_another_process_s_migration_is_waited_for_longer() -> None:
    """A migration of a large table may take minutes; the next one waits for it."""
    with behind_a_proxy("postgresql", str(ANSWER)) as (store, _), store.begin() as connection:
        locked, waits = threading.Event(), threading.Event()
        got: list[float] = []

        def migrate() -> None:
            locked.wait(10)
            with store.begin() as second:
                waits.set()
                with store.dialect.schema_lock(second, "slow"):
                    got.append(time.monotonic())

        other = threading.Thread(target=migrate)
        other.start()
        with store.dialect.schema_lock(connection, "slow"):
            locked.set()
            waits.wait(10)
            time.sleep(3 * ANSWER)
            released = time.monotonic()
        connection.commit()
        other.join(10)
        assert len(got) == 1
        assert got[0] >= released


@pytest.mark.parametrize("given", ["none", "0", "-1"])
def test_a_timeout_that_is_none_is_said(given: str) -> None:
    store = Store(f"postgresql+psycopg://u@127.0.0.1:1/x?read_timeout={given}")
    with pytest.raises(InvalidSetting, match="read_timeout"):
        store.engine  # noqa: B018 - made at its first use


@pytest.mark.parametrize("purpose", [WRITING, ALONE])
def test_connections_to_a_server_that_has_become_a_standby_are_dropped(
    tmp_path: Path, purpose: str
) -> None:
    """They answer well, so nothing else would ever end them."""
    with database("postgresql", tmp_path) as url:
        store = Store(url)
        ask(store, "CREATE TABLE written (number integer)")
        with store.engine.connect() as one, store.engine.connect() as two:
            for connection in (one, two):
                connection.execute(text("SET SESSION default_transaction_read_only = on"))
                connection.commit()
        write = "INSERT INTO written VALUES (1)"
        with pytest.raises(StoreUnavailable, match="read-only"):
            ask(store, write, purpose)
        # Both are gone, and what the URL leads to takes writes.
        with store.begin():
            ask(store, write)
        store.dispose()


def test_a_connection_that_was_closed_just_now_is_not_used() -> None:
    url, who = service_url("postgresql"), text("SELECT pg_backend_pid()")
    store, other = Store(url), Store(url)
    with store.begin() as connection:
        pid = connection.execute(who).scalar_one()
    with other.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    ask(store, purpose=ALONE)
    with store.begin() as connection:
        assert connection.execute(who).scalar_one() != pid
    store.dispose()
    other.dispose()


def test_a_connection_is_asked_whether_it_is_there_only_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    store = Store(service_url("postgresql"))
    ask(store)
    monkeypatch.setattr(psycopg.Cursor, "execute", _noting(psycopg.Cursor.execute, asked))
    monkeypatch.setattr(patience, "FRESH", 60.0)
    ask(store, "SELECT 2")
    assert [one for one in asked if not str(one).startswith("BEGIN")] == ["SELECT 2"]
    monkeypatch.setattr(patience, "FRESH", 0.0)
    ask(store, "SELECT 3")
    assert len(asked) == 5, "no ping"
    store.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize(
    ("purpose", "plans"), [(WRITING, "force_custom_plan"), (LOOKING, "force_generic_plan")]
)
def test_a_transaction_of_ours_has_its_settings_whatever_the_server_prefers(
    driver: str, purpose: str, plans: str
) -> None:
    prefers = {"options": "-c default_transaction_isolation=serializable"}
    url = make_url(service_url("postgresql")).set(drivername=f"postgresql+{driver}")
    store = Store(url.update_query_dict(prefers).render_as_string(hide_password=False))
    names = (
        "transaction_isolation",
        "enable_seqscan",
        "idle_in_transaction_session_timeout",
        "jit",
        "plan_cache_mode",
    )
    question = text(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
    as_it_was = ("serializable", "on", "0", "on", "auto")
    try:
        for _ in range(2):
            with store.begin(purpose) as connection:
                found = connection.execute(question).one()
            assert found == ("read committed", "off", "10s", "off", plans)
            with store.begin(SWEEPING) as connection:
                found = connection.execute(question).one()
                assert found == ("read committed", "on", "10s", "on", "auto")
                # A migration may compute for as long as it likes.
                with store.dialect.schema_lock(connection, "settings"):
                    assert connection.execute(question).one()[2] == "0"
            # What is read alone, and a session that an application has, are left as they are.
            with store.read() as connection:
                assert connection.execute(question).one() == as_it_was
            with store.engine.connect() as connection:
                assert connection.execute(question).one() == as_it_was
    finally:
        store.dispose()


def test_an_application_that_begins_on_our_engine_in_its_own_way_can_roll_back(
    store: Store,
) -> None:
    if store.engine.dialect.name == "sqlite":
        pytest.skip("its driver begins no transaction by itself")
    with store.begin():
        pass
    row = store.tables.meta.insert().values(name="of the application", value="1")
    session = Session(store.engine, twophase=True)
    session.execute(row)
    session.rollback()
    session.close()
    with store.begin():
        pass
    raw = store.engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute(f"INSERT INTO {store.tables.meta.name} (name, value) VALUES ('raw', '1')")
    raw.rollback()
    raw.close()
    with store.read() as connection:
        names = connection.execute(select(store.tables.meta.c.name)).scalars().all()
    assert not {"of the application", "raw"} & set(names)

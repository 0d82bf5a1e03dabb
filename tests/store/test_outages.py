"""What errors of drivers mean, by their codes, and by what real databases say."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError

from pyramid_durable.exceptions import StoreUnavailable
from pyramid_durable.store import Store
from pyramid_durable.store.database import TOUCHED
from pyramid_durable.store.dialects.mariadb import MariaDB
from pyramid_durable.store.outages import is_away, is_outage
from pyramid_durable.store.patience import FRESH

AWAY, BUSY, WRONG = "away", "busy", "wrong"


def meaning(found: BaseException, *, cut: bool = False) -> str:
    error = DBAPIError("SELECT 1", {}, found, connection_invalidated=cut)
    if is_away(error):
        assert is_outage(error)
        return AWAY
    return BUSY if is_outage(error) else WRONG


def postgresql(kind: type[psycopg.Error], state: str | None) -> psycopg.Error:
    made = type(kind.__name__, (kind,), {"sqlstate": state, "__module__": "psycopg.errors"})
    return made("said so")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, AWAY),  # no answer at all
        ("08006", AWAY),  # connection lost
        ("57P01", AWAY),  # an administrator ends it
        ("57P03", AWAY),  # starting up
        ("53100", AWAY),  # disk full
        ("53300", AWAY),  # too many connections
        ("25006", AWAY),  # read-only
        ("25P03", AWAY),  # idle in a transaction for too long
        ("28P01", AWAY),  # password
        ("3D000", AWAY),  # no such database
        ("40P01", BUSY),  # deadlock
        ("40001", BUSY),  # serialization
        ("55P03", BUSY),  # lock timeout
        ("57014", BUSY),  # statement timeout
        ("54000", WRONG),  # too large
        ("42883", WRONG),
    ],
)
def test_what_postgresql_says(state: str | None, expected: str) -> None:
    assert meaning(postgresql(psycopg.OperationalError, state)) == expected
    assert meaning(postgresql(psycopg.DataError, state)) == WRONG


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2003, "Can't connect"), AWAY),
        ((2006, "gone away"), AWAY),
        ((2013, "Lost connection"), AWAY),
        ((1290, "read-only"), AWAY),
        ((1114, "The table is full"), AWAY),
        ((1927, "Connection was killed"), AWAY),
        ((0, ""), AWAY),  # PyMySQL: the connection is closed
        ((1205, "Lock wait timeout"), BUSY),
        ((1213, "Deadlock"), BUSY),
        ((1054, "Unknown column"), WRONG),
        ((1153, "packet bigger than max_allowed_packet"), WRONG),
    ],
)
def test_what_mariadb_says(arguments: tuple[Any, ...], expected: str) -> None:
    assert meaning(pymysql.err.OperationalError(*arguments)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("database or disk is full", AWAY),
        ("disk I/O error", AWAY),
        ("attempt to write a readonly database", AWAY),
        ("unable to open database file", AWAY),
        ("database is locked", BUSY),
        ("no such table: job", WRONG),
        ('near "SELEC": syntax error', WRONG),
    ],
)
def test_what_sqlite_says(said: str, expected: str) -> None:
    assert meaning(sqlite3.OperationalError(said)) == expected


def test_a_connection_that_is_cut_is_an_outage_whatever_is_said() -> None:
    assert meaning(ValueError("?"), cut=True) == AWAY


@pytest.mark.parametrize("statement", ["SELEC 1", "SELECT nothing FROM nowhere"])
def test_a_wrong_statement_is_no_outage(store: Store, statement: str) -> None:
    with pytest.raises(DBAPIError) as caught, store.read() as connection:
        connection.execute(text(statement))
    assert not is_outage(caught.value)


def test_the_store_tells_whether_it_takes_writes(store: Store, tmp_path: Path) -> None:
    assert store.works()
    nowhere = Store(f"sqlite:///{tmp_path / 'missing' / 'store.db'}")
    assert not nowhere.works()
    (first,) = touched(store)
    assert store.works()
    (second,) = touched(store)
    assert first != second, "what is there already is not written again, and tells nothing"


def touched(store: Store) -> list[str]:
    meta = store.tables.meta
    with store.read() as connection:
        return list(
            connection.execute(select(meta.c.value).where(meta.c.name == TOUCHED)).scalars()
        )


def test_a_connection_that_is_lost_when_it_is_set_back_is_an_outage(store: Store) -> None:
    """SQLAlchemy passes the driver's error on as it is."""
    if store.dialect.names != MariaDB.names:
        pytest.skip("nothing is asked of the server then")
    with pytest.raises(StoreUnavailable, match="the database of"), store.read() as connection:
        id = connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
        with store.engine.connect() as other:
            other.execute(text(f"KILL {int(id)}"))
    assert store.works()


def test_a_connection_that_was_ended_while_it_lay_idle_is_never_used(store: Store) -> None:
    """However short ago it was answered."""
    ending = {"postgresql": "SELECT pg_terminate_backend({}, 5000)", "mysql": "KILL {}"}
    asking = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
    kind = store.url.get_backend_name()
    if kind not in ending:
        pytest.skip("nobody ends a connection to a file")
    other = create_engine(store.url)
    for using in (store.begin, store.read):
        with store.begin() as connection:
            id = connection.execute(text(asking[kind])).scalar_one()
        with other.begin() as connection:
            connection.execute(text(ending[kind].format(int(id))))
        with using() as connection:
            assert connection.execute(text(asking[kind])).scalar_one() != id
    other.dispose()


def test_a_server_that_has_just_answered_is_not_asked_whether_it_is_there(store: Store) -> None:
    if store.engine.dialect.driver != "psycopg":
        pytest.skip("these are asked each time")
    assert store.works()
    with store.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
    heard = driver._heard
    with store.engine.connect() as connection:
        again: Any = connection.connection.dbapi_connection
        assert again is driver, "the last one used is the next"
    assert driver._heard == heard
    driver._heard -= FRESH
    rested = driver._heard
    with store.engine.connect():
        assert driver._heard > rested, "one that has rested is asked"

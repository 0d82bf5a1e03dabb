"""How the demo decides what to start, and reads its environment."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session

import demo
from demo import database
from demo.filters import distance, money, when
from demo.models import Ski, utcnow


@pytest.mark.parametrize(
    ("script", "combined", "expected"),
    [
        ("pserve", "true", True),
        ("pserve", "false", False),
        ("pshell", "true", False),
        ("bootstrap", "true", False),
        (None, "true", False),
    ],
)
def test_the_daemon_starts_at_once_only_under_pserve(script, combined, expected):
    global_config = {} if script is None else {"__script__": script}
    assert demo.runs_jobs_here(global_config, {"scheduler.combined": combined}) is expected


def test_the_environment_names_database_and_broker():
    environ = {
        "DEMO_DATABASE_URL": "postgresql+psycopg://u:p%40ss@db/demo",
        "DEMO_BROKER_URL": "redis://cache/0",
        "DEMO_SECRET": "",
        "HOME": "/root",
    }
    assert demo.from_environment(environ) == {
        "sqlalchemy.url": "postgresql+psycopg://u:p%40ss@db/demo",
        "scheduler.broker.url": "redis://cache/0",
    }


def test_the_environment_wins_over_the_ini(settings, monkeypatch, tmp_path):
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    monkeypatch.setenv("DEMO_DATABASE_URL", elsewhere)
    app = demo.main({}, **settings)
    assert str(app.registry.dbengine.url) == elsewhere
    assert app.registry.settings["sqlalchemy.url"] == elsewhere


def test_the_schedules_are_declared_but_nothing_is_stored_by_starting_up(browser):
    tables = inspect(browser.app.registry.dbengine).get_table_names()
    assert "demo_ski" in tables
    assert not [name for name in tables if name.startswith("durable_")]


def test_first_rows_are_added_once(browser, session):
    engine = browser.app.registry.dbengine
    database.initialize(browser.app.registry)
    database.initialize(browser.app.registry)
    with Session(engine) as again:
        assert again.scalar(select(func.count()).select_from(Ski)) == 6


def test_an_unreachable_database_is_reported_and_does_not_stop_the_start(
    settings, tmp_path, caplog
):
    settings["sqlalchemy.url"] = f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite'}"
    settings["scheduler.jobstore.default.url"] = f"sqlite:///{tmp_path / 'store.sqlite'}"
    demo.main({}, **settings)
    (record,) = [r for r in caplog.records if r.name == "demo.database"]
    assert "unable to open database file" in record.getMessage()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12, "in 12 s"),
        (-12, "12 s ago"),
        (0, "0 s ago"),
        (180, "in 3 min"),
        (-3 * 3600, "3 h ago"),
        (30 * 86400, "in 30 days"),
    ],
)
def test_distances_read_like_speech(seconds, text):
    assert distance(seconds) == text


def test_times_and_money_in_templates():
    assert when(None) == "–"
    assert ">in 10 s<" in when(utcnow() + timedelta(seconds=10.2))
    assert [money(600), money(None)] == ["$600.00", "$0.00"]

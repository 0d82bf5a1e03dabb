"""The demo as an application to click through, on a database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from webtest import TestApp

import demo


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "sqlalchemy.url": f"sqlite:///{tmp_path / 'demo.sqlite'}",
        "scheduler.broker.url": "memory://",
        "demo.late_fee_after": "20s",
        "demo.seconds_per_ski": "0",
        "demo.secret": "secret",
    }


@pytest.fixture
def browser(settings: dict[str, str]) -> Iterator[TestApp]:
    app = demo.main({}, **settings)
    yield TestApp(app)
    app.registry.scheduler.shutdown()
    app.registry.dbengine.dispose()


@pytest.fixture
def scheduler(browser: TestApp) -> Any:
    return browser.app.registry.scheduler


@pytest.fixture
def session(browser: TestApp) -> Iterator[Session]:
    """A look at the database that is not the application's."""
    with Session(browser.app.registry.dbengine) as session:
        yield session


@pytest.fixture
def pass_time(scheduler: Any) -> Callable[[float], list[Any]]:
    """Run what is due so many seconds from now."""

    def run(seconds: float) -> list[Any]:
        return scheduler.run_due(now=datetime.now(timezone.utc) + timedelta(seconds=seconds))

    return run

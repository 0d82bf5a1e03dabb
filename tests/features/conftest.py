"""What all feature tests begin with: an application on a store on each database.

``make_application(settings=..., configure=..., where=...)`` builds one, as tests/web/site.py does;
``application`` is one with nothing special. Feature tests are in test_<letter>_<system>.py, one or
more for each row of the table of features, called test_<row>_<what>.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pyramid_durable.records import ENDED, JobInfo
from pyramid_durable.store import Store
from tests.web.conftest import made_store, store  # fixtures
from tests.web.site import Site, make_site

__all__ = ["made_store", "store"]

QUICK = {
    "scheduler.heartbeat": "0.2s",
    "scheduler.lease": "2s",
    "scheduler.poll_interval": "0.05s",
    "scheduler.threads": "3",
}
DEADLINE = 20.0

on_sqlite = pytest.mark.parametrize("made_store", ["sqlite"], indirect=True)
"""For tests of what has nothing to do with the database."""


class Application:
    """An application, and how its jobs are brought to run."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.scheduler = site.scheduler
        self.registry = site.scheduler.registry
        self.store = site.store

    def request(self, body: Callable[[Any], Any]) -> Any:
        """Let a view call ``body(request)`` in a request with a transaction; returns its value."""
        answers = []
        self.site.get(lambda request: answers.append(body(request)))
        return answers[0]

    def run_due(self, *, after: float = 0.0, **options: Any) -> list[JobInfo]:
        """Run what is due, as of ``after`` seconds from now."""
        now = datetime.now(timezone.utc) + timedelta(seconds=after) if after else None
        return self.scheduler.run_due(now=now, **options)

    def job(self, id: str) -> JobInfo:
        """The job as it is now."""
        found = self.scheduler.get_job(id)
        assert found is not None, f"there is no job {id}"
        return found

    def outcome(self, id: str) -> JobInfo:
        """The job when it has ended, which some daemon has to bring about."""
        return self.until(lambda: self.job(id) if self.job(id).state in ENDED else None)

    def until(self, condition: Callable[[], Any]) -> Any:
        """The first true answer of ``condition``; fails after DEADLINE seconds."""
        end = time.monotonic() + DEADLINE
        while not (answer := condition()):
            assert time.monotonic() < end, f"still not true after {DEADLINE:g} s"
            time.sleep(0.01)
        return answer

    @contextmanager
    def serving(self) -> Iterator[None]:
        """With a daemon in this process, as in combined mode."""
        self.scheduler.start()
        try:
            yield
        finally:
            self.scheduler.shutdown()


@pytest.fixture
def make_application(store: Store, tmp_path: Path) -> Iterator[Callable[..., Application]]:
    made: list[Site] = []

    def make(
        *, where: str = "same", settings: dict[str, str] | None = None, **options: Any
    ) -> Application:
        """Build an application; ``where`` its data are: in the store's database, or in another."""
        url = store.url.render_as_string(hide_password=False)
        if where == "other":
            url = f"sqlite:///{tmp_path / 'other.db'}"
        settings = {**QUICK, **(settings or {})}
        made.append(make_site(store=store, app_url=url, settings=settings, **options))
        return Application(made[-1])

    yield make
    for site in made:
        site.scheduler.shutdown()
        site.engine.dispose()
        opened = site.scheduler._process.store
        if opened is not None:
            opened.dispose()


@pytest.fixture
def application(make_application: Callable[..., Application]) -> Application:
    return make_application()

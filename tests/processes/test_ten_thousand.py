"""Ten thousand jobs, two daemons on one queue: each job once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyramid.paster import get_app

from .application import metadata, note, write_line
from .deployment import Deployment, deployed, wait_for

JOBS = 10_000


APPLICATION = "tests.processes.application:main"


def run_all(app: Deployment, specs: list[dict[str, Any]]) -> None:
    """Add half of the jobs, start two daemons, add the rest, and wait for the end of all."""
    metadata.create_all(app.engine)
    assert app.run("pscheduler", "--migrate") == 0
    scheduler = get_app(str(app.ini)).registry.scheduler
    scheduler.add_jobs(specs[: JOBS // 2])
    for name in ("daemon1", "daemon2"):
        app.start("pscheduler", name=name)
    scheduler.add_jobs(specs[JOBS // 2 :])
    ended = "SELECT count(*) FROM durable_job WHERE state = 'succeeded'"
    wait_for("all jobs", lambda: app.ask(ended) == [(JOBS,)], deadline=240)
    for name in ("daemon1", "daemon2"):
        assert app.stop(name) == 0
    scheduler.shutdown()


def test_ten_thousand_jobs_that_write_to_the_database(tmp_path: Path) -> None:
    with deployed(tmp_path, APPLICATION, "postgresql", "amqp") as app:
        run_all(app, [{"func": note, "args": [number]} for number in range(JOBS)])
        once = "SELECT count(*), count(DISTINCT number), count(DISTINCT job) FROM ran"
        assert app.ask(once) == [(JOBS, JOBS, JOBS)]


@pytest.mark.parametrize(("store", "broker"), [("postgresql", "redis"), ("mariadb", "redis")])
def test_ten_thousand_jobs_that_do_not(tmp_path: Path, store: str, broker: str) -> None:
    lines = tmp_path / "lines.txt"
    with deployed(tmp_path, APPLICATION, store, broker) as app:
        run_all(app, [{"func": write_line, "args": [str(lines)]}] * JOBS)
        ids = lines.read_text().split()
        assert (len(ids), len(set(ids))) == (JOBS, JOBS)

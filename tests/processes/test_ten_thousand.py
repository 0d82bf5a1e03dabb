"""Ten thousand jobs, two daemons on one queue: each job once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyramid.paster import get_app

from .deployment import deployed, wait_for

JOBS = 10_000


@pytest.mark.parametrize(("store", "broker"), [("postgresql", "amqp"), ("mariadb", "redis")])
def test_ten_thousand_jobs_run_once_each_on_two_daemons(
    tmp_path: Path, store: str, broker: str
) -> None:
    with deployed(tmp_path, "tests.processes.application:main", store, broker) as app:
        from .application import metadata, note

        metadata.create_all(app.engine)
        assert app.run("pscheduler", "--migrate") == 0
        scheduler = get_app(str(app.ini)).registry.scheduler
        specs = [{"func": note, "args": [number]} for number in range(JOBS)]
        scheduler.add_jobs(specs[: JOBS // 2])
        for name in ("daemon1", "daemon2"):
            app.start("pscheduler", name=name)
        scheduler.add_jobs(specs[JOBS // 2 :])
        ended = "SELECT count(*) FROM durable_job WHERE state = 'succeeded'"
        wait_for("all jobs", lambda: app.ask(ended) == [(JOBS,)], deadline=240)
        once = "SELECT count(*), count(DISTINCT number), count(DISTINCT job) FROM ran"
        assert app.ask(once) == [(JOBS, JOBS, JOBS)]
        for name in ("daemon1", "daemon2"):
            assert app.stop(name) == 0
        scheduler.shutdown()

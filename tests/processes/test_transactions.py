"""A view and its job, in processes of their own: both are there, or neither."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .deployment import Deployment, deployed, wait_for

APPLICATION = "tests.processes.application:main"


def ask(deployment: Deployment, query: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{deployment.url}/ask?{query}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("store", "broker"), [("sqlite", "embedded"), ("postgresql", "amqp"), ("mariadb", "redis")]
)
def test_a_failing_view_leaves_no_job_and_a_committed_one_is_seen(
    tmp_path: Path, store: str, broker: str
) -> None:
    with deployed(tmp_path, APPLICATION, store, broker) as app:
        from .application import metadata

        metadata.create_all(app.engine)
        assert app.run("pscheduler", "--migrate") == 0
        app.start("pserve", name="web")
        app.start("pscheduler", name="daemon")
        wait_for("the web server", app.answers)
        assert ask(app, "number=1&fail=1")[0] == 500
        assert ask(app, "number=2&fail=1&func=sees")[0] == 500
        status, id = ask(app, "number=3&func=sees")
        assert status == 200
        result = f"SELECT state, result FROM durable_job WHERE id = '{id}'"
        wait_for("the job", lambda: app.ask(result) == [("succeeded", "1")])
        assert ask(app, "number=4")[0] == 200
        wait_for("the other job", lambda: app.ask("SELECT number FROM ran") == [(4,)])
        assert app.ask("SELECT count(*) FROM durable_job") == [(2,)]
        assert app.ask("SELECT number FROM asked ORDER BY number") == [(3,), (4,)]
        assert app.stop("daemon") == 0

"""Housekeeping by daemons that are processes of their own, and by ``pjobs purge``."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from pyramid.paster import get_app

from pyramid_durable.scripts import pjobs

from .deployment import deployed, wait_for

APPLICATION = "tests.processes.application:main"


@pytest.mark.parametrize(("store", "broker"), [("sqlite", "embedded"), ("postgresql", "redis")])
def test_two_daemons_keep_house_once(tmp_path: Path, store: str, broker: str) -> None:
    settings = {
        "scheduler__housekeeping": "500ms",
        "scheduler__retention": "0",
        "scheduler__housekeeping__append": "tests.processes.application.tidy",
        "scheduler__jobstore__default__create": "true",
    }
    with deployed(tmp_path, APPLICATION, store, broker, **settings) as app:
        from .application import metadata

        metadata.create_all(app.engine)
        began = time.monotonic()
        for name in ("one", "two"):
            app.start("pscheduler", name=name)
        scheduler = get_app(str(app.ini)).registry.scheduler
        for name in ("one", "two"):
            wait_for(f"daemon {name}", lambda name=name: "daemon started" in app.log(name))
        scheduler.add_jobs([{"func": "tests.processes.application.nothing"}] * 10)
        wait_for("removal", lambda: app.ask("SELECT count(*) FROM durable_job") == [(0,)])
        tidied = wait_for("the call", lambda: app.ask("SELECT count(*) FROM ran")[0][0])
        assert tidied <= (time.monotonic() - began) / 0.5
        for name in ("one", "two"):
            assert app.stop(name) == 0
        said = app.log("one") + app.log("two")
        assert sum(map(int, re.findall(r"housekeeping: (\d+) ended jobs", said))) == 10
        scheduler.broker.close()
        scheduler.store.dispose()


def test_purge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"scheduler__queues": "default mail", "scheduler__retention": "none"}
    with deployed(tmp_path, APPLICATION, "sqlite", "embedded", **settings) as app:
        scheduler = get_app(str(app.ini)).registry.scheduler
        nothing = "tests.processes.application.nothing"
        ended: dict[str, str] = {}
        for queue, state in (
            ("default", "succeeded"), ("default", "broken"), ("mail", "failed"), ("mail", "cancelled")
        ):  # fmt: skip
            ended[state] = scheduler.add_async_job(nothing, queue=queue)
            with scheduler.store.begin() as connection:
                job = scheduler.store.tables.job
                connection.execute(
                    job.update()
                    .where(job.c.id == ended[state])
                    .values(state=state, due_at=None, finished_at=scheduler.store.now(connection))
                )
        waits = scheduler.add_date_job(nothing, "1h")

        def purge(*arguments: str) -> tuple[int, str, str]:
            try:
                code = pjobs.main([str(app.ini), "purge", *arguments])
            except SystemExit as exit:
                code = int(exit.code or 0)
            said = capsys.readouterr()
            return code, said.out, said.err

        def left() -> set[str]:
            return {job.id for job in scheduler.get_jobs()}

        code, out, err = purge()
        assert (code, out) == (1, "")
        assert "scheduler.retention = none keeps all" in err
        assert purge("--older-than", "1h") == (0, "0 jobs removed.\n", "")
        assert purge("--older-than", "0", "-q", "default") == (0, "1 jobs removed.\n", "")
        assert purge("--older-than", "0", "-s", "failed") == (0, "1 jobs removed.\n", "")
        assert left() == {ended["broken"], ended["cancelled"], waits}
        assert purge("--older-than", "0s") == (0, "1 jobs removed.\n", "")
        assert purge("--older-than", "0", "--state", "broken")[1] == "1 jobs removed.\n"
        assert left() == {waits}
        for nonsense, why in (
            (("--older-than", "soon"), "'soon'"),
            (("--older-than=-5d",), "-5d"),
            (("--state", "running"), "running"),
            (("--state", "gone"), "gone"),
        ):
            code, out, err = purge(*nonsense)
            assert (code, out, why in err) == (2, "", True), nonsense
        code, out, err = purge("--older-than", "0", "-q", "nope")
        assert (code, out) == (1, "")
        assert "queue 'nope' is not among the configured ones" in err
        scheduler.store.dispose()

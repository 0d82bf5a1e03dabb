"""pscheduler --check, as a deploy pipeline runs it."""

from __future__ import annotations

from pathlib import Path

from pyramid_durable.records import JobSpec
from pyramid_durable.store import Store

from .deployment import deployed

NEW_VERSION = """
from pyramid.config import Configurator


def send_receipt(order):
    raise AssertionError("--check runs nothing")


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_durable")
{alias}
    return config.make_wsgi_app()
"""
ALIAS = '        config.add_job_alias("shop_to_check:send", send_receipt)'


def test_a_renamed_function_is_found_and_passes_with_an_alias(tmp_path: Path) -> None:
    application = tmp_path / "shop_to_check.py"
    application.write_text(NEW_VERSION.format(alias=""))
    with deployed(tmp_path, "shop_to_check:main", "sqlite", "embedded") as made:
        store = Store(str(made.engine.url))
        store.migrate()
        old = [
            JobSpec(
                id=f"order-{n}", func="shop_to_check:send", payload=f"[[{n}],{{}}]", queue="default"
            )
            for n in range(2)
        ]
        with store.begin() as connection:
            store.jobs.add(connection, old)
        store.dispose()

        name = made.start("pscheduler", "--check", name="before")
        assert made.processes[name].wait(60) == 1
        (line,) = made.log(name).splitlines()
        assert line.startswith("shop_to_check:send: ")
        assert line.endswith("has no attribute 'send': 2 jobs, such as order-0")

        application.write_text(NEW_VERSION.format(alias=ALIAS))
        name = made.start("pscheduler", "--check", name="after")
        assert made.processes[name].wait(60) == 0
        assert made.log(name) == "All that is stored can run: 2 jobs, 0 schedules.\n"
        assert made.ask("SELECT DISTINCT state FROM durable_job") == [("scheduled",)]


def test_a_store_without_tables_says_what_to_run(tmp_path: Path) -> None:
    none = {"scheduler__jobstore__default__create": "false"}
    with deployed(
        tmp_path, "tests.processes.application:main", "sqlite", "embedded", **none
    ) as made:
        name = made.start("pscheduler", "--check")
        assert made.processes[name].wait(60) == 1
        (line,) = made.log(name).splitlines()
        assert line.startswith("pscheduler: ")
        assert "--migrate" in line

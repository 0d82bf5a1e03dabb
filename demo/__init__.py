"""The jet ski rental, a small application to try pyramid_durable with (web and daemon)."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from pyramid.router import Router
from pyramid.session import SignedCookieSessionFactory
from pyramid.settings import asbool

from . import database, jobs

DEFAULTS = {
    # Explicit managers: a transaction that nobody began is an error rather than a surprise.
    "tm.manager_hook": "pyramid_tm.explicit_manager",
    "jinja2.filters": "when = demo.filters:when\nmoney = demo.filters:money",
    "demo.late_fee": "600",
    "demo.late_fee_after": "30d",
    "demo.report_crontab": "0 3 * * *",
    "demo.inventory_every": "3600",
    "demo.seconds_per_ski": "1",
}

# PasteDeploy cannot read the environment from an ini, so the application does, in this one place
# and before anything looks at the settings. Web, pscheduler and pjobs all pass through here.
ENVIRONMENT = {
    "DEMO_DATABASE_URL": "sqlalchemy.url",
    "DEMO_BROKER_URL": "scheduler.broker.url",
    "DEMO_SECRET": "demo.secret",
}


def main(global_config: Mapping[str, str], **settings: Any) -> Router:
    """The paste application factory of development.ini and production.ini."""
    settings = DEFAULTS | settings | from_environment(os.environ)
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_jinja2")
        config.include("pyramid_durable")
        config.include(database)
        config.include(declare_schedules)
        config.include("demo.views")
        config.set_session_factory(SignedCookieSessionFactory(settings["demo.secret"]))
        config.set_default_csrf_options(require_csrf=True)
        config.scan("demo")
    database.initialize(config.registry)
    app = config.make_wsgi_app()
    if runs_jobs_here(global_config, settings):
        config.registry.scheduler.start()
        # Ctrl-C lets what is running finish (scheduler.shutdown_timeout) instead of cutting it off.
        atexit.register(config.registry.scheduler.shutdown)
    return app


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that the environment has a word on."""
    return {key: environ[name] for name, key in ENVIRONMENT.items() if environ.get(name)}


def declare_schedules(config: Configurator) -> None:
    """What happens without anybody asking; pyramid_durable keeps the store in line with it."""
    settings = config.get_settings()
    config.add_cron_job(
        "nightly-report", jobs.nightly_report, crontab=settings["demo.report_crontab"]
    )
    config.add_interval_job(
        "inventory", jobs.count_inventory, seconds=int(settings["demo.inventory_every"])
    )


def runs_jobs_here(global_config: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
    """Whether to start the combined daemon now instead of at the first request.

    A server that gets no request after a restart must still run what is due, and a shell must not
    run it: only the application can know which of the two it is in. Pyramid 2.1 and later say so
    in ``__script__``; with older ones the first request starts the daemon.
    """
    combined = asbool(settings.get("scheduler.combined", False))
    return combined and global_config.get("__script__") == "pserve"

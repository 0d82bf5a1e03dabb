"""Durable background jobs and schedules for Pyramid: wiring, and the names applications import."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest

from . import directives
from .combined import FirstRequest
from .current import current_job
from .decorators import cron, interval, job, routine
from .definitions import TriggerBehavior
from .interfaces import IDaemonFactory, IRunDue, IRunInline, IScheduler
from .retry import IGNORE, OK, RETRY, Cancel, Retry
from .scheduler import BoundScheduler, Scheduler

__all__ = [
    "IGNORE",
    "OK",
    "RETRY",
    "Cancel",
    "Retry",
    "TriggerBehavior",
    "cron",
    "current_job",
    "includeme",
    "interval",
    "job",
    "routine",
]

AFTER_ALL_ELSE = 1000
"""The order of the action that looks at the settings: what the application, and add-ons that are
included after us, change in ``registry.settings`` until the configuration is committed counts."""


def includeme(config: Configurator) -> None:
    """Give an application jobs that outlive it.

    ::

        config.include("pyramid_durable")

    Nothing is opened here: no thread, socket or file. That comes with the first use of the store
    in a process, or with the daemon.

    **The scheduler** is ``registry.scheduler`` (also the utility ``IScheduler``), and
    ``request.scheduler`` for the request's own transaction. The first finds the current request by
    itself, so that both do the same in a view::

        def rent(request):
            request.dbsession.add(rental)
            request.dbsession.flush()
            request.scheduler.add_date_job(charge_late_fee, "30d", args=[rental.id])

    Inside a transaction (pyramid_tm's, an explicit ``request.tm`` that has begun, or one that the
    request's session has begun) the job exists exactly if the transaction commits. Where
    ``request.dbsession`` is on the store's database, data and job are one database transaction.
    Where it is not, the package's own session takes part in the same transaction manager and
    commits after the application's: a crash between the two commits loses the job, not the data.
    Outside of a transaction a job exists at once.

    **Directives**, for schedules that belong to the code::

        config.add_cron_job("nightly", "app.reports.nightly", crontab="0 3 * * *")
        config.add_interval_job("poll", ".jobs.poll", minutes=10)
        config.add_job_alias("app.old:send", "app.mail:send")

    When a daemon starts, the store is brought in line with them. ``config.scan()`` finds what
    ``@job``, ``@routine``, ``@cron`` and ``@interval`` decorate.

    **The daemon** is a process of its own (``pscheduler app.ini``), or, with
    ``scheduler.combined = true``, a thread of the web process that starts at its first request.
    A server that must run what is due even if nobody asks it anything calls
    ``registry.scheduler.start()`` where it makes the WSGI application; a second call does nothing.

    **Settings** begin with ``scheduler.`` and are read when the configuration has been committed,
    so that an application may still change them. One that is unknown or cannot be read is an
    InvalidSetting, which Pyramid shows inside a ConfigurationExecutionError.
    """
    registry = config.registry
    scheduler = Scheduler(registry)
    registry.scheduler = scheduler
    registry.registerUtility(scheduler, IScheduler)
    _provide_daemon(registry)
    config.add_request_method(_bound_scheduler, "scheduler", reify=True)
    config.add_subscriber(FirstRequest(scheduler), NewRequest)
    config.add_directive("add_cron_job", directives.add_cron_job)
    config.add_directive("add_interval_job", directives.add_interval_job)
    config.add_directive("add_job_alias", directives.add_job_alias)
    config.action(None, scheduler.check, order=AFTER_ALL_ELSE)


def _bound_scheduler(request: Any) -> BoundScheduler:
    return BoundScheduler(request.registry.scheduler, request)


def _provide_daemon(registry: Any) -> None:
    """Register what the web floor may not import."""
    from .daemon import Daemon
    from .due import run_due
    from .inline import run_inline

    registry.registerUtility(Daemon, IDaemonFactory)
    registry.registerUtility(run_due, IRunDue)
    registry.registerUtility(run_inline, IRunInline)

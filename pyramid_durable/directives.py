"""What the configurator learns: schedules that the application declares, old names of functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyramid.config import Configurator

from .calls import Call
from .definitions import describe
from .interfaces import IScheduler
from .marking import check_own_id
from .records import CRON, INTERVAL

SCHEDULES = "pyramid_durable schedules"
ALIASES = "pyramid_durable job aliases"


def add_cron_job(
    config: Configurator,
    name: str,
    func: Any,
    start_date: Any = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    year: Any = None,
    month: Any = None,
    day: Any = None,
    week: Any = None,
    day_of_week: Any = None,
    hour: Any = None,
    minute: Any = None,
    second: Any = None,
    crontab: str | None = None,
    **options: Any,
) -> None:
    """Declare that ``func`` runs whenever the fields, or the ``crontab``, match.

    ``name`` is the schedule's id: where a daemon starts, the store is brought in line with what is
    declared. ``func`` may be a dotted name, also a relative one. All else is as in
    ``registry.scheduler.add_cron_job``. Two declarations of one name conflict like other directives.
    """
    call = Call("add_cron_job", func, args, kwargs, queue, options)
    fields = {
        "year": year,
        "month": month,
        "day": day,
        "week": week,
        "day_of_week": day_of_week,
        "hour": hour,
        "minute": minute,
        "second": second,
        "crontab": crontab,
    }
    _declare(config, name, CRON, call, start_date, fields)


def add_interval_job(
    config: Configurator,
    name: str,
    func: Any,
    start_date: Any = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    **options: Any,
) -> None:
    """Declare that ``func`` runs again and again; otherwise like ``add_cron_job``.

    Without ``start_date`` the steps are counted from 1970, so that every process finds the same
    times and a restart does not put them off: every 10 minutes is at :00, :10, :20 …
    """
    call = Call("add_interval_job", func, args, kwargs, queue, options)
    fields = {
        "weeks": weeks,
        "days": days,
        "hours": hours,
        "minutes": minutes,
        "seconds": seconds,
    }
    _declare(config, name, INTERVAL, call, start_date, fields)


def _declare(
    config: Configurator, name: str, kind: str, call: Call, start_date: Any, fields: dict[str, Any]
) -> None:
    check_own_id(f"config.{call.verb}({name!r})", call.options)
    func = config.maybe_dotted(call.func)
    call = call._replace(func=func, options={"id": name, "name": name, **call.options})
    given = {
        field: value
        for field, value in fields.items()
        if value is not None and (kind == CRON or value)
    }

    def register() -> None:
        config.registry.getUtility(IScheduler).declare(kind, call, start_date, fields)

    intr = config.introspectable(SCHEDULES, name, name, f"{kind} schedule")
    intr.update(
        name=name, kind=kind, func=func, queue=call.queue, trigger=given, options=call.options
    )
    config.action(("pyramid_durable.schedule", name), register, introspectables=(intr,))


def add_job_alias(config: Configurator, old: str, new: Any) -> None:
    """Let jobs that were stored under a function's ``old`` name run ``new``.

    ``old`` is the name as the job shows it, ``"pkg.mod:Class.method"``; ``"pkg.mod.func"`` is
    understood too. ``new`` is the function, or its dotted name.
    """
    func = config.maybe_dotted(new)

    def register() -> None:
        aliases = config.registry.getUtility(IScheduler).aliases
        aliases[old] = describe(func)[0].ref

    intr = config.introspectable(ALIASES, old, old, "job alias")
    intr.update(old=old, new=func)
    config.action(("pyramid_durable.alias", old), register, introspectables=(intr,))

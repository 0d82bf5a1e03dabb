"""@cron and @interval: schedules that functions declare about themselves (web and daemon)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import venusian

from .current import current_scheduler
from .definitions import BODY
from .exceptions import InvalidJob
from .marking import CATEGORY, check_own_id
from .references import import_name, name_of

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def cron(
    crontab: str | None = None, /, *, name: str | None = None, lazy: bool = False, **fields: Any
) -> Callable[[Decorated], Decorated]:
    """Declare that a function runs by cron: ``@cron("0 3 * * *")``, or keyword fields.

    A field may be uWSGI's number: ``@cron(minute=-2)`` is every 2 minutes, -1 any.
    ``fields`` are also the other arguments of ``config.add_cron_job``. ``name`` is the schedule's
    id, by default that of the function. With ``lazy=True`` it begins when the function is called,
    with the arguments of that call, and not when the application starts; the call returns the id,
    and a later one replaces it.

    Raises InvalidJob for what is no function and no class, TypeError for ``id`` and
    ``replace_existing`` among the fields.
    """
    if crontab is not None:
        fields["crontab"] = crontab
    return functools.partial(_declare, "add_cron_job", name, lazy, fields)


def interval(
    *, name: str | None = None, lazy: bool = False, **fields: Any
) -> Callable[[Decorated], Decorated]:
    """Declare that a function runs again and again: ``@interval(minutes=10)``; see cron."""
    return functools.partial(_declare, "add_interval_job", name, lazy, fields)


def _declare(verb: str, name: str | None, lazy: bool, fields: dict[str, Any], func: Any) -> Any:
    target = func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
    if not callable(target) or not hasattr(target, "__qualname__"):
        raise InvalidJob(f"{verb}: {target!r} found, expected a function or a @routine class")
    ref = name_of(target)
    check_own_id(f"{verb} of {ref}", fields)
    if lazy:
        if target is not func or isinstance(func, type):
            raise InvalidJob(f"{ref}: lazy=True is for functions: calling one starts the schedule")
        return _lazy(verb, name or ref, fields, func)

    def declare(context: Any, attribute: str, found: Any) -> None:
        directive = getattr(context.config, verb)
        directive(name or ref, import_name(ref), _info=info.codeinfo, **fields)

    info = venusian.attach(target, declare, category=CATEGORY)
    return func


def _lazy(verb: str, name: str, fields: dict[str, Any], func: Any) -> Any:
    """A function whose call begins its schedule; the daemon runs the body."""

    @functools.wraps(func)
    def begin(*args: Any, **kwargs: Any) -> str:
        add = getattr(current_scheduler(), verb)
        options = {"id": name, "name": name, "replace_existing": True, **fields}
        begun: str = add(begin, args=args, kwargs=kwargs, **options)
        return begun

    setattr(begin, BODY, func)
    return begin

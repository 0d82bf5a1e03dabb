"""@routine: a class whose instances are the jobs (web and daemon)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .current import current_scheduler
from .definitions import MARK, Definition, TriggerBehavior
from .exceptions import DuplicateJob, InvalidJob
from .marking import check_options, read_aliases, tell_aliases
from .references import name_of

ROUTINE_ATTRIBUTES: Final = {
    "name": "trigger_name",
    "group": "task_group",
    "behavior": "behavior",
}
"""The options of a routine that have names of their own (umeboshi's)."""


def routine(
    cls: Any = None,
    /,
    *,
    trigger_name: str | None = None,
    task_group: str | None = None,
    behavior: TriggerBehavior | str | None = None,
    pass_request: bool = False,
    pass_job: bool = False,
    aliases: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Make a class a routine: its constructor takes the job's arguments, ``run()`` does the work.

    A ``check_validity()`` that returns something false ends the job as cancelled. ``trigger_name``
    is the name its jobs show; ``task_group`` and ``behavior`` say which jobs are equal and what
    then happens; all three may be attributes of the class instead. With ``pass_request`` and
    ``pass_job`` the constructor takes these first. ``options`` are as in ``@job``. It gains
    ``schedule(datetime_scheduled=None, args=None, silent=False, kwargs=None)``.

    Raises InvalidJob where there is no trigger_name or no run(), TypeError for an unknown option.
    """
    # Any: no type can say that a class gains a method.
    named = {"name": trigger_name, "group": task_group, "behavior": behavior}
    passed = {"pass_request": pass_request, "pass_job": pass_job}
    check_options("@routine", options)
    names = read_aliases("@routine", aliases)
    decorate = functools.partial(
        _decorate, named=named, options=options, aliases=names, passed=passed
    )
    return decorate if cls is None else decorate(cls, depth=3)


def _decorate(
    cls: Any,
    *,
    named: Mapping[str, Any],
    options: Mapping[str, Any],
    aliases: tuple[str, ...],
    passed: Mapping[str, bool],
    depth: int = 2,
) -> Any:
    if not isinstance(cls, type):
        raise InvalidJob(f"@routine: {cls!r} found, expected a class (a function takes @job)")
    said = {
        option: getattr(cls, ROUTINE_ATTRIBUTES[option], None) if value is None else value
        for option, value in named.items()
    }
    _check_routine(cls, said["name"])
    definition = Definition(
        ref=name_of(cls),
        func=cls,
        options={**{name: value for name, value in said.items() if value is not None}, **options},
        aliases=aliases,
        is_routine=True,
        is_async=inspect.iscoroutinefunction(getattr(cls, "run", None)),
        **passed,
    )
    setattr(cls, MARK, definition)
    setattr(cls, "schedule", classmethod(_schedule))  # noqa: B010 - a class gains it
    tell_aliases(cls, definition, depth=depth)
    return cls


def _check_routine(cls: type, trigger_name: Any) -> None:
    if not isinstance(trigger_name, str) or not trigger_name.strip():
        raise InvalidJob(
            f"@routine: {cls.__qualname__} has trigger_name {trigger_name!r}; expected a name for "
            "its jobs: @routine(trigger_name='late-fee')"
        )
    if not callable(getattr(cls, "run", None)):
        raise InvalidJob(f"@routine: {cls.__qualname__} has no run(); that method does the work")
    check = getattr(cls, "check_validity", None)
    if check is not None and not callable(check):
        raise InvalidJob(
            f"@routine: {cls.__qualname__}.check_validity is {check!r}, expected a method"
        )
    taken = getattr(cls, "schedule", None)
    if taken is not None and getattr(taken, "__func__", None) is not _schedule:
        raise InvalidJob(
            f"@routine: {cls.__qualname__} has a schedule of its own; that is the name of the "
            "method that adds its jobs: call yours something else"
        )


def _schedule(
    cls: type,
    datetime_scheduled: Any = None,
    args: Any = None,
    silent: bool = False,
    *,
    kwargs: Any = None,
    **options: Any,
) -> str | None:
    """Add a job of this routine, now or at ``datetime_scheduled``; returns its id.

    Where the behavior refuses it: None if ``silent``, otherwise DuplicateJob is raised.
    """
    scheduler = current_scheduler()
    try:
        if datetime_scheduled is None:
            id: str = scheduler.add_async_job(cls, args=args, kwargs=kwargs, **options)
        else:
            id = scheduler.add_date_job(
                cls, datetime_scheduled, args=args, kwargs=kwargs, **options
            )
    except DuplicateJob:
        if silent:
            return None
        raise
    return id

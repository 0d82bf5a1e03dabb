"""@job, @routine, @cron and @interval: what code says about itself (web and daemon).

They leave a Definition on what they decorate and return it otherwise unchanged, so that a plain
call stays a plain call. ``config.scan()`` finds what has to be told to the application.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import venusian

from .definitions import MARK, Definition, TriggerBehavior, current_scheduler
from .exceptions import DuplicateJob, InvalidJob
from .references import import_name, name_of

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

JOB_OPTIONS: Final = frozenset(
    (
        "queue",
        "name",
        "priority",
        "expires",
        "misfire_grace_time",
        "max_attempts",
        "backoff",
        "timeout",
        "executor",
        "behavior",
        "group",
        "userdata",
        "working_dir",
        "delete_after",
    )
)
"""Options that make sense as a default for every job of a definition."""

CATEGORY: Final = "pyramid"

BODY: Final = "__pyramid_durable_body__"
"""Where the wrapper of a lazy schedule keeps the function that is to run."""


class Using:
    """A definition with options for the jobs that are asked for through it."""

    def __init__(self, ref: str, options: Mapping[str, Any]) -> None:
        self._ref = ref
        self._options = options

    def using(self, **options: Any) -> Using:
        """The same with more options; these win."""
        return Using(self._ref, {**self._options, **options})

    def enqueue(self, *args: Any, **kwargs: Any) -> str:
        """Add a job that calls the definition with these arguments; returns its id.

        With a ``date`` among the options it is a date job, otherwise an async one.
        """
        options = dict(self._options)
        date = options.pop("date", None)
        scheduler, func = current_scheduler(), import_name(self._ref)
        if date is None:
            id: str = scheduler.add_async_job(func, args=args, kwargs=kwargs, **options)
        else:
            id = scheduler.add_date_job(func, date, args=args, kwargs=kwargs, **options)
        return id


def job(
    func: Any = None,
    /,
    *,
    pass_request: bool = False,
    pass_job: bool = False,
    aliases: tuple[str, ...] | list[str] = (),
    **options: Any,
) -> Any:
    """Make a function a job definition, with or without arguments.

    ``pass_request`` and ``pass_job`` put the request and the CurrentJob before the arguments when
    a daemon runs it. ``aliases`` are names it had before, under which jobs may still be stored.
    ``options`` are defaults for its jobs: those of ``add_async_job``, and ``queue``.

    It gains ``enqueue(*args, **kwargs)``, which adds an async job, and ``using(**options)``.
    Raises TypeError for an unknown option.
    """
    if func is None:
        return functools.partial(
            job, pass_request=pass_request, pass_job=pass_job, aliases=aliases, **options
        )
    if not callable(func) and not isinstance(func, (staticmethod, classmethod)):
        raise TypeError(f"@job decorates a function, not {func!r}")
    _check_options("@job", options)
    target = func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
    definition = Definition(
        ref=name_of(target),
        func=_called(target),
        options=options,
        pass_request=pass_request,
        pass_job=pass_job,
        aliases=tuple(aliases),
        is_async=inspect.iscoroutinefunction(target),
    )
    _mark(target, definition)
    if aliases:
        venusian.attach(target, functools.partial(_add_aliases, definition), category=CATEGORY)
    return func


def _called(target: Any) -> Callable[..., Any]:
    """The function itself, behind the wrapper of a lazy schedule."""
    return getattr(target, BODY, target)


def _mark(target: Any, definition: Definition) -> None:
    setattr(target, MARK, definition)
    using = Using(definition.ref, {})
    target.enqueue = using.enqueue
    target.using = using.using


def _check_options(decorator: str, options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - JOB_OPTIONS)
    if unknown:
        raise TypeError(
            f"{decorator} got an unknown option {unknown[0]!r}; there are: "
            f"{', '.join(sorted(JOB_OPTIONS))}"
        )


def _add_aliases(definition: Definition, context: Any, name: str, target: Any) -> None:
    config = context.config.with_package(inspect.getmodule(definition.func))
    for alias in definition.aliases:
        config.add_job_alias(alias, import_name(definition.ref))


def routine(
    *,
    trigger_name: Any,
    task_group: str | None = None,
    behavior: TriggerBehavior = TriggerBehavior.DEFAULT,
    pass_request: bool = False,
    aliases: tuple[str, ...] | list[str] = (),
    **options: Any,
) -> Callable[[type], Any]:
    """Make a class a routine: its constructor takes the job's arguments, ``run()`` does the work.

    A ``check_validity()`` that returns something false ends the job as cancelled. ``trigger_name``
    is the name its jobs show; ``task_group`` and ``behavior`` say which jobs are equal and what
    then happens. With ``pass_request`` the constructor takes the request first. It gains
    ``schedule(datetime_scheduled=None, args=None, kwargs=None, silent=False)``.

    Raises InvalidJob where the trigger_name is empty or the class has no run().
    """
    if not isinstance(trigger_name, str) or not trigger_name.strip():
        raise InvalidJob(
            f"@routine: trigger_name {trigger_name!r}: expected a text that is not empty"
        )
    named = {"name": trigger_name, "group": task_group, "behavior": behavior}
    options = {**{name: value for name, value in named.items() if value is not None}, **options}
    _check_options("@routine", options)

    def decorate(cls: Any) -> Any:
        run = getattr(cls, "run", None)
        if not isinstance(cls, type) or not callable(run):
            raise InvalidJob(f"@routine: {cls!r} needs a method run(), which does the work")
        definition = Definition(
            ref=name_of(cls),
            func=cls,
            options=options,
            pass_request=pass_request,
            aliases=tuple(aliases),
            is_routine=True,
            is_async=inspect.iscoroutinefunction(run),
        )
        setattr(cls, MARK, definition)
        setattr(cls, "schedule", classmethod(_schedule))  # noqa: B010 - a class gains it
        if aliases:
            venusian.attach(cls, functools.partial(_add_aliases, definition), category=CATEGORY)
        return cls

    return decorate


def _schedule(
    cls: type,
    datetime_scheduled: Any = None,
    args: Any = None,
    kwargs: Any = None,
    silent: bool = False,
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


def cron(
    crontab: str | None = None, *, id: str | None = None, lazy: bool = False, **fields: Any
) -> Callable[[Decorated], Decorated]:
    """Declare that a function runs by cron: ``@cron("0 3 * * *")``, or keyword fields.

    ``fields`` are also the other arguments of ``config.add_cron_job``. The schedule's id is the
    function's name unless ``id`` is given. With ``lazy=True`` it begins when the function is
    called, not when the application starts.
    """
    if crontab is not None:
        fields["crontab"] = crontab
    return functools.partial(_declare, "add_cron_job", id, lazy, fields)


def interval(
    *, id: str | None = None, lazy: bool = False, **fields: Any
) -> Callable[[Decorated], Decorated]:
    """Declare that a function runs again and again: ``@interval(minutes=10)``; see cron."""
    return functools.partial(_declare, "add_interval_job", id, lazy, fields)


def _declare(verb: str, id: str | None, lazy: bool, fields: dict[str, Any], func: Any) -> Any:
    ref = name_of(func)
    if lazy:
        return _lazy(verb, id or ref, fields, func)

    def declare(context: Any, name: str, target: Any) -> None:
        config = context.config.with_package(inspect.getmodule(func))
        getattr(config, verb)(id or ref, import_name(ref), **fields)

    venusian.attach(func, declare, category=CATEGORY)
    return func


def _lazy(verb: str, id: str, fields: dict[str, Any], func: Any) -> Any:
    """A function whose call begins its schedule; the daemon runs the body."""

    @functools.wraps(func)
    def begin(*args: Any, **kwargs: Any) -> str:
        add = getattr(current_scheduler(), verb)
        options = {"id": id, "replace_existing": True, **fields}
        begun: str = add(begin, args=args, kwargs=kwargs, **options)
        return begun

    setattr(begin, BODY, func)
    known = vars(func).get(MARK)
    if isinstance(known, Definition):
        _mark(begin, known)
    else:
        job(begin)
    return begin

"""@job, and with it @routine, @cron and @interval: what code says about itself (web and daemon).

The decorators leave a Definition on what they decorate and return it otherwise unchanged, so that
a plain call stays a plain call. ``config.scan()`` finds what has to be told to the application.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from .current import current_scheduler
from .declared import cron, interval
from .definitions import MARK, Definition
from .exceptions import InvalidJob
from .marking import check_options, read_aliases, tell_aliases
from .references import name_of
from .routines import routine

__all__ = ["JobFunction", "Using", "cron", "interval", "job", "routine"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


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

        With a ``date`` among the options it is a date job, otherwise an async one. Raises what
        ``add_async_job`` raises, and DurableError where no application is current.
        """
        options = dict(self._options)
        date = options.pop("date", None)
        scheduler = current_scheduler()
        if date is None:
            id: str = scheduler.add_async_job(self._ref, args=args, kwargs=kwargs, **options)
        else:
            id = scheduler.add_date_job(self._ref, date, args=args, kwargs=kwargs, **options)
        return id


class JobFunction(Protocol[P, R_co]):
    """What ``@job`` makes of a function: the same one, with two verbs more."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def enqueue(self, *args: Any, **kwargs: Any) -> str:
        """Add a job that calls it with these arguments, less the request; returns its id."""

    def using(self, **options: Any) -> Using:
        """The same with options for the jobs, and ``date``."""


@overload
def job(func: Callable[P, R_co], /) -> JobFunction[P, R_co]: ...
@overload
def job(
    func: None = None,
    /,
    *,
    pass_request: bool | None = None,
    pass_job: bool = False,
    aliases: Sequence[str] = (),
    **options: Any,
) -> Callable[[Callable[P, R_co]], JobFunction[P, R_co]]: ...
def job(
    func: Any = None,
    /,
    *,
    pass_request: bool | None = None,
    pass_job: bool = False,
    aliases: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Make a function a job definition, with or without arguments.

    ``pass_request`` and ``pass_job`` put the request and the CurrentJob before the arguments when
    a daemon runs it; the request also where nothing is said and the first parameter is called
    ``request``. ``aliases`` are names it had before, under which jobs may still be stored.
    ``options`` are defaults for its jobs and schedules: those of ``add_*``, and ``queue``.

    It gains ``enqueue(*args, **kwargs)``, which adds an async job, and ``using(**options)``.
    Raises TypeError for an unknown option, InvalidJob for what cannot be a job.
    """
    if func is None:
        return functools.partial(
            job, pass_request=pass_request, pass_job=pass_job, aliases=aliases, **options
        )
    check_options("@job", options)
    target = func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
    if isinstance(target, type) or not callable(target) or not hasattr(target, "__qualname__"):
        raise InvalidJob(f"@job: {target!r} found, expected a function (a class takes @routine)")
    definition = Definition(
        ref=name_of(target),
        func=target,
        options=options,
        pass_request=_asks_for_request(target) if pass_request is None else pass_request,
        pass_job=pass_job,
        aliases=read_aliases("@job", aliases),
        is_async=inspect.iscoroutinefunction(target),
    )
    _mark(target, definition)
    tell_aliases(target, definition)
    return func


def _asks_for_request(func: Callable[..., Any]) -> bool:
    try:
        names = list(inspect.signature(func).parameters)
    except (ValueError, TypeError):  # a function in C that tells no signature
        return False
    if names[:1] in (["self"], ["cls"]):
        del names[0]
    return names[:1] == ["request"]


def _mark(target: Any, definition: Definition) -> None:
    using = Using(definition.ref, {})
    try:
        setattr(target, MARK, definition)
        target.enqueue, target.using = using.enqueue, using.using
    except (AttributeError, TypeError) as error:
        raise InvalidJob(f"@job: {target!r} takes no attributes; wrap it in a function") from error

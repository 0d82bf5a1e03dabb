"""What can run as a job: callables described at the call, loaded by name in the daemon (both)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MethodType, ModuleType
from typing import Any, Final, TypeVar

from sqlalchemy import inspect as inspect_mapped
from sqlalchemy.orm import InstanceState

from .exceptions import InvalidJob, UnknownFunction
from .references import Place, UnknownName, locate, locate_callable, name_of

MARK: Final = "__pyramid_durable__"
"""The attribute under which the decorators leave a Definition on what they decorate."""

BODY: Final = "__pyramid_durable_body__"
"""Where the wrapper of a lazy schedule keeps the function that is to run."""

KEPT: Final = 10_000
"""Definitions that are kept; no application has as many functions, but a store that somebody filled
with spellings of one must not fill the memory."""

Found = TypeVar("Found")


class TriggerBehavior(Enum):
    """What happens when a job is asked for that equals another: same group (or, without one, same
    definition) and same arguments."""

    DEFAULT = "default"
    SCHEDULE_ONCE = "schedule-once"
    RUN_ONCE = "run-once"
    RUN_AND_SCHEDULE_ONCE = "run-and-schedule-once"
    LAST_ONLY = "last-only"
    DELETE_AFTER_PROCESSING = "delete-after-processing"


@dataclass(frozen=True, kw_only=True, eq=False)
class Definition:
    """A callable as the package knows it.

    ``ref`` is the name it is stored under, ``func`` what the daemon calls: with the request if
    ``pass_request``, the CurrentJob if ``pass_job``, then the job's arguments. ``options`` are what
    ``@job`` was given, as defaults for its jobs; the mapping is the same one each time. ``func`` of
    a routine is its class.
    """

    ref: str
    func: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    pass_request: bool = False
    pass_job: bool = False
    aliases: tuple[str, ...] = ()
    is_routine: bool = False
    is_async: bool = False


_described: dict[Any, Definition] = {}


def describe(func: Any) -> tuple[Definition, tuple[Any, ...]]:
    """Describe what a caller wants to run; also the arguments that are bound to it.

    Accepts a function, its name ("pkg.mod.func", "pkg.mod:Class.method"), a class- or static
    method, a routine class, and a bound method of a persistent mapped object (bound to it).

    Raises InvalidJob for anything that a daemon could not find again by its name.
    """
    if isinstance(func, str):
        return _describe_name(func)
    if isinstance(func, MethodType):
        return _describe_method(func)
    try:
        known = _described.get(func)
    except TypeError:  # not hashable
        return _describe(func), ()
    if known is None:
        known = _keep(_described, func, _describe(func))
    return known, ()


def _describe_name(name: str) -> tuple[Definition, tuple[Any, ...]]:
    try:
        place = locate(name)
    except UnknownName as error:
        raise InvalidJob(
            f"{error}; expected the name of a callable such as 'pkg.mod.func' or "
            "'pkg.mod:Class.method'"
        ) from error
    try:
        return describe(place.found)
    except InvalidJob:
        # What does not know its own name, such as a callable object, can run under this one.
        if not _is_plain_callable(place) or isinstance(place.owner, type):
            raise
        return _define(_with_body(locate_callable(place.found, place.name))), ()


def _describe(func: Any) -> Definition:
    if isinstance(func, ModuleType):
        raise InvalidJob(f"{func.__name__!r} is a module; expected a callable in it")
    if isinstance(func, functools.partial):
        raise InvalidJob(
            f"{func!r} has no name; pass the function itself, and its arguments in args and kwargs"
        )
    if not callable(func):
        raise InvalidJob(f"{func!r} is not callable; expected a function, or the name of one")
    if isinstance(func, type) and _mark_of(func) is None:
        raise InvalidJob(
            f"{name_of(func)} is a class; decorate it with @routine, or pass a function"
        )
    return _define(_with_body(locate_callable(func)))


def _with_body(place: Place) -> Place:
    """Refuse what can be called, and would yet do nothing, or not without an object."""
    if place.is_plain_method:
        raise InvalidJob(
            f"{place.name} is a method without its object; pass it bound to a persistent SQLAlchemy "
            "object, or make it a static or class method"
        )
    if inspect.isgeneratorfunction(place.found) or inspect.isasyncgenfunction(place.found):
        raise InvalidJob(
            f"{place.name} is a generator: called, it would only make one, and not run"
        )
    return place


def _describe_method(method: MethodType) -> tuple[Definition, tuple[Any, ...]]:
    owner = method.__self__
    if isinstance(owner, type):
        return _define(_with_body(_locate_method(owner, method.__name__, method))), ()
    state = inspect_mapped(owner, raiseerr=False)
    if not isinstance(state, InstanceState):
        raise InvalidJob(
            f"{method.__qualname__} is bound to a {type(owner).__qualname__}, which a daemon cannot "
            "find again; expected a function, or a method of a persistent SQLAlchemy object"
        )
    if state.identity is None or state.deleted or state.was_deleted:
        raise InvalidJob(
            f"{method.__qualname__} is bound to a {type(owner).__qualname__} that is not in the "
            "database (yet, or any more); flush its session first"
        )
    return _define(_locate_method(type(owner), method.__name__, method.__func__)), (owner,)


def _locate_method(cls: type, attribute: str, expected: Any) -> Place:
    return locate_callable(expected, f"{cls.__module__}:{cls.__qualname__}.{attribute}")


def load(
    ref: str,
    *,
    aliases: Mapping[str, str] | None = None,
    allow: tuple[str, ...] | None = None,
) -> Definition:
    """Find the definition a stored job names, in the daemon; what was found is kept.

    ``aliases`` maps old names to new ones. ``allow`` are the dotted prefixes that may run, None
    for all.

    Raises UnknownFunction where the name leads nowhere, or may not run.
    """
    if aliases:
        ref = _follow(ref, aliases)
    kept = _loaded.get((ref, allow))
    if kept is not None and kept[0].is_current():
        return kept[1]
    place = _load(ref, allow)
    return _keep(_loaded, (ref, allow), (place, _define(place)))[1]


_loaded: dict[tuple[str, tuple[str, ...] | None], tuple[Place, Definition]] = {}


def _keep(kept: dict[Any, Found], key: Any, found: Found) -> Found:
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = found
    return found


def _follow(ref: str, aliases: Mapping[str, str]) -> str:
    """The newest name; an old one may be given with dots only."""
    for _ in range(len(aliases)):
        newer = aliases.get(ref) or aliases.get(ref.replace(":", "."))
        if newer is None:
            break
        ref = newer
    return ref


def _load(ref: str, allow: tuple[str, ...] | None) -> Place:
    if allow is not None and not is_allowed(ref, allow):
        raise UnknownFunction(_not_allowed(ref, allow))
    try:
        place = locate(ref)
    except UnknownName as error:
        raise UnknownFunction(str(error)) from error
    if not _is_plain_callable(place) and _mark_of(place.found) is None:
        raise UnknownFunction(f"{ref!r} is {place.found!r}: not a function, and no @routine")
    if allow is not None:
        # "app.mail:os.system" is below "app" by its name only.
        own = _home(place.found)
        if not is_allowed(own, allow):
            raise UnknownFunction(f"{ref!r} is {own!r}, and " + _not_allowed(own, allow))
    return place


def is_allowed(ref: str, allow: Collection[str]) -> bool:
    """Whether a name is one of the dotted prefixes, or below one."""
    dotted = ref.replace(":", ".")
    return any(dotted == prefix or dotted.startswith(f"{prefix}.") for prefix in allow)


def _not_allowed(ref: str, allow: Collection[str]) -> str:
    return f"{ref!r} is not below one of scheduler.allow ({', '.join(allow) or 'nothing'})"


def _home(found: Any) -> str:
    """The name under which a callable was made; of a callable object, that of its class."""
    if not isinstance(getattr(found, "__qualname__", None), str):
        found = type(found)
    return name_of(found)


def _is_plain_callable(place: Place) -> bool:
    return callable(place.found) and not isinstance(place.found, (type, ModuleType))


def _mark_of(found: Any) -> Definition | None:
    # A class does not pass its mark on: each routine has a trigger name of its own.
    marked = vars(found).get(MARK) if isinstance(found, type) else getattr(found, MARK, None)
    return marked if isinstance(marked, Definition) else None


def _define(place: Place) -> Definition:
    """The definition of what a name leads to, with what its decorator says, if it has one."""
    func = place.found
    marked = _mark_of(func)
    if not isinstance(func, MethodType):
        func = getattr(func, BODY, func)
    if marked is None:
        return Definition(ref=place.name, func=func, is_async=inspect.iscoroutinefunction(func))
    if place.is_plain_method:
        func = _with_object_first(func, marked.pass_request + marked.pass_job)
    # Not the marked function: a decorator around @job copies the mark, and is meant to be called.
    return replace(marked, ref=place.name, func=func)


def _with_object_first(method: Callable[..., Any], passed: int) -> Callable[..., Any]:
    """Let a method have its object, the first of the job's arguments, before the request."""
    if not passed:
        return method

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(args[passed], *args[:passed], *args[passed + 1 :], **kwargs)

    return call

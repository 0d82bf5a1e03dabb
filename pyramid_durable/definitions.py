"""What can run as a job: callables described at the call, loaded by name in the daemon (both)."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MethodType, ModuleType
from typing import Any, Final
from weakref import WeakKeyDictionary

from pyramid.threadlocal import get_current_registry
from sqlalchemy import inspect as inspect_mapped
from sqlalchemy.orm import InstanceState

from .exceptions import DurableError, InvalidJob, UnknownFunction
from .references import UnknownName, import_name, name_of

MARK: Final = "__pyramid_durable__"
"""The attribute under which the decorators leave a Definition on what they decorate."""


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

    ``ref`` is the name it is stored under. ``options`` are what ``@job`` was given, as defaults
    for its jobs. ``pass_request`` and ``pass_job`` say what stands before the arguments.
    """

    ref: str
    func: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    pass_request: bool = False
    pass_job: bool = False
    aliases: tuple[str, ...] = ()
    is_routine: bool = False
    is_async: bool = False


def uniqueness_key(ref: str, payload: str, group: str | None) -> str:
    """The key that is equal for equal jobs: same group (or definition), same arguments."""
    try:
        canonical = json.dumps(json.loads(payload), sort_keys=True)
    except ValueError:
        canonical = payload
    return hashlib.sha256(f"{group or ref}\0{canonical}".encode()).hexdigest()


_described: WeakKeyDictionary[Any, Definition] = WeakKeyDictionary()


def describe(func: Any) -> tuple[Definition, tuple[Any, ...]]:
    """Describe what a caller wants to run; also the arguments that are bound to it.

    Accepts a function, its name ("pkg.mod.func", "pkg.mod:Class.method"), a class- or static
    method, a routine class, and a bound method of a persistent mapped object (bound to it).

    Raises InvalidJob for anything that a daemon could not find again by its name.
    """
    if isinstance(func, str):
        try:
            func = import_name(func)
        except UnknownName as error:
            raise InvalidJob(
                f"{error}; expected the name of a callable such as 'pkg.mod.func' or "
                "'pkg.mod:Class.method'"
            ) from error
    if isinstance(func, MethodType):
        return _describe_method(func)
    try:
        known = _described.get(func)
    except TypeError:  # not hashable, or no weak reference to it
        known = None
    if known is None:
        known = _describe(func)
        _described[func] = known
    return known, ()


def _describe(func: Any) -> Definition:
    if isinstance(func, functools.partial):
        raise InvalidJob(
            f"{func!r} has no name; pass the function itself, and its arguments in args and kwargs"
        )
    if isinstance(func, ModuleType):
        raise InvalidJob(f"{func.__name__!r} is a module; expected a callable in it")
    marked = vars(func).get(MARK) if isinstance(func, type) else getattr(func, MARK, None)
    if isinstance(func, type) and marked is None:
        raise InvalidJob(
            f"{name_of(func)} is a class; decorate it with @routine, or pass a function"
        )
    if not callable(func):
        raise InvalidJob(f"{func!r} is not callable; expected a function, or the name of one")
    name = _checked_name(func)
    if _is_plain_method(name):
        raise InvalidJob(
            f"{name} is a method without its object; pass it bound to a persistent SQLAlchemy "
            "object, or make it a static or class method"
        )
    return marked if isinstance(marked, Definition) else _plain(name, func)


def _plain(name: str, func: Callable[..., Any]) -> Definition:
    return Definition(ref=name, func=func, is_async=inspect.iscoroutinefunction(func))


def _checked_name(func: Any) -> str:
    module = getattr(func, "__module__", None)
    path = getattr(func, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        raise InvalidJob(
            f"{func!r} has no name to find it by; expected a function at the top of a module"
        )
    name = f"{module}:{path}"
    if module == "__main__":
        raise InvalidJob(
            f"{name} is in the program that was started, which the daemon does not import; move it "
            "into a module"
        )
    if "<lambda>" in path or "<locals>" in path:
        kind = "a lambda" if "<lambda>" in path else "defined inside of a function"
        raise InvalidJob(f"{name} is {kind}; define it with def at the top of a module")
    try:
        found = import_name(name)
    except UnknownName as error:
        raise InvalidJob(f"{name} cannot be found again by its name: {error}") from error
    if found is not func:
        raise InvalidJob(
            f"{name} is the name of {found!r}, not of {func!r}; was it replaced, or decorated "
            "without functools.wraps?"
        )
    return name


def _is_plain_method(name: str) -> bool:
    """Whether the name leads to a function in a class that needs an instance."""
    module, _, path = name.partition(":")
    owner, _, attribute = path.rpartition(".")
    if not owner:
        return False
    found = import_name(f"{module}:{owner}")
    return isinstance(found, type) and inspect.isfunction(inspect.getattr_static(found, attribute))


def _describe_method(method: MethodType) -> tuple[Definition, tuple[Any, ...]]:
    owner = method.__self__
    marked = getattr(method, MARK, None)
    if isinstance(owner, type):
        name = f"{owner.__module__}:{owner.__qualname__}.{method.__name__}"
        _check_importable(name, method)
        return _of_method(name, method, marked), ()
    state = inspect_mapped(owner, raiseerr=False)
    if not isinstance(state, InstanceState):
        raise InvalidJob(
            f"{method.__qualname__} is bound to a {type(owner).__qualname__}, which a daemon cannot "
            "find again; expected a function, or a method of a persistent SQLAlchemy object"
        )
    cls = type(owner)
    name = f"{cls.__module__}:{cls.__qualname__}.{method.__name__}"
    _check_importable(name, method.__func__)
    return _of_method(name, method.__func__, marked), (owner,)


def _check_importable(name: str, expected: Any) -> None:
    try:
        found = import_name(name)
    except UnknownName as error:
        raise InvalidJob(f"{name} cannot be found again by its name: {error}") from error
    if found != expected:
        raise InvalidJob(f"{name} is the name of {found!r}, not of {expected!r}")


def _of_method(name: str, func: Callable[..., Any], marked: Any) -> Definition:
    if not isinstance(marked, Definition):
        return _plain(name, func)
    return Definition(
        ref=name,
        func=func,
        options=marked.options,
        pass_request=marked.pass_request,
        pass_job=marked.pass_job,
        is_async=marked.is_async,
    )


def load(
    ref: str, *, aliases: Mapping[str, str] | None = None, allow: Collection[str] | None = None
) -> Definition:
    """Find the definition a stored job names, in the daemon; what was found is kept.

    ``aliases`` maps old names to new ones. ``allow`` are the dotted prefixes that may run, None
    for all.

    Raises UnknownFunction where the name leads nowhere, or may not run.
    """
    if aliases:
        ref = aliases.get(ref, ref)
    if allow is not None and not is_allowed(ref, allow):
        raise UnknownFunction(
            f"{ref!r} is not below one of scheduler.allow ({', '.join(allow) or 'nothing'})"
        )
    return _load(ref)


def is_allowed(ref: str, allow: Collection[str]) -> bool:
    """Whether a name is one of the dotted prefixes, or below one."""
    dotted = ref.replace(":", ".")
    return any(dotted == prefix or dotted.startswith(f"{prefix}.") for prefix in allow)


@functools.lru_cache(maxsize=10_000)
def _load(ref: str) -> Definition:
    """Import by name. Only what was found is cached: a module may be there the next time."""
    try:
        found = import_name(ref)
    except UnknownName as error:
        raise UnknownFunction(str(error)) from error
    if isinstance(found, MethodType):
        return _of_method(ref, found, getattr(found, MARK, None))
    marked = vars(found).get(MARK) if isinstance(found, type) else getattr(found, MARK, None)
    if isinstance(marked, Definition):
        # A method of a mapped class keeps the name it was stored under.
        return marked if marked.ref == ref else _of_method(ref, marked.func, marked)
    if isinstance(found, type) or not callable(found):
        raise UnknownFunction(f"{ref!r} is {found!r}: not a function, and no @routine")
    return _plain(ref, found)


def current_scheduler() -> Any:
    """The scheduler of the current request or application, for calls on a definition.

    Raises DurableError where there is none.
    """
    scheduler = getattr(get_current_registry(), "scheduler", None)
    if scheduler is None:
        raise DurableError(
            "no application is active here: call registry.scheduler.add_async_job(...), or run "
            "this where Pyramid has made its registry current"
        )
    return scheduler

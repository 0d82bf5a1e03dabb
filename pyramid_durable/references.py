"""Between an object and the name it can be imported by, "pkg.mod:Qual.name" (web and daemon)."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any, Final, NamedTuple

from .exceptions import DurableError, InvalidJob

LONGEST_NAME: Final = 255
"""Characters that the store's column for names holds."""


class UnknownName(DurableError, LookupError):
    """Raised when a name cannot be imported."""


class Place(NamedTuple):
    """Where a name leads to: ``found`` is what ``owner``, a module or what is in one, calls
    ``attribute``. The owner of a module is the module itself, without an attribute."""

    name: str
    owner: Any
    attribute: str
    found: Any

    @property
    def is_plain_method(self) -> bool:
        """Whether it is a function in a class, which needs an object as its first argument."""
        return isinstance(self.owner, type) and inspect.isfunction(
            inspect.getattr_static(self.owner, self.attribute, None)
        )

    def is_current(self) -> bool:
        """Whether the name still leads there; tests replace functions, and put them back."""
        # Equal, not the same: a bound class method is a new object each time.
        return bool(getattr(self.owner, self.attribute, None) == self.found)


def name_of(target: Any) -> str:
    """The name under which an object says it can be imported; it is not tried here."""
    return f"{target.__module__}:{target.__qualname__}"


def import_name(name: str) -> Any:
    """Import what ``"pkg.mod:Class.method"`` or ``"pkg.mod.func"`` names.

    Raises UnknownName, saying which part was not found. An error inside the module is raised as
    UnknownName too, with its cause: for the caller the name leads nowhere either way.
    """
    return locate(name).found


def locate(name: str) -> Place:
    """Import by name like import_name, and tell where it was. Raises UnknownName."""
    module, colon, path = name.partition(":")
    if not colon:
        return _locate_dotted(name)
    if not module or not path or ":" in path:
        raise UnknownName(f"{name!r} is no name; expected 'pkg.mod:func' or 'pkg.mod.func'")
    return _walk(name, module, path)


def _locate_dotted(name: str) -> Place:
    """Find where the module ends: with the longest part that can be imported."""
    parts = name.split(".")
    # First among what is imported already: to look for a module "pkg.mod.func" on disk, each time,
    # costs a hundred times as much as the rest.
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        if module in sys.modules:
            try:
                return _walk(name, module, ".".join(parts[cut:]))
            except UnknownName:
                break  # a module that is not imported yet may stand in between
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        try:
            _import(name, module)
        except UnknownName as error:
            if _is_missing(error.__cause__, module):
                continue
            raise
        return _walk(name, module, ".".join(parts[cut:]))
    raise UnknownName(f"{name!r}: there is no module {parts[0]!r}")


def _is_missing(cause: BaseException | None, module: str) -> bool:
    """Whether there is no such module, rather than one that fails over another's absence."""
    if not isinstance(cause, ModuleNotFoundError) or cause.name is None:
        return False
    return cause.name == module or module.startswith(f"{cause.name}.")


def _import(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UnknownName(f"{name!r}: there is no module {error.name!r}") from error
    # SystemExit: a script without a guard around its main() must not end the process.
    except (Exception, SystemExit) as error:
        raise UnknownName(f"{name!r}: importing {module!r} failed: {error!r}") from error


def _walk(name: str, module: str, path: str) -> Place:
    found: Any = _import(name, module)
    owner, attribute = found, ""
    for part in path.split(".") if path else ():
        owner, attribute = found, part
        try:
            found = getattr(owner, part)
        except Exception as error:
            kind = f"module {owner.__name__!r}" if isinstance(owner, ModuleType) else repr(owner)
            raise UnknownName(f"{name!r}: {kind} has no attribute {part!r}") from error
    return Place(f"{module}:{path}" if path else module, owner, attribute, found)


def locate_callable(func: Any, name: str | None = None) -> Place:
    """Where a callable can be found again by a daemon; ``name`` if it is not its own.

    Raises InvalidJob, saying why it cannot be found and what to do.
    """
    name = name or _own_name(func)
    module, _, path = name.partition(":")
    if module == "__main__":
        raise InvalidJob(
            f"{name} is in the program that was started, which the daemon does not import; move it "
            "into a module"
        )
    if "<lambda>" in path or "<locals>" in path:
        kind = "a lambda" if "<lambda>" in path else "defined inside of a function"
        raise InvalidJob(f"{name} is {kind}; define it with def at the top of a module")
    if len(name) > LONGEST_NAME:
        raise InvalidJob(f"{name} has {len(name)} characters; expected {LONGEST_NAME} at most")
    try:
        place = locate(name)
    except UnknownName as error:
        raise InvalidJob(f"{name} cannot be found again by its name: {error}") from error
    if place.found is not func and not (inspect.ismethod(func) and place.found == func):
        raise InvalidJob(
            f"{name} is the name of {place.found!r}, not of {func!r}; was it replaced, or decorated "
            "without functools.wraps?"
        )
    return place


def _own_name(func: Any) -> str:
    module, path = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        raise InvalidJob(
            f"{func!r} has no name to find it by; expected a function at the top of a module"
        )
    return f"{module}:{path}"

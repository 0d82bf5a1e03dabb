"""Between an object and the name it can be imported by, "pkg.mod:Qual.name" (web and daemon)."""

from __future__ import annotations

import importlib
from typing import Any

from .exceptions import DurableError


class UnknownName(DurableError, LookupError):
    """Raised when a name cannot be imported."""


def name_of(target: Any) -> str:
    """The name under which an object says it can be imported; it is not tried here."""
    return f"{target.__module__}:{target.__qualname__}"


def split_name(name: str) -> tuple[str, str]:
    """The module and the path in it of ``"pkg.mod:Class.method"``; the path is ""
    where only dots are given, since then they do not say where the module ends."""
    module, colon, path = name.partition(":")
    return (module, path) if colon else (name, "")


def import_name(name: str) -> Any:
    """Import what ``"pkg.mod:Class.method"`` or ``"pkg.mod.func"`` names.

    Raises UnknownName, saying which part was not found. An error inside the module is raised as
    UnknownName too, with its cause: for the caller the name leads nowhere either way.
    """
    module, path = split_name(name)
    if path:
        return _walk(name, _import(name, module), path)
    parts = module.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name is not None and ".".join(parts[:cut]).startswith(error.name):
                continue
            raise UnknownName(f"{name!r}: importing it failed: {error}") from error
        except Exception as error:
            raise UnknownName(f"{name!r}: importing it failed: {error!r}") from error
        return _walk(name, found, ".".join(parts[cut:]))
    raise UnknownName(f"{name!r}: there is no module {parts[0]!r}")


def _import(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UnknownName(f"{name!r}: there is no module {error.name!r}") from error
    except Exception as error:
        raise UnknownName(f"{name!r}: importing {module!r} failed: {error!r}") from error


def _walk(name: str, found: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise UnknownName(f"{name!r}: {found!r} has no attribute {part!r}") from error
    return found

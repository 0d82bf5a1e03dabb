"""What settings name by a dotted name: imported, and looked at (both)."""

from __future__ import annotations

from typing import Any, Final

from .exceptions import InvalidSetting
from .references import UnknownName, import_name

STORE_CLASS: Final = "pyramid_durable.jobstore.DurableJobStore"


def import_setting(key: str, name: str) -> Any:
    """Import what the setting ``key`` names. Raises InvalidSetting where it leads nowhere."""
    try:
        return import_name(name)
    except UnknownName as error:
        raise InvalidSetting(
            f"scheduler.{key}: {error}; expected a dotted name such as 'pkg.mod.name'"
        ) from error


def import_store_class(name: str) -> Any:
    """Import what ``jobstore.default.class`` names. Raises InvalidSetting unless it is a subclass
    of ours, which is known by its name here: web processes need not load the daemon's."""
    key = "jobstore.default.class"
    found = import_setting(key, name)
    bases = found.__mro__ if isinstance(found, type) else ()
    if STORE_CLASS not in [f"{base.__module__}.{base.__qualname__}" for base in bases]:
        raise InvalidSetting(f"scheduler.{key}: {name} is no subclass of {STORE_CLASS}")
    return found

"""JobSpec, ScheduleSpec and Change as JSON values, for commands (web and daemon)."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from .changes import Change
from .exceptions import InvalidCommand
from .records import JobSpec, ScheduleSpec

Spec = TypeVar("Spec", JobSpec, ScheduleSpec, Change)

NOT_FROM_OUTSIDE: Final = ("declared", "generation", "times")
"""Fields that a command cannot set: schedules are declared by a daemon's own configuration."""


def spec_to_json(spec: JobSpec | ScheduleSpec | Change) -> dict[str, Any]:
    """JSON values from which spec_from_json makes an equal spec; defaults are left out."""
    found: dict[str, Any] = {}
    defaults = _DEFAULTS[type(spec)]
    for name in _HINTS[type(spec)]:
        value = getattr(spec, name)
        if name in NOT_FROM_OUTSIDE or (name in defaults and value == defaults[name]):
            continue
        found[name] = _to_json(value)
    return found


def _to_json(value: Any) -> Any:
    if isinstance(value, JobSpec):
        return spec_to_json(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value


def spec_from_json(kind: type[Spec], found: Any) -> Spec:
    """Make the JobSpec, ScheduleSpec or Change that spec_to_json wrote.

    Raises InvalidCommand where a field is unknown, missing, or of another type.
    """
    if not isinstance(found, Mapping):
        raise InvalidCommand(f"{kind.__name__}: {type(found).__name__} found, expected an object")
    hints = _HINTS[kind]
    for name in found:
        if name not in hints or name in NOT_FROM_OUTSIDE:
            raise InvalidCommand(
                f"{kind.__name__}: field {name!r} is not one that a command may have; expected "
                f"{', '.join(hints)}"
            )
    read = {name: _from_json(kind, name, hints[name], value) for name, value in found.items()}
    try:
        return kind(**read)
    except TypeError as error:
        raise InvalidCommand(f"{kind.__name__}: {error}") from error


def _from_json(kind: type, name: str, hint: Any, value: Any) -> Any:
    types_ = _types_of(hint)
    if JobSpec in types_:
        return spec_from_json(JobSpec, value)
    if datetime in types_ and isinstance(value, str):
        return _moment(kind, name, value)
    # bool is an int for Python, and not for anybody else.
    if isinstance(value, types_) and (bool in types_ or not isinstance(value, bool)):
        return value
    if float in types_ and type(value) is int:
        return float(value)
    expected = " or ".join("null" if each is type(None) else each.__name__ for each in types_)
    raise InvalidCommand(f"{kind.__name__}: {name}: {value!r} found, expected {expected}")


def _moment(kind: type, name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidCommand(f"{kind.__name__}: {name}: {error}") from error
    if moment.tzinfo is None:
        raise InvalidCommand(f"{kind.__name__}: {name}: {text!r} has no offset from UTC")
    return moment


def _types_of(hint: Any) -> tuple[type, ...]:
    """The types of an annotation: a class, a generic one, or several."""
    if isinstance(hint, types.UnionType):
        return tuple(each for part in get_args(hint) for each in _types_of(part))
    return (get_origin(hint) or hint,)


def _defaults(kind: Any) -> dict[str, Any]:
    if kind is JobSpec:
        return JobSpec._field_defaults
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(kind)
    }


_HINTS: Final[dict[Any, dict[str, Any]]] = {
    kind: get_type_hints(kind) for kind in (JobSpec, ScheduleSpec, Change)
}
_DEFAULTS: Final = {kind: _defaults(kind) for kind in _HINTS}

"""Python values as JSON that reads back as they went in: the reading half (web and daemon).

A payload can name enums, dataclasses and mapped classes; reading it imports them, checks that they
are that, and calls nothing of them.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy
from sqlalchemy.orm import Mapper

from .exceptions import BrokenJob
from .json_values import MARK, EntityRef
from .references import import_name

LoadEntity = Callable[[EntityRef], Any]


def decoder(load_entity: LoadEntity | None) -> Callable[[dict[str, Any]], Any]:
    """The object_hook that turns marked objects back; ``load_entity`` finds mapped objects.

    Without it they come back as EntityRef. It raises BrokenJob, or another Exception, for what
    cannot be read, and EntityError for what load_entity raises.
    """

    def decode(found: dict[str, Any]) -> Any:
        if MARK not in found:
            return found
        kind = found[MARK]
        if kind == "entity":
            return load(read_entity(found["c"], found["v"]), load_entity)
        read = _DECODERS.get(kind)
        if read is None:
            raise BrokenJob(f"a stored value has the unknown kind {kind!r}")
        return read(found)

    return decode


class EntityError(Exception):
    """Carries what load_entity raised out of the reader: it is not about the stored text."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def load(ref: EntityRef, load_entity: LoadEntity | None) -> Any:
    """Load a mapped object. Raises EntityError."""
    if load_entity is None:
        return ref
    try:
        return load_entity(ref)
    except Exception as error:
        raise EntityError(error) from error


def read_entity(name: Any, pk: Any) -> EntityRef:
    """The reference to an object of a mapped class. Raises BrokenJob where it is not mapped."""
    cls = import_name(name)
    if not isinstance(sqlalchemy.inspect(cls, raiseerr=False), Mapper):
        raise BrokenJob(f"{name} is not a class that SQLAlchemy maps")
    return EntityRef(name, tuple(pk))


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    seconds, *name = zone
    return timezone(timedelta(seconds=seconds), *name) if seconds or name else timezone.utc


def _read_datetime(found: Mapping[str, Any]) -> datetime:
    naive = datetime.fromisoformat(found["v"])
    return naive.replace(tzinfo=_read_zone(found.get("z")), fold=found.get("f", 0))


def _read_time(found: Mapping[str, Any]) -> time:
    naive = time.fromisoformat(found["v"])
    return naive.replace(tzinfo=_read_zone(found.get("z")), fold=found.get("f", 0))


def _bytes(found: Mapping[str, Any]) -> bytes:
    return base64.b64decode(found["v"], validate=True)


def _read_enum(found: Mapping[str, Any]) -> Any:
    cls = import_name(found["c"])
    if not (isinstance(cls, type) and issubclass(cls, Enum)):
        raise BrokenJob(f"{found['c']} is not an Enum")
    if "n" in found:
        return cls[found["n"]]
    if not issubclass(cls, Flag):
        raise BrokenJob(f"{found['c']} is not a Flag")
    return cls(found["v"])


def _read_dataclass(found: Mapping[str, Any]) -> Any:
    cls = import_name(found["c"])
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise BrokenJob(f"{found['c']} is not a dataclass")
    # Field by field, as copy does: __init__ may count, check or connect.
    value = object.__new__(cls)
    stored = found["v"]
    for field in dataclasses.fields(cls):
        if field.name in stored:
            object.__setattr__(value, field.name, stored[field.name])
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default_factory())
        else:
            raise BrokenJob(f"{found['c']} has a field {field.name!r} now that was not stored")
    # Into the dict, past properties that would run code.
    if "x" in found:
        vars(value).update(found["x"])
    return value


_DECODERS: Final[dict[Any, Callable[[Mapping[str, Any]], Any]]] = {
    "int": lambda found: int(found["v"], 16),
    "float": lambda found: float(found["v"]),
    "str": lambda found: _bytes(found).decode("utf-8", "surrogatepass"),
    "dict": lambda found: dict(found["v"]),
    "tuple": lambda found: tuple(found["v"]),
    "set": lambda found: set(found["v"]),
    "frozenset": lambda found: frozenset(found["v"]),
    "bytes": _bytes,
    "bytearray": lambda found: bytearray(_bytes(found)),
    "datetime": _read_datetime,
    "date": lambda found: date.fromisoformat(found["v"]),
    "time": _read_time,
    "timedelta": lambda found: timedelta(*found["v"]),
    "decimal": lambda found: Decimal(found["v"]),
    "uuid": lambda found: UUID(found["v"]),
    "enum": _read_enum,
    "dataclass": _read_dataclass,
}

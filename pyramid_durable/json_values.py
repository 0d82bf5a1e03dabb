"""Python values as JSON that reads back as they went in (web and daemon).

A value JSON has no form for becomes ``{"!": kind, "v": ...}``; so does a dict whose keys are not all
texts, or that has a key ``"!"`` of its own. A payload can name enums, dataclasses and mapped
classes; reading it imports them, checks that they are that, and calls nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from .exceptions import BrokenJob
from .references import UnknownName, import_name, name_of

MARK: Final = "!"

LoadEntity = Callable[["EntityRef"], Any]


class Unserializable(ValueError):
    """Raised for a value that has no form; ``path`` leads to it from where one looked."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path


@dataclass(frozen=True)
class EntityRef:
    """A persistent mapped object, as it is stored: its class by name, and its primary key."""

    cls: str
    pk: tuple[Any, ...]


def encode(value: Any) -> Any:
    """The JSON-ready form of a value; a list or dict of plain values is copied.

    Raises Unserializable.
    """
    encoder = _ENCODERS.get(type(value))
    return encoder(value) if encoder is not None else _encode_other(value)


def _same(value: Any) -> Any:
    return value


def _tagged(kind: str, form: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {MARK: kind, "v": form(value)}


def _float(value: float) -> Any:
    # NaN and the infinities are not JSON, although Python's reader takes them.
    return value if math.isfinite(value) else {MARK: "float", "v": repr(value)}


def _items(value: Any) -> list[Any]:
    items = []
    for index, item in enumerate(value):
        try:
            items.append(encode(item))
        except Unserializable as error:
            raise Unserializable(error.problem, f"[{index}]{error.path}") from None
    return items


def _set_items(value: Any) -> list[Any]:
    # Sorted, so that equal sets have equal texts: uniqueness compares these.
    return sorted(_items(value), key=repr)


def _dict(value: dict[Any, Any]) -> Any:
    encoded = {}
    plain = MARK not in value
    for key, item in value.items():
        try:
            encoded[key] = encode(item)
        except Unserializable as error:
            raise Unserializable(error.problem, f"[{key!r}]{error.path}") from None
        plain = plain and type(key) is str
    if plain:
        return encoded
    return {MARK: "dict", "v": [[encode(key), item] for key, item in encoded.items()]}


def _datetime(value: datetime) -> Any:
    zone = _zone(value.tzinfo, value)
    return {MARK: "datetime", "v": value.isoformat(), "z": zone, "f": value.fold}


def _time(value: time) -> Any:
    zone = _zone(value.tzinfo, value)
    return {MARK: "time", "v": value.replace(tzinfo=None).isoformat(), "z": zone, "f": value.fold}


def _zone(zone: tzinfo | None, value: Any) -> Any:
    if zone is None:
        return None
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        return zone.utcoffset(None).total_seconds()
    raise Unserializable(
        f"{value!r}: a time zone of type {type(zone).__module__}.{type(zone).__qualname__} cannot "
        "be stored; expected zoneinfo.ZoneInfo or datetime.timezone"
    )


def _encode_other(value: Any) -> Any:
    cls = type(value)
    if isinstance(value, Enum):
        return {MARK: "enum", "c": _importable(cls), "v": value.name}
    state = inspect(value, raiseerr=False)
    if isinstance(state, InstanceState):
        return _entity(state, value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {MARK: "dataclass", "c": _importable(cls), "v": _dict(fields)}
    raise Unserializable(
        f"{cls.__module__}.{cls.__qualname__} cannot be stored; expected JSON values, datetime, "
        "date, time, timedelta, Decimal, UUID, bytes, tuple, set, Enum, dataclass, or a "
        "persistent SQLAlchemy object"
    )


def _importable(cls: type) -> str:
    name = name_of(cls)
    try:
        found = import_name(name)
    except UnknownName as error:
        raise Unserializable(f"{name} cannot be imported by the daemon: {error}") from error
    if found is not cls:
        raise Unserializable(f"{name} names something else than the class of this value")
    return name


def _entity(state: Any, value: Any) -> Any:
    if state.identity is None:
        raise Unserializable(
            f"a {type(value).__qualname__} that is not in the database yet has no key to find it "
            "by; flush the session first"
        )
    return {MARK: "entity", "c": _importable(state.mapper.class_), "v": _items(state.identity)}


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


_ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): _same,
    bool: _same,
    int: _same,
    str: _same,
    float: _float,
    list: _items,
    dict: _dict,
    tuple: _tagged("tuple", _items),
    set: _tagged("set", _set_items),
    frozenset: _tagged("frozenset", _set_items),
    bytes: _tagged("bytes", _base64),
    bytearray: _tagged("bytearray", _base64),
    datetime: _datetime,
    date: _tagged("date", date.isoformat),
    time: _time,
    timedelta: _tagged("timedelta", _timedelta),
    Decimal: _tagged("decimal", str),
    UUID: _tagged("uuid", str),
}


def decoder(load_entity: LoadEntity | None) -> Callable[[dict[str, Any]], Any]:
    """The object_hook that turns marked objects back; ``load_entity`` finds mapped objects.

    Without it they come back as EntityRef. It raises BrokenJob for what cannot be read.
    """

    def decode(found: dict[str, Any]) -> Any:
        if MARK not in found:
            return found
        kind = found[MARK]
        if kind == "entity":
            ref = EntityRef(found["c"], tuple(found["v"]))
            return ref if load_entity is None else load_entity(ref)
        read = _DECODERS.get(kind)
        if read is None:
            raise BrokenJob(f"a stored value has the unknown kind {kind!r}")
        return read(found)

    return decode


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    return timezone(timedelta(seconds=zone)) if zone else timezone.utc


def _read_datetime(found: Mapping[str, Any]) -> datetime:
    naive = datetime.fromisoformat(found["v"]).replace(tzinfo=None)
    return naive.replace(tzinfo=_read_zone(found["z"]), fold=found["f"])


def _read_time(found: Mapping[str, Any]) -> time:
    return time.fromisoformat(found["v"]).replace(tzinfo=_read_zone(found["z"]), fold=found["f"])


def _read_enum(found: Mapping[str, Any]) -> Any:
    cls = import_name(found["c"])
    if not (isinstance(cls, type) and issubclass(cls, Enum)):
        raise BrokenJob(f"{found['c']} is not an Enum")
    return cls[found["v"]]


def _read_dataclass(found: Mapping[str, Any]) -> Any:
    cls = import_name(found["c"])
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise BrokenJob(f"{found['c']} is not a dataclass")
    # Field by field, as copy does: __init__ may count, check or connect.
    value = object.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in found["v"]:
            object.__setattr__(value, field.name, found["v"][field.name])
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default_factory())
        else:
            raise BrokenJob(f"{found['c']} has a field {field.name!r} now that was not stored")
    return value


_DECODERS: Final[dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    "float": lambda found: float(found["v"]),
    "dict": lambda found: dict(found["v"]),
    "tuple": lambda found: tuple(found["v"]),
    "set": lambda found: set(found["v"]),
    "frozenset": lambda found: frozenset(found["v"]),
    "bytes": lambda found: base64.b64decode(found["v"]),
    "bytearray": lambda found: bytearray(base64.b64decode(found["v"])),
    "datetime": _read_datetime,
    "date": lambda found: date.fromisoformat(found["v"]),
    "time": _read_time,
    "timedelta": lambda found: timedelta(*found["v"]),
    "decimal": lambda found: Decimal(found["v"]),
    "uuid": lambda found: UUID(found["v"]),
    "enum": _read_enum,
    "dataclass": _read_dataclass,
}

"""Python values as JSON that reads back as they went in: the writing half (web and daemon).

A value JSON has no form for becomes ``{"!": kind, ...}``; so does a dict whose keys are not all
texts, or that has a key ``"!"`` of its own. json_reading is the other half.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy
from sqlalchemy.orm import InstanceState

from .references import UnknownName, import_name, name_of

MARK: Final = "!"

LARGEST: Final = 1 << 1024
"""Whole numbers beyond are written in hexadecimal: since 3.11 Python refuses to read or write more
than 4,300 decimal digits, and takes a time that grows with their square."""


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
    return _ENCODERS.get(type(value), _encode_other)(value)


def _tagged(kind: str, form: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {MARK: kind, "v": form(value)}


def _int(value: int) -> Any:
    return value if -LARGEST < value < LARGEST else {MARK: "int", "v": hex(value)}


def _float(value: float) -> Any:
    # NaN and the infinities are not JSON, although Python's reader takes them.
    return value if math.isfinite(value) else {MARK: "float", "v": repr(value)}


def _str(value: str) -> Any:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON's reader would make one character of two surrogates that stand side by side.
        return {MARK: "str", "v": _base64(value.encode("utf-8", "surrogatepass"))}
    return value


def _at(step: str, value: Any, *, key: Any = None) -> Any:
    """Encode a part; what is wrong with it is told with the way to it, ``key`` in ``step``."""
    try:
        return encode(value)
    except Unserializable as error:
        raise Unserializable(error.problem, step.format(_shown(key)) + error.path) from None


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except Exception:  # noqa: BLE001 - it is for a message; 10**5000 has no decimal form
        return f"a {type(value).__qualname__}"


def _items(value: Any) -> list[Any]:
    items: list[Any] = []
    try:
        for item in value:
            # As encode() does, which would be one more call for each argument of each job; and one
            # by one, since the length tells which has failed.
            encoder = _ENCODERS.get(type(item), _encode_other)
            items.append(encoder(item))
    except Unserializable as error:
        raise Unserializable(error.problem, f"[{len(items)}]{error.path}") from None
    return items


def _set_items(value: Any) -> list[Any]:
    # Sorted, so that equal sets have equal texts: uniqueness compares these.
    return sorted((_at("{{{}}}", item, key=item) for item in value), key=repr)


def _dict(value: dict[Any, Any]) -> Any:
    encoded: dict[Any, Any] = {}
    plain = MARK not in value
    key = None
    try:
        for key, item in value.items():
            encoded[key] = encode(item)
            plain = plain and type(key) is str and _str(key) is key
    except Unserializable as error:
        raise Unserializable(error.problem, f"[{_shown(key)}]{error.path}") from None
    if plain:
        return encoded
    items = [[_at("'s key {}", key, key=key), item] for key, item in encoded.items()]
    return {MARK: "dict", "v": items}


def _datetime(value: datetime) -> Any:
    form = {MARK: "datetime", "v": value.replace(tzinfo=None).isoformat()}
    return _with_zone(form, value, value)


def _time(value: time) -> Any:
    form = {MARK: "time", "v": value.replace(tzinfo=None).isoformat()}
    return _with_zone(form, value, None)


def _with_zone(form: dict[str, Any], value: Any, moment: datetime | None) -> dict[str, Any]:
    if value.tzinfo is not None:
        form["z"] = _zone(value.tzinfo, moment)
    if value.fold:
        form["f"] = 1
    return form


def _zone(zone: tzinfo, moment: datetime | None) -> Any:
    """A zone's name, or the offset, in seconds, and perhaps a name for that.

    Of zones that are neither Python's own nor known to it by their name, only the offset at that
    moment is kept: the instant is the same.
    """
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset.total_seconds(), *name]
    key = getattr(zone, "key", None) or getattr(zone, "zone", None)  # pytz says zone
    offset = zone.utcoffset(moment)
    if isinstance(key, str) and _is_zone(key, zone, moment):
        return key
    if offset is None:
        raise Unserializable(f"{zone!r} tells no offset; expected a zoneinfo.ZoneInfo")
    return [offset.total_seconds()]


def _is_zone(key: str, zone: tzinfo, moment: datetime | None) -> bool:
    if isinstance(zone, ZoneInfo):
        return True
    try:
        return ZoneInfo(key).utcoffset(moment) == zone.utcoffset(moment)
    except (KeyError, ValueError, OSError):
        return False


def _encode_other(value: Any) -> Any:
    cls = type(value)
    if isinstance(value, Enum):
        return _enum(cls, value)
    ref = entity_ref(value)
    if ref is not None:
        return {MARK: "entity", "c": ref.cls, "v": _items(ref.pk)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass(cls, value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    for base in cls.__mro__:
        if base in _ENCODERS:
            raise Unserializable(
                f"a {name} cannot be stored: it would come back as a mere {base.__name__}; pass "
                f"{base.__name__}(…) if that is meant"
            )
    raise Unserializable(
        f"a {name} cannot be stored; expected JSON values, datetime, date, time, timedelta, "
        "Decimal, UUID, bytes, tuple, set, Enum, dataclass, or a persistent SQLAlchemy object"
    )


def _importable(cls: type) -> str:
    name = name_of(cls)
    try:
        found = import_name(name)
    except UnknownName as error:
        raise Unserializable(f"{name} cannot be imported by the daemon: {error}") from error
    if found is not cls:
        raise Unserializable(f"{name} names something else than the class of this value")
    if cls.__module__ == "__main__":
        raise Unserializable(
            f"{name} is in the program that was started, which the daemon does not import; move "
            "it into a module"
        )
    return name


def _enum(cls: Any, value: Any) -> Any:
    name = _importable(cls)
    if cls.__members__.get(value.name) is value:
        return {MARK: "enum", "c": name, "n": value.name}
    if isinstance(value, Flag):  # several at once have no name that can be looked up
        return {MARK: "enum", "c": name, "v": _at(".value", value.value)}
    raise Unserializable(f"{value!r} is not among the members of {name}")


def _dataclass(cls: Any, value: Any) -> Any:
    """Its state, field by field, as copy and pickle take it; ``x`` is what it has beside fields."""
    name = _importable(cls)
    try:
        object.__new__(cls)
    except TypeError as error:
        raise Unserializable(f"a {name} cannot be made from its fields: {error}") from error
    names = [field.name for field in dataclasses.fields(cls)]
    unset = [field for field in names if not hasattr(value, field)]
    if unset:
        raise Unserializable(f"a {name} without a value for its field {unset[0]!r}")
    form = {
        MARK: "dataclass",
        "c": name,
        "v": {field: _at(f".{field}", getattr(value, field)) for field in names},
    }
    beside = {
        attribute: _at(f".{attribute}", item)
        for attribute, item in getattr(value, "__dict__", {}).items()
        if attribute not in form["v"] and _is_state(cls, attribute)
    }
    return {**form, "x": beside} if beside else form


def _is_state(cls: type, attribute: str) -> bool:
    """Whether an attribute is not merely remembered, or Python's own."""
    cached = isinstance(getattr(cls, attribute, None), functools.cached_property)
    return not cached and not attribute.startswith("__")


def entity_ref(value: Any) -> EntityRef | None:
    """The reference to a persistent mapped object; None for what is not mapped.

    One that was read without being loaded is a reference already, as JobInfo shows it.
    Raises Unserializable for one that is not in the database.
    """
    if isinstance(value, EntityRef):
        return value
    state = sqlalchemy.inspect(value, raiseerr=False)
    if not isinstance(state, InstanceState):
        return None
    name = _importable(state.mapper.class_)
    if state.identity is None:
        raise Unserializable(
            f"a {name} that is not in the database yet has no key to find it by; flush the session "
            "first"
        )
    if state.deleted or state.was_deleted:
        raise Unserializable(f"a {name} that has been deleted cannot be found by the job")
    return EntityRef(name, tuple(state.identity))


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


_ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _int,
    str: _str,
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

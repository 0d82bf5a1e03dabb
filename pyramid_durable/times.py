"""Instants, durations, zones and ids, without a trigger among them (web and daemon)."""

from __future__ import annotations

import difflib
import math
import os
import re
import threading
import time
import zoneinfo
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from datetime import time as clock
from struct import iter_unpack
from typing import Any, Final

import tzlocal

from .exceptions import InvalidJob

UTC: Final = timezone.utc
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MIDNIGHT: Final = clock.min

DURATION_FORMS: Final = (
    "a number of seconds, a timedelta, or text such as '90', '90s', '5m', '5h', '5d', '2w', "
    "'1h30m' or '100ms'"
)
DATE_FORMS: Final = (
    "a datetime (naive ones are in the scheduler's timezone), a date, an epoch number in seconds, "
    "a timedelta from now, a duration from now such as '5d' or '1h30m', or ISO 8601 text such as "
    "'2030-05-17T08:00:00Z'"
)
ZONE_FORMS: Final = "an IANA name such as 'Europe/Berlin', 'UTC', or an offset such as '+02:00'"

_UNITS: Final = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# Each unit at most once and from large to small, so that a slip of the finger is an error.
_DURATION: Final = re.compile(
    r"\s*".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?)\s*{unit})?" for unit in _UNITS)
)
_PLAIN_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# Read here rather than by datetime.fromisoformat, which knows neither "Z" nor the basic form
# before Python 3.11.
_OFFSET_TEXT: Final = r"[+-](?:[01]\d|2[0-3])(?::?[0-5]\d(?::?[0-5]\d)?)?"
_ISO: Final = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)"
    r"(?:[Tt ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?\s?([Zz]|" + _OFFSET_TEXT + ")?)?",
    re.ASCII,
)
_OFFSET: Final = re.compile(f"(?:UTC)?({_OFFSET_TEXT})", re.ASCII)


def utcnow() -> datetime:
    """This machine's clock, aware, in UTC."""
    return datetime.now(UTC)


def parse_duration(value: Any) -> float:
    """A duration in seconds. ValueError where it is negative, endless or cannot be read."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # An integer too large for a float is too long as well.
        seconds = float(value) if abs(value) < 1e300 else math.inf
    elif isinstance(value, str):
        seconds = _read_duration(value)
    else:
        raise ValueError(_unread("duration", value, DURATION_FORMS))
    if not 0 <= seconds <= timedelta.max.total_seconds():
        raise ValueError(
            f"duration {value!r} is out of range: expected 0 or more, and less than "
            f"{timedelta.max.days} days"
        )
    return seconds


def _read_duration(text: str) -> float:
    if _PLAIN_NUMBER.fullmatch(text.strip()):
        return float(text)
    match = _DURATION.fullmatch(text.strip())
    if not text.strip() or match is None:
        raise ValueError(_unread("duration", text, DURATION_FORMS))
    return sum(float(number or 0) * _UNITS[unit] for unit, number in match.groupdict().items())


def relative_date(value: Any) -> float | None:
    """Seconds from now where ``value`` is relative (a timedelta, or "5d"), otherwise None.

    Negative for a negative timedelta. Text without a unit is no duration here: "90" could as well
    be an epoch, so parse_date refuses it.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value.strip()):
        try:
            return parse_duration(value)
        except ValueError:
            return None
    return None


def parse_date(value: Any, *, now: datetime, zone: tzinfo) -> datetime:
    """The instant that ``value`` names, aware, in UTC; relative values count from ``now``.

    Naive values are wall-clock times of ``zone``: one that does not exist becomes the first
    instant after the gap, one that exists twice the first occurrence (unless its ``fold`` is 1).
    Raises InvalidJob where the value cannot be read.
    """
    try:
        return _read_date(value, now, zone)
    except (ValueError, OverflowError) as error:
        raise InvalidJob(f"{_unread('date', value, DATE_FORMS)} ({error})") from error


def _read_date(value: Any, now: datetime, zone: tzinfo) -> datetime:
    delay = relative_date(value)
    if delay is not None:
        return now.astimezone(UTC) + timedelta(seconds=delay)
    if isinstance(value, str):
        value = _read_iso(value)
    if isinstance(value, datetime):
        return _as_instant(value, zone).astimezone(UTC)
    if isinstance(value, date):
        return resolve_wall(datetime.combine(value, MIDNIGHT), zone).astimezone(UTC)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return EPOCH + timedelta(seconds=value)
    raise ValueError(f"not of type {type(value).__name__}")


def _read_iso(text: str) -> datetime:
    match = _ISO.fullmatch(text.strip())
    # Eight digits are a basic date to ISO 8601 and an epoch to others.
    if match is None or _PLAIN_NUMBER.fullmatch(text.strip()):
        raise ValueError("neither ISO 8601 nor a duration with its unit")
    year, month, day, hour, minute, second = (int(match[n] or 0) for n in (1, 3, 4, 5, 6, 7))
    microsecond = int((match[8] or "")[:6].ljust(6, "0"))
    zone = _read_offset(match[9] or "")
    return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=zone)


def _read_offset(text: str) -> timezone | None:
    if text in ("Z", "z"):
        return UTC
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    digits = match[1][1:].replace(":", "").ljust(6, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
    return timezone(-offset if match[1][0] == "-" else offset) if offset else UTC


def _as_instant(value: datetime, zone: tzinfo) -> datetime:
    if value.utcoffset() is not None:
        return value
    naive = value.replace(tzinfo=None)
    first = resolve_wall(naive, zone)
    exists = first.replace(tzinfo=None) == naive
    return value.replace(tzinfo=zone) if value.fold and exists else first


def wall_time(instant: datetime, zone: tzinfo) -> datetime:
    """What the clocks of ``zone`` show at an aware instant: naive, its ``fold`` cleared."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def resolve_wall(naive: datetime, zone: tzinfo) -> datetime:
    """The aware time at which the clocks of ``zone`` show ``naive`` (its ``fold`` is ignored).

    A time that exists twice is its first occurrence. A time that does not exist is the first
    instant after the gap.
    """
    aware = naive.replace(tzinfo=zone, fold=0)
    instant = aware.astimezone(UTC)
    if wall_time(instant, zone) == naive:
        return aware
    # In a gap the folds are read with the offsets before and after it (PEP 495).
    earlier = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return find_transition(earlier, instant, zone).astimezone(zone)


def find_transition(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The instant in (low, high] at which the offset of ``zone`` turns away from that at ``low``.

    There must be one, and only one. Both are in UTC; transitions are on whole seconds.
    """
    before = low.astimezone(zone).utcoffset()
    start = low.replace(microsecond=0)
    kept, turned = 0, (high - start) // timedelta(seconds=1)
    while turned - kept > 1:
        middle = (kept + turned) // 2
        if (start + timedelta(seconds=middle)).astimezone(zone).utcoffset() == before:
            kept = middle
        else:
            turned = middle
    return start + timedelta(seconds=turned)


def get_zone(zone: str | tzinfo | None) -> tzinfo:
    """The timezone of that name; the machine's for None. Raises InvalidJob where it is unknown."""
    if zone is None:
        return _machine_zone()
    if isinstance(zone, tzinfo):
        name = getattr(zone, "zone", None)  # pytz needs calls of its own to get an offset right
        return _named_zone(name) if isinstance(name, str) else zone
    if not isinstance(zone, str):
        raise InvalidJob(_unread("timezone", zone, f"{ZONE_FORMS}, or a tzinfo"))
    return _read_offset(zone) or _named_zone(zone)


def zone_name(zone: tzinfo) -> str:
    """The name from which get_zone makes the zone again, on this machine and on others.

    Raises InvalidJob for a zone that has none.
    """
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    # tzlocal calls a copied /etc/localtime "local", which is no name.
    if isinstance(name, str) and _load_zone(name) is not None:
        return "UTC" if name.upper() == "UTC" else name
    offset = zone.utcoffset(None)
    if offset is None:
        raise InvalidJob(
            f"timezone {zone!r} has no name that another machine would know; expected "
            f"{ZONE_FORMS}: name one in 'timezone' or in the setting scheduler.timezone"
        )
    if not offset:
        return "UTC"
    sign, offset = ("-", -offset) if offset < timedelta(0) else ("+", offset)
    return sign + (EPOCH + offset).time().isoformat().removesuffix(":00")


def _machine_zone() -> tzinfo:
    try:
        return tzlocal.get_localzone()
    except (KeyError, ValueError, OSError) as error:
        raise InvalidJob(
            f"the machine's timezone cannot be read ({error}): set scheduler.timezone to {ZONE_FORMS}"
        ) from error


def _named_zone(name: str) -> tzinfo:
    zone = UTC if name.upper() == "UTC" else _load_zone(name)
    if zone is not None:
        return zone
    known = {known.lower(): known for known in zoneinfo.available_timezones()}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {known[near[0]]!r}?" if near else ""
    if not known:
        hint = "; this machine has no timezone database: install the tzdata package"
    raise InvalidJob(_unread("timezone", name, ZONE_FORMS) + hint)


def _load_zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    # A folder of the zone database is an OSError on some Pythons, a name with a NUL a ValueError.
    except (KeyError, ValueError, OSError):
        return None


def _unread(what: str, value: Any, forms: str) -> str:
    shown = repr(value)
    if len(shown) > 200:
        shown = shown[:200] + "…"
    return f"{what} {shown} cannot be read; expected {forms}"


class _IdClock:
    def __init__(self) -> None:
        self.lock, self.pid, self.last = threading.Lock(), os.getpid(), 0

    def ticks(self, number: int) -> range:
        """So many times 60 bits that only grow: milliseconds since the epoch, and 4096ths of one."""
        if self.pid != os.getpid():
            # The lock of the parent may have been held by another thread at the fork.
            self.lock, self.pid = threading.Lock(), os.getpid()
        milliseconds, rest = divmod(time.time_ns(), 1_000_000)
        with self.lock:
            # Also where the clock stands still or is set back.
            first = max(milliseconds << 12 | (rest << 12) // 1_000_000, self.last + 1)
            self.last = first + number - 1
        return range(first, first + number)


_id_clock: Final = _IdClock()


def new_id() -> str:
    """A UUIDv7 (RFC 9562, method 3) as text; within a process each is greater than the last."""
    return next(new_ids(1))


def new_ids(number: int) -> Iterator[str]:
    """So many of them, made together when the first is asked for."""
    random = iter_unpack(">H6s", os.urandom(8 * number))
    moment, prefix = -1, ""
    for tick, (first, last) in zip(_id_clock.ticks(number), random, strict=True):
        if tick >> 12 != moment:
            moment = tick >> 12
            prefix = f"{moment >> 16:08x}-{moment & 0xFFFF:04x}-7"
        yield f"{prefix}{tick & 0xFFF:03x}-{0x8000 | first >> 2:x}-{last.hex()}"

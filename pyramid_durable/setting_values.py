"""How one value of an ini is read; ValueError where it cannot be (both)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from datetime import tzinfo
from typing import Any, Final

from .times import get_zone, parse_duration

DURATION: Final = "a duration such as 90, 90s, 5m, 5h, 5d, 2w, 1h30m or 100ms"
QUEUES: Final = (
    "names of letters, digits, '_', '-' and '.' (80 characters at most), separated by spaces, "
    "none of them twice"
)
BROKER_OPTION: Final = "text, or JSON for a number, true, false, a list or a table"

_TRUE: Final = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "n", "f", "0"})
# What every broker takes as part of a name, and the store's column holds.
_QUEUE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_PREFIX: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]{0,29}")
_SIZE: Final = re.compile(r"(\d+)\s*(B|KB|MB|GB)?", re.IGNORECASE)
_UNITS: Final = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}


def read_text(value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}")
    return value.strip()


def read_flag(value: Any) -> bool:
    """True or false; unlike Pyramid's asbool, a slip of the finger is not false."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"neither true nor false: {value!r}")


def read_natural(value: Any) -> int:
    """A number from 1."""
    if isinstance(value, (bool, float)):
        raise ValueError(f"not a whole number: {value!r}")
    number = int(value)
    if number < 1:
        raise ValueError(f"less than 1: {number}")
    return number


def read_span(value: Any) -> float:
    """A duration in seconds, 0 included."""
    return parse_duration(value)


def read_limit(value: Any) -> float | None:
    """A duration in seconds, or None for ``none``: no limit."""
    if isinstance(value, str) and value.strip().lower() == "none":
        return None
    return read_span(value)


def read_positive(value: Any) -> float:
    """A duration in seconds, longer than 0."""
    seconds = read_span(value)
    if seconds <= 0:
        raise ValueError(f"not longer than nothing: {value!r}")
    return seconds


def read_size(value: Any) -> int:
    """A number of bytes, from 1."""
    if isinstance(value, int):
        return read_natural(value)
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"not a size: {value!r}")
    return read_natural(int(match[1]) * _UNITS[(match[2] or "B").upper()])


def read_words(value: Any) -> tuple[str, ...]:
    """Words separated by white space, or a list of them."""
    words = tuple(value.split()) if isinstance(value, str) else tuple(value)
    if not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"not words: {value!r}")
    return words


def read_queues(value: Any) -> tuple[str, ...]:
    """Names of queues, none twice."""
    queues = read_words(value)
    if len(set(queues)) < len(queues) or not all(map(_QUEUE.fullmatch, queues)):
        raise ValueError(f"not names of queues: {value!r}")
    return queues


def read_prefix(value: Any) -> str:
    """A prefix of table names; it becomes part of SQL, so only what needs no quoting is taken."""
    prefix = read_text(value)
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not a prefix of table names: {value!r}")
    return prefix


def read_zone(value: Any) -> tzinfo:
    """A timezone."""
    return get_zone(value)


def read_option(value: Any) -> Any:
    """JSON where the text is JSON (a number, true, a list, a table), otherwise the text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value.strip()


def read_backoff(value: Any) -> Any:
    """A duration, a list of several (with spaces or commas between them, or JSON), or
    ``exponential``. A table (JSON) is left for who knows its fields."""
    found = read_option(value)
    if not isinstance(found, (str, list, tuple)):
        return found
    words = re.split(r"[\s,]+", found) if isinstance(found, str) else list(found)
    if words == ["exponential"]:
        return found
    for word in words:
        parse_duration(word)
    return words if len(words) > 1 or not isinstance(found, str) else found


def word_of(words: Collection[str]) -> Callable[[Any], str]:
    """Make the reader of one of these words."""

    def read_word(value: Any) -> str:
        word = read_text(value).lower()
        if word not in words:
            raise ValueError(f"none of {words}: {value!r}")
        return word

    return read_word

"""The options of jobs and schedules: what there is, and how each value is read (web and daemon).

This table is the one place that knows an option's form; job_specs puts what comes out of it into
the records.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone, tzinfo
from typing import Any, Final

from .definitions import TriggerBehavior
from .exceptions import InvalidJob
from .records import PRIORITIES
from .retry import parse_backoff
from .settings import EXECUTORS
from .times import parse_date, parse_duration, relative_date, utcnow

LONGEST_ID: Final = 120
LONGEST_NAME: Final = 255
"""What the store's columns hold; a text that is cut short, or an error at the commit, is worse."""

LONGEST_SPAN: Final = 1000 * 365 * 86400.0
"""So that what is added to a date in the foreseeable future is still a date."""

Reader = Callable[[Any, tzinfo], Any]


def _text(longest: int) -> Reader:
    def read(value: Any, zone: tzinfo) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("expected a text that is not empty")
        if len(value) > longest or not value.isprintable():
            raise ValueError(f"expected {longest} printable characters at most")
        return value

    return read


def _flag(value: Any, zone: tzinfo) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected True or False")
    return value


def _natural(value: Any, zone: tzinfo) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("expected a whole number from 1")
    if value > 2**31 - 1:
        raise ValueError("expected a number below two thousand million")
    return value


def _priority(value: Any, zone: tzinfo) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in PRIORITIES:
        raise ValueError("expected a whole number from 0 (first) to 9 (last)")
    return value


def _span(value: Any, zone: tzinfo) -> float:
    seconds = parse_duration(value)
    if seconds > LONGEST_SPAN:
        raise ValueError("expected a duration shorter than 1000 years")
    return seconds


def _positive(value: Any, zone: tzinfo) -> float:
    seconds = _span(value, zone)
    if seconds <= 0:
        raise ValueError("expected a duration longer than 0")
    return seconds


def _expires(value: Any, zone: tzinfo) -> float | str:
    """Seconds after the due time, or the moment as ISO text in UTC."""
    if isinstance(value, (int, float)) or relative_date(value) is not None:
        return _span(value, zone)
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError:
            pass  # no duration: a date, then
    return _iso(parse_date(value, now=utcnow(), zone=zone))


def _iso(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat()


def _executor(value: Any, zone: tzinfo) -> str:
    if value not in EXECUTORS:
        raise ValueError(f"expected one of {', '.join(EXECUTORS)}")
    return str(value)


def _behavior(value: Any, zone: tzinfo) -> str:
    known = TriggerBehavior.__members__
    if isinstance(value, TriggerBehavior):
        return value.name
    name = value.upper().replace("-", "_") if isinstance(value, str) else None
    if name not in known:
        raise ValueError(f"expected a TriggerBehavior: {', '.join(known)}")
    return str(name)


def _backoff(value: Any, zone: tzinfo) -> Any:
    return parse_backoff(value).to_json()


def _folder(value: Any, zone: tzinfo) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError("expected a folder's path")
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path:
        raise ValueError("expected a folder's path")
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links that may change


def _userdata(value: Any, zone: tzinfo) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("expected a dict")
    return value


def _as_is(value: Any, zone: tzinfo) -> Any:
    return value


JOB_READERS: Final[Mapping[str, Reader]] = {
    "id": _text(LONGEST_ID),
    "name": _text(LONGEST_NAME),
    "priority": _priority,
    "expires": _expires,
    "misfire_grace_time": _span,
    "max_attempts": _natural,
    "backoff": _backoff,
    "timeout": _positive,
    "executor": _executor,
    "behavior": _behavior,
    "group": _text(LONGEST_NAME),
    "userdata": _userdata,
    "content_object": _as_is,
    "working_dir": _folder,
    "delete_after": _flag,
    "replace_existing": _flag,
}

SCHEDULE_READERS: Final[Mapping[str, Reader]] = {
    **JOB_READERS,
    "end_date": _as_is,  # read with the schedule's own timezone and the store's clock
    "iterations": _natural,
    "run_immediately": _flag,
    "jitter": _span,
    "coalesce": _flag,
    "max_instances": _natural,
    "allow_overlap": _flag,
    "timezone": _as_is,
}


def check_names(verb: str, options: Collection[str], known: Collection[str]) -> None:
    """Raise TypeError where an option is not known, as a call with a wrong keyword does."""
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(
                f"{verb}() got an unknown option {name!r}{hint}; "
                f"there are: {', '.join(sorted(known))}"
            )


def read_options(
    options: Mapping[str, Any], readers: Mapping[str, Reader], zone: tzinfo
) -> dict[str, Any]:
    """Read each option's value; one that is None is left out, as if it had not been given.

    Raises InvalidJob, naming the option, its value and what was expected.
    """
    read = {}
    for name, value in options.items():
        if value is None:
            continue
        try:
            read[name] = readers[name](value, zone)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidJob(f"option {name!r}: {value!r} cannot be used: {error}") from error
    return read

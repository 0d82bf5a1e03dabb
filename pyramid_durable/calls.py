"""What callers ask for, as they passed it (web and daemon)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .exceptions import InvalidJob
from .records import ASYNC, CRON, DATE, INTERVAL

TRIGGER_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    CRON: (
        "year",
        "month",
        "day",
        "week",
        "day_of_week",
        "hour",
        "minute",
        "second",
        "crontab",
    ),
    INTERVAL: ("weeks", "days", "hours", "minutes", "seconds"),
}


_TIMES: Final = frozenset({"date"}.union(*TRIGGER_FIELDS.values()))


class Call(NamedTuple):
    """What the caller of an ``add_*`` wants to run, as it was passed. ``verb`` is for errors.

    A tuple rather than one of the frozen dataclasses: one is made for every job.
    """

    verb: str
    func: Any
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    queue: str | None
    options: Mapping[str, Any]


def spec_call(spec: Mapping[str, Any]) -> tuple[Call, str, Any, dict[str, Any]]:
    """One entry of ``add_jobs``: the call, its kind, its date or start date, its trigger's fields.

    Raises TypeError and InvalidJob for an entry that no ``add_*`` would take.
    """
    if not isinstance(spec, (dict, Mapping)):  # an abstract class takes longer to ask
        raise InvalidJob(f"{type(spec).__name__} found, expected a dict such as {{'func': ...}}")
    rest = dict(spec)
    if "func" not in rest:
        raise InvalidJob("'func' is missing: what is to run?")
    take = rest.pop
    func, args, kwargs = take("func"), take("args", None), take("kwargs", None)
    call = Call("add_jobs", func, args, kwargs, take("queue", None), rest)
    if _TIMES.isdisjoint(rest):
        return call, ASYNC, None, {}
    given = {
        kind: {name: value for name in names if (value := rest.pop(name, None)) is not None}
        for kind, names in TRIGGER_FIELDS.items()
    }
    kinds = [kind for kind, fields in given.items() if fields]
    if len(kinds) + (rest.get("date") is not None) > 1:
        raise InvalidJob("expected a date, or fields of an interval, or of cron: not several")
    if kinds:
        rest.pop("date", None)
        start = rest.pop("start_date", None)
        return call, kinds[0], start, given[kinds[0]]
    date = rest.pop("date", None)
    return call, ASYNC if date is None else DATE, date, {}

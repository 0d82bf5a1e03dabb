"""What the jobs of one function have in common, said once for many of them (web and daemon)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from .calls import Call
from .definitions import TriggerBehavior
from .records import JobSpec
from .times import new_ids

PLAIN: Final = frozenset({str, int, float, bool, type(None), timedelta, TriggerBehavior})
"""Types of option values that mean the same where they are equal, and cannot change."""


class Pattern(NamedTuple):
    """A job without what each has for itself: its arguments, its time and, mostly, its id.

    ``bound`` are the arguments that stand before the caller's own. ``options`` are all that were
    read, also those that only schedules have.
    """

    spec: JobSpec
    bound: tuple[Any, ...]
    options: Mapping[str, Any]

    @property
    def is_compared(self) -> bool:
        """Whether each of the jobs may have a key, which its arguments decide."""
        return self.spec.group is not None or "behavior" in self.spec.options

    def job(self, id: str, payload: str, run_at: Any = None, delay: float = 0.0) -> JobSpec:
        """The job with these arguments; ``id`` is what it is called if none was chosen."""
        spec = self.spec
        return JobSpec._make(
            (spec.id or id, payload, *spec[2:_RUN_AT], run_at, delay, *spec[_USERDATA:])
        )


_RUN_AT: Final = JobSpec._fields.index("run_at")
_USERDATA: Final = JobSpec._fields.index("userdata")


class Batch:
    """The jobs of one call: equal options are read once, and the ids made together."""

    def __init__(self, size: int) -> None:
        self.ids: Iterator[str] = new_ids(size)
        self._patterns: dict[Any, Pattern] = {}

    def pattern(self, call: Call, kind: str, make: Callable[[Call, str], Pattern]) -> Pattern:
        """The pattern of a call: what ``make`` has made of another one that says the same."""
        key: tuple[Any, ...] = call.func, call.queue, kind
        if options := call.options:
            types = tuple(map(type, options.values()))
            if not PLAIN.issuperset(types):
                return make(call, kind)
            # 1 and True are equal, and not the same option.
            key = *key, tuple(options.items()), types
        try:
            known = self._patterns.get(key)
        except TypeError:  # not hashable
            return make(call, kind)
        if known is None:
            known = self._patterns[key] = make(call, kind)
        return known

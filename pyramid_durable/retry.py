"""Whether and when a failed attempt is followed by another: a pure policy (daemon)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

from .times import parse_duration, relative_date

RETRY_PAUSE: Final = 3600.0
"""Seconds that ``raise Retry()`` waits where neither it nor the job says how long (API.md)."""

LONGEST_WAIT: Final = 1000 * 365 * 86400.0
"""So that a wait added to a date of today is still a date: 1000 years."""


class Retry(Exception):
    """Raised in a job to have it tried again.

    ``delay`` is a duration, ``date`` anything that ``add_date_job`` takes; without either the job
    waits as its backoff says, or an hour. ``max_attempts`` is from then on the job's. The job's own
    bounds it from 2 on: 1 is the default of every job, and told from none only where Retry says it.

    Raises TypeError where both are given, ValueError where one cannot be read.
    """

    def __init__(
        self, delay: Any = None, date: Any = None, max_attempts: int | None = None
    ) -> None:
        # These, and not a text, so that it can be pickled on its way out of another process.
        super().__init__(delay, date, max_attempts)
        if delay is not None and date is not None:
            raise TypeError("Retry() takes a delay or a date, not both")
        self.delay = None if delay is None else parse_duration(delay)
        self.date = date
        self.max_attempts = _read_max_attempts(max_attempts)

    def __str__(self) -> str:
        return "the job asked to be tried again"


def _read_max_attempts(value: Any) -> int | None:
    # Not 0 for "without end": none given says that already.
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"max_attempts {value!r}: expected a whole number from 1, or None")
    return value


class Cancel(Exception):
    """Raised in a job to end it as cancelled. ``reason`` is kept as its error."""

    def __init__(self, reason: str = "the job cancelled itself") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)


class Sentinel:
    """A value that a job returns to say how it ended."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        # By name: it is told by identity, also when it comes out of another process.
        return self.name


OK: Final = Sentinel("OK")
RETRY: Final = Sentinel("RETRY")
IGNORE: Final = Sentinel("IGNORE")


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: exponential, with a ceiling and jitter.

    ``base`` seconds after the first attempt, then ``factor`` times as long each time, at most
    ``ceiling``; of that, a random part of up to ``jitter`` is taken off, so that jobs that failed
    together do not come back together (M. Brooker, "Exponential Backoff and Jitter", 2015).
    ``steps`` are waits given one by one instead; the last of them repeats.

    Raises ValueError for a value that is out of its range.
    """

    base: float = 15.0
    factor: float = 2.0
    ceiling: float = 3600.0
    jitter: float = 0.5
    steps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for wait in (self.base, self.ceiling, *self.steps):
            parse_duration(wait)
        if not 1 <= self.factor < math.inf or not 0 <= self.jitter <= 1:
            raise ValueError(
                f"backoff factor {self.factor!r}, jitter {self.jitter!r}: expected a factor from 1 "
                "and a jitter from 0 to 1"
            )

    def delay(self, attempt: int, rng: Random) -> float:
        """Seconds to wait after attempt number ``attempt``, counted from 1."""
        if self.steps:
            whole = self.steps[min(attempt, len(self.steps)) - 1]
        else:
            try:
                whole = min(self.base * self.factor ** (attempt - 1), self.ceiling)
            except OverflowError:
                whole = self.ceiling if self.base else 0.0
        return whole * (1 - self.jitter * rng.random())

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values from which parse_backoff makes an equal policy."""
        return {**asdict(self), "steps": list(self.steps)}


def parse_backoff(value: Any) -> Backoff:
    """Read a backoff.

    ``"exponential"`` is the default policy; a duration (``5``, ``"30s"``) waits that long each
    time; a list of durations gives the waits one by one; a dict changes fields of the default:
    ``{"base": "1s", "factor": 3, "ceiling": "10m", "jitter": 0.1}``.

    Raises ValueError for anything else.
    """
    if isinstance(value, Backoff):
        return value
    if isinstance(value, str) and value.strip() == "exponential":
        return Backoff()
    try:
        if isinstance(value, Mapping):
            return _from_fields(value)
        if isinstance(value, (list, tuple)) and value:
            return Backoff(steps=_waits(value), jitter=0.0)
        return Backoff(steps=(parse_duration(value),), jitter=0.0)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{value!r} is no backoff ({error}); expected 'exponential', a duration such as 30 or "
            "'5m', a list of durations, or a dict of base, factor, ceiling, jitter"
        ) from error


def _waits(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{value!r}: expected a list of durations")
    return tuple(parse_duration(step) for step in value)


def _from_fields(value: Mapping[str, Any]) -> Backoff:
    fields = {**asdict(Backoff()), **value}
    unknown = [name for name in fields if name not in asdict(Backoff())]
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}")
    return Backoff(
        base=parse_duration(fields["base"]),
        factor=float(fields["factor"]),
        ceiling=parse_duration(fields["ceiling"]),
        jitter=float(fields["jitter"]),
        steps=_waits(fields["steps"]),
    )


@dataclass(frozen=True, kw_only=True)
class Again:
    """Another attempt: after ``delay`` seconds, or at ``date`` (what ``add_date_job`` takes).

    ``max_attempts`` is the job's bound from now on; None is no bound.
    """

    delay: float | None = None
    date: Any = None
    max_attempts: int | None = None


def decide_retry(
    error: BaseException | None,
    *,
    attempt: int,
    max_attempts: int | None,
    backoff: Any,
    rng: Random,
) -> Again | None:
    """Decide whether attempt number ``attempt`` (from 1), which failed, is followed by another.

    ``error`` is what the job raised; None stands for a returned RETRY, which is ``raise Retry()``
    without arguments. ``backoff`` is the job's own, as parse_backoff reads it, or None.
    """
    asked = Retry() if error is None else error
    if not isinstance(asked, Retry):
        if max_attempts is not None and attempt >= max_attempts:
            return None
        policy = parse_backoff("exponential" if backoff is None else backoff)
        wait = min(policy.delay(attempt, rng), LONGEST_WAIT)
        return Again(delay=wait, max_attempts=max_attempts)
    bound = asked.max_attempts
    # One attempt is the default of every job, and no bound for those that ask for more.
    if bound is None and max_attempts is not None and max_attempts > 1:
        bound = max_attempts
    if bound is not None and attempt >= bound:
        return None
    if asked.max_attempts is not None:
        max_attempts = asked.max_attempts
    # A relative one is a delay, which the store's clock counts.
    relative = None if asked.date is None else relative_date(asked.date)
    if asked.date is not None and relative is None:
        return Again(date=asked.date, max_attempts=max_attempts)
    if relative is not None:
        wait = max(0.0, relative)
    elif asked.delay is not None:
        wait = asked.delay
    else:
        wait = RETRY_PAUSE if backoff is None else parse_backoff(backoff).delay(attempt, rng)
    return Again(delay=min(wait, LONGEST_WAIT), max_attempts=max_attempts)

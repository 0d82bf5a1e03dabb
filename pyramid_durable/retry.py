"""Whether and when a failed attempt is followed by another: a pure policy (daemon)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

from .times import parse_duration

RETRY_PAUSE: Final = 3600.0
"""Seconds that ``raise Retry()`` waits where neither it nor the job says how long (API.md)."""


class Retry(Exception):
    """Raised in a job to have it tried again.

    ``delay`` is a duration, ``date`` anything that ``add_date_job`` takes; without either the job
    waits as its backoff says, or an hour. ``max_attempts`` bounds it; None does not.
    """

    def __init__(
        self, delay: Any = None, date: Any = None, max_attempts: int | None = None
    ) -> None:
        if delay is not None and date is not None:
            raise TypeError("Retry() takes a delay or a date, not both")
        self.delay = None if delay is None else parse_duration(delay)
        self.date = date
        self.max_attempts = max_attempts
        super().__init__("the job asked to be tried again")


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
    """

    base: float = 15.0
    factor: float = 2.0
    ceiling: float = 3600.0
    jitter: float = 0.5
    steps: tuple[float, ...] = ()

    def delay(self, attempt: int, rng: Random) -> float:
        """Seconds to wait after attempt number ``attempt``, counted from 1."""
        if self.steps:
            whole = self.steps[min(attempt, len(self.steps)) - 1]
        else:
            # Beyond 64 doublings every sensible ceiling is reached, and floats overflow later on.
            whole = min(self.base * self.factor ** min(attempt - 1, 64), self.ceiling)
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
    if value == "exponential":
        return Backoff()
    if isinstance(value, Mapping):
        return _from_fields(value)
    if isinstance(value, (list, tuple)) and value:
        return Backoff(steps=tuple(_wait(step) for step in value), jitter=0.0)
    try:
        return Backoff(steps=(_wait(value),), jitter=0.0)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{value!r} is no backoff; expected 'exponential', a duration such as 30 or '5m', a "
            "list of durations, or a dict of base, factor, ceiling, jitter"
        ) from error


def _wait(value: Any) -> float:
    seconds = parse_duration(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{value!r}: expected a wait of 0 s or more")
    return seconds


def _from_fields(value: Mapping[str, Any]) -> Backoff:
    default = Backoff()
    unknown = set(value) - set(asdict(default))
    if unknown:
        raise ValueError(
            f"unknown backoff field {', '.join(sorted(map(repr, unknown)))}; "
            f"expected {', '.join(asdict(default))}"
        )
    backoff = Backoff(
        base=_wait(value.get("base", default.base)),
        factor=float(value.get("factor", default.factor)),
        ceiling=_wait(value.get("ceiling", default.ceiling)),
        jitter=float(value.get("jitter", default.jitter)),
        steps=tuple(_wait(step) for step in value.get("steps", ())),
    )
    if not 1 <= backoff.factor < float("inf") or not 0 <= backoff.jitter <= 1:
        raise ValueError(f"{dict(value)!r}: expected a factor from 1 and a jitter from 0 to 1")
    return backoff


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
    if error is None:
        error = Retry()
    if isinstance(error, Retry):
        bound = error.max_attempts
        if bound is not None and attempt >= bound:
            return None
        if error.date is not None:
            return Again(date=error.date, max_attempts=bound)
        wait = error.delay
        if wait is None:
            wait = RETRY_PAUSE
            if backoff is not None:
                wait = parse_backoff(backoff).delay(attempt, rng)
        return Again(delay=wait, max_attempts=bound)
    if max_attempts is not None and attempt >= max_attempts:
        return None
    policy = Backoff() if backoff is None else parse_backoff(backoff)
    return Again(delay=policy.delay(attempt, rng), max_attempts=max_attempts)

"""What declared schedules say, as digests that tell whether it changed (web and daemon)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from .records import ScheduleSpec

TIMES: Final = "times"
ITERATIONS: Final = "iterations"
USERDATA: Final = "userdata"
WORK: Final = "work"

SHORT: Final = 16
"""Hexadecimal digits of one aspect's digest: it is compared with its own last value only."""


def declaration_of(spec: ScheduleSpec) -> str:
    """What a declaration says, as JSON with one digest for each aspect that can change by itself.

    The digests are of what was declared, not of what the schedule's running makes of it.
    """
    job = spec.job
    times = json.dumps(dict(spec.trigger), sort_keys=True) if spec.times is None else spec.times
    work: list[Any] = [job.name, job.func, job.payload, job.codec, job.queue, job.priority]
    work += [job.max_attempts, job.group, sorted(job.options.items())]
    work += [spec.coalesce, spec.max_instances]
    said = {
        TIMES: [spec.kind, spec.timezone, times],
        ITERATIONS: spec.iterations,
        USERDATA: job.userdata,
        WORK: work,
    }
    return json.dumps({aspect: _digest(value)[:SHORT] for aspect, value in said.items()})


def changed_aspects(before: str | None, after: str) -> frozenset[str]:
    """Tell what changed between two declarations; all of it where the first one is not known."""
    old = {} if before is None else json.loads(before)
    new = json.loads(after)
    return frozenset(aspect for aspect, digest in new.items() if old.get(aspect) != digest)


def generation_of(specs: Sequence[ScheduleSpec]) -> str:
    """The digest of all that a deployment declares, in whatever order it does so."""
    return _digest(sorted((spec.id, declaration_of(spec)) for spec in specs))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

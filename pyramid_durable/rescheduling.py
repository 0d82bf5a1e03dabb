"""current_job().reschedule: what the copy of a running job is added with (daemon)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .behaviors import KEY_OPTION
from .exceptions import DuplicateJob
from .job_specs import STORED_OPTIONS
from .records import HAS_CONTENT, Claim
from .references import locate


def copy_of(
    claim: Claim,
    ref: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    userdata: Mapping[str, Any] | None,
) -> tuple[Any, dict[str, Any]]:
    """What to call, and the options of ``add_date_job``, for a job like the claimed one.

    ``args``, ``kwargs`` and ``userdata`` are as the job has them now.
    """
    func: Any = ref
    rest = list(args)
    options: dict[str, Any] = {
        "kwargs": kwargs,
        "queue": claim.queue,
        "name": claim.name,
        "priority": claim.priority,
        "max_attempts": claim.max_attempts,
        "group": claim.group,
        # What the job was added without, its definition's default must not bring back.
        **dict.fromkeys(STORED_OPTIONS),
        **claim.options,
    }
    # It follows from the arguments, which may change, and is made anew with the job.
    options.pop(KEY_OPTION, None)
    place = locate(ref)
    if place.is_plain_method:
        # Its object is the first argument in the store; callers pass the bound method.
        func = getattr(rest.pop(0), place.attribute)
    if options.pop(HAS_CONTENT, False):
        options[HAS_CONTENT] = rest.pop(0)
    if userdata:
        options["userdata"] = userdata
    options["args"] = rest
    return func, options


def is_its_own_duplicate(claim: Claim) -> DuplicateJob:
    """The error of a job whose behavior refuses its copy as long as it has not ended itself."""
    behavior = claim.options.get("behavior")
    return DuplicateJob(
        f"reschedule(): this job, {claim.id}, has not ended, and its behavior {behavior} allows one "
        "at a time; raise Retry(date=...) to have this one tried again, or ask for a copy with "
        "other args, or with behavior=None",
        claim.id,
    )

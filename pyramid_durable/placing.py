"""Which new jobs the calling process runs itself, and which are a daemon's (web, jobs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .outbox import Outbox
from .records import ASYNC, JobSpec, ScheduleSpec
from .store.jobs import is_bound

INLINE: Final = "inline"
AUTO: Final = "auto"


def place_one(scheduler: Any, request: Any, job: JobSpec) -> None:
    """Put a new job into an outbox of its own, for those who are to run it."""
    jobs, inline = divide(scheduler, request, (job,))
    with scheduler.outbox(request, alone=not inline and not is_bound(job)) as outbox:
        if inline:
            outbox.add_inline(inline)
        else:
            outbox.add(jobs, ())


def place(
    scheduler: Any,
    request: Any,
    outbox: Outbox,
    jobs: Sequence[JobSpec],
    schedules: Sequence[ScheduleSpec],
) -> None:
    """Put new jobs and schedules into the outbox, each job for those who are to run it."""
    jobs, inline = divide(scheduler, request, jobs)
    if jobs or schedules:
        outbox.add(jobs, schedules)
    if inline:
        outbox.add_inline(inline)


def divide(
    scheduler: Any, request: Any, jobs: Sequence[JobSpec]
) -> tuple[Sequence[JobSpec], Sequence[JobSpec]]:
    """Divide new jobs into those for daemons and those for the calling process.

    ``inline`` jobs are the caller's if they are due at once: at a later time it may be gone.
    ``auto`` is inline where the settings name no daemon (``combined``, or a ``broker.url``) and
    none serves the job's queue at this moment.
    """
    default = scheduler.settings.executor
    inline: list[JobSpec] = []
    served: dict[str, bool] = {}
    for job in jobs:
        executor = job.options.get("executor", default)
        if executor not in (INLINE, AUTO) or job.kind != ASYNC:
            continue
        if executor == AUTO:
            if job.queue not in served:
                served[job.queue] = _has_daemon(scheduler, request, job.queue)
            if served[job.queue]:
                continue
        inline.append(job)
    if not inline:
        return jobs, inline
    ids = {job.id for job in inline}
    return [job for job in jobs if job.id not in ids], inline


def _has_daemon(scheduler: Any, request: Any, queue: str) -> bool:
    settings = scheduler.settings
    if settings.daemon_expected:
        return True
    with scheduler.reading(request) as connection:
        serves: bool = scheduler.store.daemons.serves(connection, queue, lease=settings.lease)
    return serves

"""What is to become of something that is stored: the verbs, and the value that says it (both)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CANCEL = "cancel"
PAUSE = "pause"
RESUME = "resume"
RUN = "run"
RETRY = "retry"
REMOVE = "remove"
MODIFY = "modify"
RESCHEDULE = "reschedule"
PAUSE_QUEUE = "pause_queue"
RESUME_QUEUE = "resume_queue"
CHANGE_VERBS = (
    *(CANCEL, PAUSE, RESUME, RUN, RETRY, REMOVE, MODIFY, RESCHEDULE),
    *(PAUSE_QUEUE, RESUME_QUEUE),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is to become of something that is stored already.

    ``verb`` is one of CHANGE_VERBS, ``id`` a job's or a schedule's, or the name of a queue. With
    ``queue`` only what is in that queue is meant. ``changes`` are JSON-ready and say what
    ``modify`` and ``reschedule`` change; ``args``, ``kwargs`` and ``userdata`` among them are texts
    that ``codec`` has written.
    """

    verb: str
    id: str
    queue: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    codec: str | None = None

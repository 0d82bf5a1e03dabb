"""What a command asks the daemons to store, and its way through JSON (web and daemon)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .exceptions import InvalidCommand
from .records import JobSpec, ScheduleSpec
from .spec_json import spec_from_json, spec_to_json

STORE: Final = "store"
"""The verb of commands with items to store, in the order of the calls that asked for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """A job to cancel, or a schedule to end; with ``queue`` only there."""

    id: str
    queue: str | None = None


Item = JobSpec | ScheduleSpec | Cancellation


def items_to_json(items: Sequence[Item]) -> list[dict[str, Any]]:
    """JSON values from which items_from_json makes equal items."""
    return [_to_json(item) for item in items]


def _to_json(item: Item) -> dict[str, Any]:
    if isinstance(item, JobSpec):
        return {"job": spec_to_json(item)}
    if isinstance(item, ScheduleSpec):
        return {"schedule": spec_to_json(item)}
    return {"cancel": item.id, "queue": item.queue}


def items_from_json(found: Any) -> list[Item]:
    """Make the items again. Raises InvalidCommand for what is none, or has another form."""
    if not isinstance(found, list):
        raise InvalidCommand(f"items: {type(found).__name__} found, expected a list")
    return [_from_json(item) for item in found]


def _from_json(found: Any) -> Item:
    if isinstance(found, Mapping):
        if found.keys() == {"job"}:
            return spec_from_json(JobSpec, found["job"])
        if found.keys() == {"schedule"}:
            return spec_from_json(ScheduleSpec, found["schedule"])
        if found.keys() == {"cancel", "queue"}:
            id, queue = found["cancel"], found["queue"]
            if isinstance(id, str) and (queue is None or isinstance(queue, str)):
                return Cancellation(id=id, queue=queue)
    raise InvalidCommand(
        "an item is no job, no schedule and no cancellation: is the daemon older than the web "
        "process?"
    )

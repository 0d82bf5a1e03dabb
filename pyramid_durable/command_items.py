"""What a command asks the daemons to store, and its way through JSON (web and daemon)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .changes import CHANGE_VERBS, Change
from .exceptions import InvalidCommand
from .records import JobSpec, ScheduleSpec
from .spec_json import spec_from_json, spec_to_json

STORE: Final = "store"
"""The verb of commands with items to store, in the order of the calls that asked for them."""


Item = JobSpec | ScheduleSpec | Change


def items_to_json(items: Sequence[Item]) -> list[dict[str, Any]]:
    """JSON values from which items_from_json makes equal items."""
    return [_to_json(item) for item in items]


def _to_json(item: Item) -> dict[str, Any]:
    if isinstance(item, JobSpec):
        return {"job": spec_to_json(item)}
    if isinstance(item, ScheduleSpec):
        return {"schedule": spec_to_json(item)}
    return {"change": spec_to_json(item)}


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
        if found.keys() == {"change"}:
            return _known(spec_from_json(Change, found["change"]))
    raise InvalidCommand(
        "an item is no job, no schedule and no change: is the daemon older than the web process?"
    )


def _known(change: Change) -> Change:
    if change.verb not in CHANGE_VERBS:
        raise InvalidCommand(
            f"a change's verb is {change.verb!r}, expected one of {', '.join(CHANGE_VERBS)}: is the "
            "daemon older than the web process?"
        )
    return change

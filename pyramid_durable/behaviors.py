"""Which jobs are equal, and which behaviors compare them (web and daemon)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .definitions import TriggerBehavior
from .exceptions import BrokenJob
from .json_values import MARK, Unserializable, encode

if TYPE_CHECKING:
    from .serializers import Serializer

LAST_ONLY: Final = TriggerBehavior.LAST_ONLY.name
BINDS_WAITING: Final = frozenset(
    {TriggerBehavior.SCHEDULE_ONCE.name, TriggerBehavior.RUN_AND_SCHEDULE_ONCE.name}
)
"""Behaviors that refuse a job while an equal one has not ended."""

BINDS_SUCCESS: Final = frozenset(
    {TriggerBehavior.RUN_ONCE.name, TriggerBehavior.RUN_AND_SCHEDULE_ONCE.name}
)
"""Behaviors that refuse a job once an equal one has succeeded."""

COMPARES: Final = BINDS_WAITING | BINDS_SUCCESS | {LAST_ONLY}

SETTLED: Final = BINDS_SUCCESS | {LAST_ONLY}
"""Behaviors that are looked at once more when a job is claimed."""

JSON_NAME: Final = "json"

KEY_OPTION: Final = "key"
"""Where a job's uniqueness key stands among its options: it outlives the columns that bind."""

UNORDERED: Final = ("dict", "set", "frozenset")
"""Kinds that json_values writes as lists, and whose order does not count."""


def compares(options: Mapping[str, Any]) -> bool:
    """Whether a job with these options has to be compared with others when it is added."""
    return options.get("behavior") in COMPARES


def binds_success(options: Mapping[str, Any]) -> bool:
    """Whether the success of a job with these options has to be kept."""
    return options.get("behavior") in BINDS_SUCCESS


def uniqueness_key(
    ref: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    serializer: Serializer,
    group: str | None = None,
) -> str:
    """The key that is equal for equal jobs: same group (or definition), same arguments.

    64 hexadecimal characters. Arguments are equal if they are stored as the same JSON, whatever the
    serializer; the order of dicts and sets does not count, ``1`` and ``1.0`` differ. One that has
    no such form is compared as the serializer writes it.
    """
    forms = [
        [_form(value, serializer) for value in args],
        {name: _form(value, serializer) for name, value in kwargs.items()},
    ]
    return _digest(ref, group, forms)


def stored_key(ref: str, payload: str, serializer: Serializer, group: str | None) -> str:
    """The uniqueness key of a call that is stored already, as ``serializer`` wrote it.

    Raises BrokenJob where it cannot be read.
    """
    if serializer.name != JSON_NAME:
        args, kwargs = serializer.load_call(payload)
        return uniqueness_key(ref, args, kwargs, serializer, group)
    # The forms stand in the text; to make values of them would import the classes they name.
    try:
        forms = _ordered(json.loads(payload))
    except ValueError as error:
        raise BrokenJob(f"the stored arguments cannot be read: {error}") from error
    return _digest(ref, group, forms)


def keys_of(
    behavior: str | None, group: str | None, make_key: Callable[[], str]
) -> tuple[str | None, str | None]:
    """A job's key and its unique one, None where it has none.

    The jobs of a group have a key whatever their behavior: another's may look for them.
    """
    if group is None and behavior not in COMPARES:
        return None, None
    key = make_key()
    return key, key if behavior in BINDS_WAITING else None


def _digest(ref: str, group: str | None, forms: Any) -> str:
    whose = f"definition {ref}" if group is None else f"group {group}"
    text = f"{whose}\0{_text(forms)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _form(value: Any, serializer: Serializer) -> Any:
    try:
        return _ordered(encode(value))
    except (Unserializable, RecursionError):
        return {MARK: serializer.name, "v": serializer.form(value)}


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _ordered(item) for key, item in value.items()}
    if value.get(MARK) in UNORDERED and isinstance(value.get("v"), list):
        value["v"] = sorted(value["v"], key=_text)
    return value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

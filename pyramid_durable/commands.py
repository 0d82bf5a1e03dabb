"""Commands as they travel through the broker: signed JSON (web and daemon).

``{"v": 1, "sig": …, "command": …}``: the command is a text of its own, so that its signature can be
verified over the very characters that are then read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .exceptions import InvalidCommand
from .times import new_id

VERSION: Final = 1

DEEPEST: Final = RecursionError
"""What Python's reader raises for brackets within brackets; it is no ValueError."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a web process asks the daemons to do.

    ``id`` is the command's own, the same each time it is delivered. ``verb`` says what, ``body``
    with what: JSON values; see spec_json for those of jobs and schedules.
    """

    id: str
    verb: str
    body: Mapping[str, Any]


def encode(verb: str, body: Mapping[str, Any], secret: str) -> bytes:
    """Write and sign a command, with an id of its own.

    Raises InvalidCommand where the body is not JSON, or there is no secret.
    """
    try:
        command = json.dumps({"id": new_id(), "verb": verb, "body": body}, allow_nan=False)
    except (TypeError, ValueError, DEEPEST) as error:
        raise InvalidCommand(f"command {verb!r}: its body is not JSON: {error}") from error
    if not secret:
        raise InvalidCommand(f"command {verb!r} cannot be signed without scheduler.secret")
    envelope = {"v": VERSION, "sig": _sign(secret, command), "command": command}
    return json.dumps(envelope).encode("ascii")


def decode(message: bytes | str, secrets: Sequence[str]) -> Command:
    """Verify a message and read the command in it. Each of ``secrets`` is tried.

    Raises InvalidCommand for anything that was not signed with one of them, and for what this
    version does not understand.
    """
    envelope = _read(message, "message")
    version, signature, command = (envelope.get(name) for name in ("v", "sig", "command"))
    if not isinstance(signature, str) or not isinstance(command, str):
        raise InvalidCommand("the message is no command: it has no signature, or nothing signed")
    if not any(_is_signed(secret, command, signature) for secret in secrets if secret):
        raise InvalidCommand(
            "the command is not signed with one of scheduler.secret: is the web process's among "
            "the daemon's?"
        )
    if version != VERSION:
        raise InvalidCommand(
            f"the command has version {version!r}, expected {VERSION}: is the daemon older than "
            "the web process?"
        )
    return _read_command(_read(command, "command"))


def _read_command(found: Mapping[str, Any]) -> Command:
    id, verb, body = (found.get(name) for name in ("id", "verb", "body"))
    if not isinstance(id, str) or not isinstance(verb, str) or not isinstance(body, dict):
        raise InvalidCommand("the command has not the form of one: an id, a verb and a body")
    return Command(id=id, verb=verb, body=body)


def _read(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, TypeError, DEEPEST) as error:
        raise InvalidCommand(f"the {what} is not JSON: {error!r}") from error
    if not isinstance(found, dict):
        raise InvalidCommand(f"the {what} is a {type(found).__name__}, expected an object")
    return found


def _is_signed(secret: str, command: str, signature: str) -> bool:
    return hmac.compare_digest(
        signature.encode("utf-8", "replace"), _sign(secret, command).encode()
    )


def _sign(secret: str, command: str) -> str:
    # The version is signed with it: what one means must not be read as another.
    text = f"pyramid_durable command {VERSION}\0{command}"
    return hmac.new(
        secret.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256
    ).hexdigest()

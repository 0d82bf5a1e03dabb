"""Arguments, results and userdata as text, and back (web and daemon)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from .exceptions import BrokenJob, InvalidJob, InvalidSetting
from .json_values import MARK, EntityRef, LoadEntity, Unserializable, decoder, encode
from .references import UnknownName, import_name

__all__ = [
    "EntityRef",
    "JSONSerializer",
    "LoadEntity",
    "PickleSerializer",
    "Serializer",
    "resolve_serializer",
]

_MARKED: Final = f'"{MARK}"'

UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    ImportError,
    EOFError,
    RecursionError,
    UnknownName,
    pickle.UnpicklingError,
)
"""What reading a damaged or foreign text raises; each means that the job is broken."""


class Serializer(Protocol):
    """What the package asks of a serializer. ``name`` is kept beside each text it wrote."""

    name: str

    def dumps(self, value: Any) -> str:
        """Write a value. Raises InvalidJob."""

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob."""

    def dump_call(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, max_size: int | None = None
    ) -> str:
        """Write the arguments of a call. Raises InvalidJob, naming the argument."""

    def load_call(
        self, payload: str, load_entity: LoadEntity | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the arguments of a call. Raises BrokenJob."""


class _Calls:
    """The two verbs about calls, over dumps and loads."""

    def dump_call(
        self: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, max_size: int | None = None
    ) -> str:
        try:
            payload: str = self.dumps({"args": list(args), "kwargs": dict(kwargs)})
        except InvalidJob:
            for name, value in _named(args, kwargs):
                self._check(name, value)
            raise
        if max_size is not None and len(payload) > max_size:
            raise InvalidJob(
                f"the arguments take {len(payload):,} bytes, more than scheduler.max_args_size "
                f"({max_size:,}); store what is large elsewhere and pass its key"
            )
        return payload

    def _check(self: Any, name: str, value: Any) -> None:
        try:
            self.dumps(value)
        except InvalidJob as error:
            raise InvalidJob(f"{name}{error}") from error

    def load_call(
        self: Any, payload: str, load_entity: LoadEntity | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = self.loads(payload, load_entity)
        try:
            return tuple(call["args"]), dict(call["kwargs"])
        except UNREADABLE as error:
            raise BrokenJob(f"the stored arguments are not those of a call: {error!r}") from error


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    positional = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    return [*positional, *((f"argument {name!r}", value) for name, value in kwargs.items())]


class JSONSerializer(_Calls):
    """JSON, with forms for the types that json_values knows."""

    name = "json"

    def dumps(self, value: Any) -> str:
        """Write a value as ASCII text. Raises InvalidJob."""
        try:
            return json.dumps(encode(value), separators=(",", ":"))
        except Unserializable as error:
            raise InvalidJob(f"{error.path}: {error.problem}") from error
        except (ValueError, RecursionError) as error:
            raise InvalidJob(
                f": a value that contains itself cannot be stored ({error})"
            ) from error

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob, and what ``load_entity`` raises."""
        try:
            if _MARKED not in text:
                return json.loads(text)
            return json.loads(text, object_hook=decoder(load_entity))
        except UNREADABLE as error:
            raise BrokenJob(f"the stored value cannot be read: {error!r}") from error


class PickleSerializer(_Calls):
    """Pickles, each signed with HMAC-SHA256 and verified before it is read.

    ``secrets``: the first signs, all verify.
    """

    name = "pickle"

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise InvalidSetting(
                "scheduler.serializer = pickle needs scheduler.secret: an unsigned pickle would run "
                "whatever somebody puts into the database"
            )
        self._secrets = [secret.encode() for secret in secrets]

    def dumps(self, value: Any) -> str:
        """Write a value. Raises InvalidJob."""
        try:
            body = pickle.dumps(value)
        except (pickle.PicklingError, *UNREADABLE) as error:
            raise InvalidJob(f": {type(value).__qualname__} cannot be pickled: {error}") from error
        return f"{_sign(self._secrets[0], body)}.{base64.b64encode(body).decode('ascii')}"

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob, also when no secret made its signature."""
        try:
            signature, _, encoded = text.partition(".")
            body = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise BrokenJob(f"the stored value is no signed pickle: {error}") from error
        if not any(hmac.compare_digest(signature, _sign(one, body)) for one in self._secrets):
            raise BrokenJob("the stored pickle is not signed with one of scheduler.secret")
        try:
            return pickle.loads(body)  # noqa: S301 - its signature has just been verified
        except UNREADABLE as error:
            raise BrokenJob(f"the stored pickle cannot be read: {error!r}") from error


def _sign(secret: bytes, body: bytes) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


class CustomSerializer(_Calls):
    """An application's own object with ``dumps`` and ``loads``; bytes are kept as base64."""

    def __init__(self, name: str, custom: Any) -> None:
        self.name = name
        self._custom = custom

    def dumps(self, value: Any) -> str:
        """Write a value. Raises InvalidJob around whatever the object raises."""
        try:
            written = self._custom.dumps(value)
        except Exception as error:
            raise InvalidJob(
                f": {self.name} cannot write {type(value).__qualname__}: {error!r}"
            ) from error
        if isinstance(written, bytes):
            return "b" + base64.b64encode(written).decode("ascii")
        if isinstance(written, str):
            return "s" + written
        raise InvalidJob(
            f": {self.name}.dumps() returned {type(written).__qualname__}, expected str or bytes"
        )

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob around whatever the object raises."""
        try:
            written = base64.b64decode(text[1:]) if text[:1] == "b" else text[1:]
            return self._custom.loads(written)
        except Exception as error:
            raise BrokenJob(f"{self.name} cannot read the stored value: {error!r}") from error


def resolve_serializer(name: str, secrets: Sequence[str]) -> Serializer:
    """The serializer of that name: ``json``, ``pickle``, or a dotted name.

    Raises InvalidSetting where it cannot be imported, or has no ``dumps`` and ``loads``.
    """
    if name == JSONSerializer.name:
        return JSONSerializer()
    if name == PickleSerializer.name:
        return PickleSerializer(secrets)
    try:
        custom = import_name(name)
    except UnknownName as error:
        raise InvalidSetting(
            f"scheduler.serializer = {name!r}: {error}; expected json, pickle, or the dotted name "
            "of an object with dumps and loads"
        ) from error
    if isinstance(custom, type):
        custom = custom()
    if not callable(getattr(custom, "dumps", None)) or not callable(getattr(custom, "loads", None)):
        raise InvalidSetting(
            f"scheduler.serializer = {name!r}: {custom!r} has no dumps() and loads(); expected an "
            "object that has both"
        )
    return CustomSerializer(name, custom)

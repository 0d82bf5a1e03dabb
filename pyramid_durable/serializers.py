"""Arguments, results and userdata as text, and back (web and daemon)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .exceptions import BrokenJob, InvalidJob, InvalidSetting
from .json_reading import EntityError, LoadEntity, decoder, load, read_entity
from .json_values import MARK, EntityRef, Unserializable, encode, entity_ref
from .plain_json import read, write
from .references import UnknownName, import_name

__all__ = [
    "CustomSerializer",
    "EntityRef",
    "JSONSerializer",
    "LoadEntity",
    "PickleSerializer",
    "Serializer",
    "resolve_serializer",
    "stored_serializer",
]

_MARKED: Final = f'"{MARK}"'

PICKLES: Final = ("pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
"""Modules that would read whatever somebody puts into the database, and run it."""


class Serializer(ABC):
    """What the package asks of a serializer. ``name`` is kept beside each text it wrote."""

    name: str

    @abstractmethod
    def dumps(self, value: Any) -> str:
        """Write a value.

        Raises InvalidJob; its text begins with the way to what is wrong (``[3]['x']: …``), so that
        the caller can put a name before it.
        """

    def form(self, value: Any) -> str:
        """A text that is the same for equal values, as far as this serializer can tell.

        Raises InvalidJob.
        """
        return self.dumps(value)

    @abstractmethod
    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value; ``load_entity`` finds mapped objects, which otherwise stay EntityRefs.

        Raises BrokenJob, and what ``load_entity`` raises.
        """

    def dump_call(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, max_size: int | None = None
    ) -> str:
        """Write the arguments of a call, in at most ``max_size`` bytes.

        Raises InvalidJob, naming the argument.
        """
        try:
            payload = self.dumps([list(args), dict(kwargs)])
        except InvalidJob:
            for name, value in _named(args, kwargs):
                self._check(name, value)
            raise
        if max_size is not None:
            size = _bytes(payload)
            if size > max_size:
                raise InvalidJob(
                    f"the arguments take {size:,} bytes, more than scheduler.max_args_size "
                    f"({max_size:,}){self._largest(args, kwargs)}; store what is large elsewhere "
                    "and pass its key"
                )
        return payload

    def _largest(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Which argument takes most of it, for the error that says there is too much."""
        sizes = {name: _bytes(self.dumps(value)) for name, value in _named(args, kwargs)}
        if not sizes:
            return ""
        name = max(sizes, key=sizes.__getitem__)
        return f", of which {name} takes {sizes[name]:,}"

    def _check(self, name: str, value: Any) -> None:
        try:
            self.dumps(value)
        except InvalidJob as error:
            raise InvalidJob(f"{name}{error}") from error

    def load_call(
        self, payload: str, load_entity: LoadEntity | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the arguments of a call. Raises what ``loads`` raises."""
        call = self.loads(payload, load_entity)
        if isinstance(call, (list, tuple)) and len(call) == 2:
            args, kwargs = call
            if isinstance(args, (list, tuple)) and isinstance(kwargs, dict):
                return tuple(args), kwargs
        raise BrokenJob("the stored arguments are not those of a call: a list and a dict")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(args, 1):
        yield f"argument {number}", value
    for name, value in kwargs.items():
        yield f"argument {name!r}", value


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn whatever a damaged or foreign text makes a reader raise into BrokenJob."""
    try:
        yield
    except BrokenJob:
        raise
    except EntityError as error:
        raise error.error from error.error.__cause__
    except Exception as error:
        raise BrokenJob(f"the stored {what} cannot be read: {error!r}") from error


class JSONSerializer(Serializer):
    """JSON, with forms for the types that json_values knows."""

    name = "json"

    def dumps(self, value: Any) -> str:
        """Write a value as ASCII text. Raises InvalidJob."""
        try:
            return write(encode(value))
        except Unserializable as error:
            raise InvalidJob(f"{error.path}: {error.problem}") from error
        except RecursionError as error:
            raise InvalidJob(": it contains itself, or is nested too deeply") from error

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob, and what ``load_entity`` raises."""
        if _MARKED not in text:
            try:
                return read(text)
            except (ValueError, RecursionError) as error:
                raise BrokenJob(f"the stored value cannot be read: {error!r}") from error
        with _reading("value"):
            return json.loads(text, object_hook=decoder(load_entity))


class PickleSerializer(Serializer):
    """Pickles, each signed with HMAC-SHA256 and verified before it is read.

    ``secrets``: the first signs, all verify. Mapped objects are references here too.
    """

    name = "pickle"

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets or not all(secrets):
            raise InvalidSetting(
                "scheduler.serializer = pickle needs scheduler.secret: an unsigned pickle would run "
                "whatever somebody puts into the database"
            )
        self._secrets = [secret.encode() for secret in secrets]

    def dumps(self, value: Any) -> str:
        """Write a value. Raises InvalidJob."""
        written = io.BytesIO()
        try:
            _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(value)
        except Unserializable as error:
            raise InvalidJob(f": {error.problem}") from error
        except Exception as error:
            raise InvalidJob(f": {type(value).__qualname__} cannot be pickled: {error}") from error
        body = written.getvalue()
        return f"{_sign(self._secrets[0], body)}.{base64.b64encode(body).decode('ascii')}"

    def form(self, value: Any) -> str:
        """The pickle without its signature, and without a memory of which objects are the same.

        The order of sets and dicts counts. Raises InvalidJob.
        """
        written = io.BytesIO()
        pickler = _Pickler(written, pickle.HIGHEST_PROTOCOL)
        pickler.fast = True
        try:
            pickler.dump(value)
        except Exception:  # noqa: BLE001 - what contains itself cannot do without that memory
            return self.dumps(value).partition(".")[2]
        return base64.b64encode(written.getvalue()).decode("ascii")

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob, also when no secret made its signature."""
        signature, _, encoded = text.partition(".")
        with _reading("pickle"):
            body = base64.b64decode(encoded, validate=True)
            found = signature.encode()
            if not any(hmac.compare_digest(found, _sign(s, body).encode()) for s in self._secrets):
                raise BrokenJob("the stored pickle is not signed with one of scheduler.secret")
            return _Unpickler(io.BytesIO(body), load_entity).load()


def _sign(secret: bytes, body: bytes) -> str:
    # What it is stands before it: the same secret signs commands too.
    return hmac.new(secret, b"pyramid_durable pickle\0" + body, hashlib.sha256).hexdigest()


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        # Few values are mapped; the rest must not pay for the question.
        if not hasattr(value, "_sa_instance_state") and not isinstance(value, EntityRef):
            return None
        ref = entity_ref(value)
        return None if ref is None else (ref.cls, ref.pk)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, load_entity: LoadEntity | None) -> None:
        super().__init__(file)
        self._load_entity = load_entity

    def persistent_load(self, key: Any) -> Any:
        return load(read_entity(*key), self._load_entity)


class CustomSerializer(Serializer):
    """An application's own object with ``dumps`` and ``loads``; bytes are kept as base64."""

    def __init__(self, name: str, custom: Any) -> None:
        self.name = name
        self._custom = custom

    def dumps(self, value: Any) -> str:
        """Write a value. Raises InvalidJob around whatever the object raises."""
        try:
            written = self._custom.dumps(value)
        except Exception as error:
            what = type(value).__qualname__
            raise InvalidJob(f": {self.name} cannot write a {what}: {error!r}") from error
        if isinstance(written, bytes):
            return "b" + base64.b64encode(written).decode("ascii")
        if isinstance(written, str):
            return "s" + written
        raise InvalidJob(
            f": {self.name}.dumps() returned {type(written).__qualname__}, expected str or bytes"
        )

    def loads(self, text: str, load_entity: LoadEntity | None = None) -> Any:
        """Read a value. Raises BrokenJob around whatever the object raises."""
        with _reading("value"):
            if text[:1] not in ("b", "s"):
                raise BrokenJob(f"the stored value was not written by {self.name}")
            written = base64.b64decode(text[1:]) if text[0] == "b" else text[1:]
            return self._custom.loads(written)


def resolve_serializer(name: str, secrets: Sequence[str]) -> Serializer:
    """The serializer of that name: ``json``, ``pickle``, or a dotted name.

    Raises InvalidSetting where it cannot be imported, or has no ``dumps`` and ``loads``.
    """
    if name == JSONSerializer.name:
        return JSONSerializer()
    if name == PickleSerializer.name:
        return PickleSerializer(secrets)
    try:
        return CustomSerializer(name, _import_custom(name))
    except Exception as error:
        why = str(error) if isinstance(error, UnknownName) else f"making one failed: {error!r}"
        raise InvalidSetting(
            f"scheduler.serializer = {name!r}: {why}; expected json, pickle, or the dotted name of "
            "an object with dumps and loads"
        ) from error


def stored_serializer(name: str, own: Serializer, secrets: Sequence[str]) -> Serializer:
    """The serializer that a stored job names: the application's ``own``, ``json`` or ``pickle``.

    No other is looked for: whoever can write a row could have any module imported by its name.
    Raises InvalidSetting.
    """
    if name == own.name:
        return own
    if name not in (JSONSerializer.name, PickleSerializer.name):
        raise InvalidSetting(
            f"they were written by the serializer {name!r}, and scheduler.serializer = {own.name}; "
            "only that one, json and pickle (with scheduler.secret) are used"
        )
    return resolve_serializer(name, secrets)


def _import_custom(name: str) -> Any:
    custom = import_name(name)
    if getattr(custom, "__name__", None) in PICKLES:
        raise UnknownName(f"{custom!r} would read unsigned pickles; 'pickle' signs them")
    if isinstance(custom, type):
        custom = custom()
    if not callable(getattr(custom, "dumps", None)) or not callable(getattr(custom, "loads", None)):
        raise UnknownName(f"{custom!r} has no dumps() and loads()")
    return custom

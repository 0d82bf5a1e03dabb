"""The settings under ``scheduler.``: what there is, how each is read, what it defaults to (both)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .exceptions import InvalidJob, InvalidQueue, InvalidSetting
from .setting_values import (
    BROKER_OPTION,
    DURATION,
    QUEUES,
    read_backoff,
    read_flag,
    read_limit,
    read_natural,
    read_option,
    read_positive,
    read_prefix,
    read_queues,
    read_size,
    read_span,
    read_text,
    read_words,
    read_zone,
    word_of,
)
from .times import get_zone

PREFIX: Final = "scheduler."
BROKER_OPTIONS: Final = "broker.options."
MEMORY: Final = "memory://"
"""The broker that reaches this process only."""
EXECUTORS: Final = ("thread", "process", "inline", "auto")
PRODUCERS: Final = ("store", "broker")
COMMAND_DEADLINE: Final = 2.0
"""Seconds that a request waits for the broker with ``producer = broker``, where nothing else is
set. What is confirmed there is the job itself: to give up early fails a request for nothing."""

FEWEST_BEATS: Final = 2
"""Heartbeats within one lease: with fewer, one late beat hands a healthy daemon's work away."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an application set, with the defaults of API.md where it did not. Durations in seconds.

    ``daemon_expected``: the settings say that there is a daemon, in this process or behind a broker
    that was set. ``backoff`` is None where none was set. ``allow`` is None where nothing was set: everything
    importable with ``producer="store"``, registered definitions only with ``producer="broker"``.
    """

    store_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    create: bool
    zone: tzinfo
    daemon_expected: bool = False
    combined: bool = False
    config_uri: str | None = None
    queues: tuple[str, ...] = ("default",)
    store_class: str | None = None
    prefix: str = "durable_"
    producer: str = "store"
    dbsession: str = "dbsession"
    broker_options: Mapping[str, Any] = field(default_factory=dict)
    broker_compressor: str | None = None
    broker_serializer: str = "json"
    broker_deadline: float = 0.1
    serializer: str = "json"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    allow: tuple[str, ...] | None = None
    misfire_grace_time: float | None = None
    executor: str = "thread"
    threads: int = 10
    processes: int = 1
    poll_interval: float = 1.0
    heartbeat: float = 2.0
    lease: float = 15.0
    shutdown_timeout: float = 30.0
    max_attempts: int = 1
    backoff: Any = None
    poison_limit: int = 3
    unknown_grace: float = 300.0
    max_args_size: int = 16 * 1024 * 1024
    retention: float | None = 7 * 86400.0
    housekeeping: float = 3600.0
    housekeeping_append: str | None = None
    delegator: str | None = None
    id: str | None = None

    @property
    def default_queue(self) -> str:
        """The queue of a job that names none."""
        return self.queues[0]


# key -> (field of Settings, how its value is read, what is expected). Every key of API.md's table
# stands here; whatever else begins with ``scheduler.`` is an error.
_SETTINGS: Final[dict[str, tuple[str, Callable[[Any], Any], str]]] = {
    "combined": ("combined", read_flag, "true or false"),
    "config_uri": ("config_uri", read_text, "the URI of this ini, such as %(__file__)s"),
    "queues": ("queues", read_queues, QUEUES),
    "jobstore.default.url": ("store_url", read_text, "a SQLAlchemy URL"),
    "jobstore.default.class": ("store_class", read_text, "a dotted name"),
    "jobstore.default.prefix": (
        "prefix",
        read_prefix,
        "letters, digits and underscores, after a database schema's name and a dot if need be",
    ),
    "jobstore.default.create": ("create", read_flag, "true or false"),
    "producer": ("producer", word_of(PRODUCERS), "store or broker"),
    "dbsession": ("dbsession", read_text, "the name of a request attribute"),
    "broker.url": ("broker_url", read_text, "a kombu URL"),
    "broker.compressor": ("broker_compressor", read_text, "the name of a kombu compression"),
    "broker.serializer": ("broker_serializer", word_of(("json", "pickle")), "json or pickle"),
    "broker.deadline": ("broker_deadline", read_span, DURATION),
    "serializer": ("serializer", read_text, "json, pickle, or a dotted name"),
    "secret": ("secrets", read_words, "one secret or several, separated by spaces"),
    "allow": ("allow", read_words, "dotted prefixes, separated by spaces"),
    "timezone": ("zone", read_zone, "an IANA name such as Europe/Berlin"),
    "misfire_grace_time": ("misfire_grace_time", read_limit, f"none, or {DURATION}"),
    "executor": ("executor", word_of(EXECUTORS), f"one of {', '.join(EXECUTORS)}"),
    "threads": ("threads", read_natural, "a number from 1"),
    "processes": ("processes", read_natural, "a number from 1"),
    "poll_interval": ("poll_interval", read_positive, DURATION),
    "heartbeat": ("heartbeat", read_positive, DURATION),
    "lease": ("lease", read_positive, DURATION),
    "shutdown_timeout": ("shutdown_timeout", read_span, DURATION),
    "max_attempts": ("max_attempts", read_natural, "a number from 1"),
    "backoff": (
        "backoff",
        read_backoff,
        "a duration, several with spaces or commas between them, or exponential",
    ),
    "poison_limit": ("poison_limit", read_natural, "a number from 1"),
    "unknown_grace": ("unknown_grace", read_span, DURATION),
    "max_args_size": ("max_args_size", read_size, "a size such as 16MB, 500KB or 65536"),
    "retention": ("retention", read_limit, f"none, or {DURATION}"),
    "housekeeping": ("housekeeping", read_positive, DURATION),
    "housekeeping.append": ("housekeeping_append", read_text, "a dotted name"),
    "delegator": ("delegator", read_text, "a dotted name"),
    "id": ("id", read_text, "a name for this daemon"),
}


def read_settings(mapping: Mapping[str, Any], *, here: str | None = None) -> Settings:
    """Read an application's settings: the keys of ``mapping`` that begin with ``scheduler.``.

    ``here`` is the ini's folder, where the default store is put; without it ``mapping["here"]``,
    which is there where the application has merged ``global_config`` in, else the current folder.

    Raises InvalidSetting for a key that is unknown, a value that cannot be read, settings that
    contradict each other and one that is missing.
    """
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in mapping.items():
        if not key.startswith(PREFIX):
            continue
        name = key[len(PREFIX) :]
        if name.startswith(BROKER_OPTIONS):
            options[name[len(BROKER_OPTIONS) :]] = _read(key, value, read_option, BROKER_OPTION)
            continue
        if name not in _SETTINGS:
            raise _unknown(key)
        if _is_set(value):
            attribute, reader, expected = _SETTINGS[name]
            values[attribute] = _read(key, value, reader, expected)
    values["broker_options"] = MappingProxyType(options)
    values.setdefault("zone", get_zone(None))
    _fill_store(values, mapping, here)
    _fill_broker(values)
    if values.get("producer") == "broker":
        values.setdefault("broker_deadline", COMMAND_DEADLINE)
    settings = Settings(**values)
    _check(settings)
    return settings


def _is_set(value: Any) -> bool:
    """Tell a value from an empty one: ``key =`` in an ini, often of an unset variable, is none."""
    return value is not None and not (isinstance(value, str) and not value.strip())


def _read(key: str, value: Any, reader: Callable[[Any], Any], expected: str) -> Any:
    try:
        return reader(value)
    except (ValueError, TypeError, InvalidJob) as error:
        shown = "the value" if key == f"{PREFIX}secret" else repr(value)
        raise InvalidSetting(f"{key}: {shown} cannot be read; expected {expected}") from error


def _unknown(key: str) -> InvalidSetting:
    name = key[len(PREFIX) :]
    if re.fullmatch(r"jobstore\.[^.]+\.(url|class|prefix|create)", name):
        return InvalidSetting(
            f"{key}: a store for each queue is not supported yet; "
            "expected scheduler.jobstore.default.* only, the store of all queues"
        )
    near = difflib.get_close_matches(name, _SETTINGS, n=1)
    hint = f" (did you mean {PREFIX}{near[0]}?)" if near else ""
    known = ", ".join(sorted([*_SETTINGS, f"{BROKER_OPTIONS}*"]))
    return InvalidSetting(f"{key} is no setting of pyramid_durable{hint}; there are: {known}")


def _fill_store(values: dict[str, Any], mapping: Mapping[str, Any], here: str | None) -> None:
    key = f"{PREFIX}jobstore.default.url"
    if "store_url" not in values:
        if _is_set(mapping.get("sqlalchemy.url")):
            key = "sqlalchemy.url"
            values["store_url"] = str(mapping[key])
        else:
            folder = Path(here or str(mapping.get("here") or Path.cwd()))
            values["store_url"] = f"sqlite:///{folder / 'scheduler.sqlite'}"
    url = _store_url(values["store_url"], key)
    values.setdefault("create", url.get_backend_name() == "sqlite")


def _store_url(text: str, key: str = f"{PREFIX}jobstore.default.url") -> URL:
    try:
        return make_url(text)
    except ArgumentError as error:
        # The text is not shown: what cannot be taken apart may hold a password anywhere.
        raise InvalidSetting(
            f"{key}: this is no SQLAlchemy URL; expected something like "
            "postgresql+psycopg://user:password@host/database or sqlite:////folder/file"
        ) from error


def _fill_broker(values: dict[str, Any]) -> None:
    """Default the broker: none to install where the daemon is here, or on this machine."""
    given = values.get("broker_url", MEMORY)
    values["daemon_expected"] = values.get("combined", False) or not given.startswith(MEMORY)
    if "broker_url" in values:
        return
    url = _store_url(values["store_url"])
    if values.get("combined"):
        values["broker_url"] = MEMORY
        return
    if url.get_backend_name() != "sqlite":
        raise InvalidSetting(
            f"{PREFIX}broker.url is missing: the daemon is a process of its own and needs a broker "
            "to hear of new jobs at once; expected a kombu URL such as amqp://user@host// or "
            f"redis://host/0 (or {PREFIX}combined = true)"
        )
    if url.database in (None, "", ":memory:") or url.database.startswith("file:"):
        # No other process can see this store, so none can need to hear of its jobs.
        values["broker_url"] = MEMORY
    else:
        values["broker_url"] = f"filesystem://{Path(url.database).absolute()}.broker"


def _check(settings: Settings) -> None:
    """Refuse settings that contradict each other."""
    if settings.lease < FEWEST_BEATS * settings.heartbeat:
        raise InvalidSetting(
            f"{PREFIX}lease: {settings.lease:g}s is too short for {PREFIX}heartbeat = "
            f"{settings.heartbeat:g}s; expected at least {FEWEST_BEATS} heartbeats"
        )
    if settings.producer == "broker" and settings.executor == "inline":
        raise InvalidSetting(
            f"{PREFIX}executor = inline does not go with {PREFIX}producer = broker: what runs in the "
            "calling process has to be in the store, which it does not reach; expected thread, "
            "process or auto"
        )
    if settings.executor == "process" and settings.combined and settings.config_uri is None:
        raise InvalidSetting(
            f"{PREFIX}config_uri is missing: {PREFIX}executor = process starts processes that load "
            f"the application from its ini; expected {PREFIX}config_uri = %(__file__)s"
        )
    needs_secret = {
        "producer": settings.producer == "broker",
        "serializer": settings.serializer == "pickle",
        "broker.serializer": settings.broker_serializer == "pickle",
    }
    for name, needed in needs_secret.items():
        if needed and not settings.secrets:
            value = getattr(settings, name.replace(".", "_"))
            raise InvalidSetting(
                f"{PREFIX}secret is missing: {PREFIX}{name} = {value} carries what must be signed; "
                "expected a long random text, the same for the web processes and the daemons"
            )


def checked_queues(queues: Sequence[str] | None, configured: Sequence[str]) -> tuple[str, ...]:
    """The queues to serve: those asked for, else all. Raises InvalidQueue for an unknown one."""
    for name in queues or ():
        if name not in configured:
            raise InvalidQueue(
                f"queue {name!r} is not among the configured ones: "
                f"scheduler.queues = {' '.join(configured)}"
            )
    return tuple(queues or configured)

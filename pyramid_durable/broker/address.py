"""Where the broker is and what things are called there (both): URL, options, names, masking."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls

from pyramid_durable.exceptions import BrokerUnavailable, InvalidSetting

from .inboxes import INBOX_LIMIT
from .local import FolderTransport, MemoryTransport

AMQP = "amqp"
REDIS = "redis"
MEMORY = "memory"
FILESYSTEM = "filesystem"

# Seconds for one step with a server (connect, handshake, confirm). It binds the background
# threads only: whoever waits for them waits for the deadline, which may well be shorter than a
# TLS handshake with a broker on another continent.
PATIENCE = 5.0

# An announcement says "look into the store", and every daemon looks by itself within
# poll_interval: one that was not read for a minute says nothing any more.
NOTE_TTL = 60.0

# Seconds between heartbeats. A dead peer is noticed after two, and announcements lost until
# then cost poll_interval each, not a job.
HEARTBEAT = 10

# Redis gives a command back when its reader has held it this long. A command is held only for
# one insert into the store, so a minute means the reader is dead.
VISIBILITY = 60

# Options of kombu.Connection itself; whatever else stands under `broker.options.` goes to the
# transport.
_CONNECTION_OPTIONS = frozenset({"failover_strategy", "heartbeat", "login_method", "ssl"})

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARTS = re.compile(r";(?=[A-Za-z0-9+]+://)")


def plain(part: str) -> str:
    """Return ``part`` as it may stand in a file name, a Redis pattern or an AMQP name.

    What needs escaping is told apart by a digest, so two queues never share a name.
    """
    if _SAFE.fullmatch(part):
        return part
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_-]", "-", part)[:40] + "-" + digest


def mask_url(url: str) -> str:
    """Return ``url`` (or several, separated by semicolons) fit for logs and errors."""
    return ";".join(map(_mask_part, _PARTS.split(url)))


def _mask_part(url: str) -> str:
    scheme, _, rest = url.partition("://")
    found = re.match(r"[^/?#]*", rest)
    authority = found.group() if found else ""
    path, query, values = rest[len(authority) :].partition("?")
    if "@" in path + values:
        # A password with an unescaped `/`, `?` or `#` makes the parts lie.
        return f"{scheme}://{authority.partition(':')[0]}:**"
    userinfo, at, host = authority.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}://{user}{colon and ':**'}{at}{host}{path}{query and '?**'}"


def _secrets_of(url: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    found = {str(value) for key, value in options.items() if "password" in key and value}
    for part in _PARTS.split(url):
        for secret in re.findall(r"://[^:@/]*:(.*)@", part, flags=re.DOTALL):
            found |= {secret, unquote(secret)}
        found |= {value for key, value in parse_qsl(part.partition("?")[2]) if "password" in key}
    return tuple(sorted(found - {""}, key=len, reverse=True))


class Address:
    """The broker's URL and options, checked, and the names used there; opens nothing.

    ``kind`` is the driver's family: ``amqp``, ``redis``, ``memory``, ``filesystem`` or what
    kombu calls it.
    """

    def __init__(self, url: str, *, namespace: str, options: Mapping[str, Any]) -> None:
        self.shown = mask_url(url)
        self._url = url
        self._options = {name: _read_option(name, value) for name, value in options.items()}
        self._secrets = _secrets_of(url, self._options)
        self._prefix = f"durable.{plain(namespace)}"
        self._transport = self._find_transport()
        self.kind: str = self._transport.driver_type
        if self.kind == FILESYSTEM:
            self._options.setdefault("folder", self._find_folder())

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"

    def redact(self, error: object) -> str:
        """Return the error as text without the URL's password."""
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = text.replace(secret, "**")
        if isinstance(error, BaseException):
            name = type(error).__name__
            return f"{name}: {text}" if text else name
        return text

    def unavailable(self, reason: object) -> BrokerUnavailable:
        """Return the error that says so, with its cause unless that quotes the password."""
        error = BrokerUnavailable(
            f"The broker {self.shown} cannot be reached: {self.redact(reason)}."
            " Check scheduler.broker.url and that the broker is running"
        )
        if isinstance(reason, BaseException) and not self._is_quoted_by(reason):
            error.__cause__ = reason
        return error

    def connect(self) -> Connection:
        """Return an open connection; raises what the transport raises."""
        arguments: dict[str, Any] = {"heartbeat": HEARTBEAT if self.kind == AMQP else 0}
        transport_options = self._default_options()
        for name, value in self._options.items():
            (arguments if name in _CONNECTION_OPTIONS else transport_options)[name] = value
        is_local = self.kind in (MEMORY, FILESYSTEM)
        connection = Connection(
            # Of a folder's path kombu would make host and virtual host, and nothing of some.
            f"{self.kind}://" if is_local else self._url,
            transport=self._transport if is_local else None,
            connect_timeout=PATIENCE,
            transport_options=transport_options,
            **arguments,
        )
        try:
            # kombu would sleep two seconds before it tries again; our callers know better.
            connection.ensure_connection(max_retries=max(len(connection.alt) - 1, 0))
        except BaseException:
            connection.release()
            raise
        return connection

    def exchange(self, queue: str) -> Exchange:
        """Return the exchange whose messages reach every living daemon of the queue."""
        return Exchange(
            f"{self._prefix}.{plain(queue)}", type="fanout", durable=False, delivery_mode=1
        )

    def inbox(self, queue: str, reader: str) -> Queue:
        """Return the queue in which one daemon finds what is announced for ``queue``.

        It goes with its reader: exclusive on AMQP, a subscription on Redis, a folder that is
        removed once it is no longer looked after.
        """
        exchange = self.exchange(queue)
        if self.kind == REDIS:
            # Subscribers are told apart by their sockets; the name only goes into kombu's table
            # of bindings, where names of killed daemons would pile up.
            reader = "daemons"
        return Queue(
            f"{exchange.name}.{plain(reader)}",
            exchange=exchange,
            durable=False,
            # To kombu it implies auto_delete, and on a broken connection it would stop to ask
            # Redis to forget the binding. Elsewhere the listener deletes its inbox itself.
            exclusive=self.kind == AMQP,
            message_ttl=NOTE_TTL,
            max_length=INBOX_LIMIT,
        )

    def commands(self, queue: str) -> Queue:
        """Return the durable queue of commands that the daemons of ``queue`` share."""
        return Queue(
            f"{self._prefix}.{plain(queue)}.commands",
            exchange=Exchange(""),
            routing_key=f"{self._prefix}.{plain(queue)}.commands",
            durable=True,
        )

    def _is_quoted_by(self, error: BaseException | None) -> bool:
        while error is not None:
            if any(secret in str(error) for secret in self._secrets):
                return True
            error = error.__cause__ or error.__context__
        return False

    def _default_options(self) -> dict[str, Any]:
        if self.kind == AMQP:
            return {
                "confirm_publish": True,
                "max_retries": 0,
                "read_timeout": PATIENCE,
                "write_timeout": PATIENCE,
            }
        if self.kind == REDIS:
            return {
                "health_check_interval": HEARTBEAT,
                "max_retries": 0,
                # One list a queue: the store knows priorities, the broker need not.
                "priority_steps": [0],
                "socket_connect_timeout": PATIENCE,
                "socket_keepalive": True,
                "socket_timeout": PATIENCE,
                # By default every user of kombu in a Redis database shares these keys, and our
                # visibility timeout would give back a Celery worker's long tasks.
                "unacked_index_key": f"{self._prefix}.unacked_index",
                "unacked_key": f"{self._prefix}.unacked",
                "unacked_mutex_expire": 10,
                "unacked_mutex_key": f"{self._prefix}.unacked_mutex",
                "visibility_timeout": VISIBILITY,
            }
        return {"max_retries": 0}

    def _find_transport(self) -> Any:
        scheme, found, _ = self._url.partition("://")
        name = scheme.partition("+")[0]
        if not found or name not in TRANSPORT_ALIASES:
            raise InvalidSetting(
                f"scheduler.broker.url has the scheme {name if found else None!r}, which kombu"
                " does not know; expected one of amqp, amqps, filesystem, memory, redis, rediss"
                " (or another of kombu's), as in amqp://user:password@host:5672//"
            )
        if name.startswith((AMQP, REDIS)):
            for part in _PARTS.split(self._url):
                self._check_port(part)
        if name in (MEMORY, FILESYSTEM):
            return MemoryTransport if name == MEMORY else FolderTransport
        try:
            transport: Any = get_transport_cls(name)
            fanout = "fanout" in transport.implements.exchange_type
        except Exception as exc:  # whatever the driver's import raises where it is missing
            raise InvalidSetting(
                f"scheduler.broker.url has the scheme {name!r}, whose driver cannot be imported"
                f" ({self.redact(exc)}); install it, as in: pip install 'kombu[{name}]'"
            ) from exc
        if not fanout:
            raise InvalidSetting(
                f"scheduler.broker.url has the scheme {name!r}, which cannot broadcast to all"
                " daemons of a queue; expected a transport with fanout exchanges, such as amqp or"
                " redis, or filesystem:///a/folder where all processes are on one host"
            )
        return transport

    def _check_port(self, part: str) -> None:
        try:
            port = urlsplit(part).port
        except ValueError:
            port = -1
        if port == -1:
            # Without `from`: the error quotes what it took for the port, often the password.
            raise InvalidSetting(
                f"scheduler.broker.url {self.shown} has a port that is no number; expected"
                " scheme://user:password@host:port/..., with special characters in the password"
                " written as %XX"
            )

    def _find_folder(self) -> str:
        path = unquote(self._url.partition("://")[2])
        folder = path or self._options.get("data_folder_in")
        if not folder:
            raise InvalidSetting(
                "scheduler.broker.url filesystem:// names no folder; expected"
                " filesystem:///path/to/folder"
            )
        return str(folder)


def _read_option(name: str, value: Any) -> Any:
    """Read the text of an ini: numbers, true and false, lists and objects as JSON has them."""
    if not isinstance(value, str) or "password" in name:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value

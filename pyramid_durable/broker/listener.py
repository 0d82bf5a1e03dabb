"""What a daemon hears from the broker (daemon): inboxes, commands, reconnecting."""

from __future__ import annotations

import errno
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from kombu.connection import Connection
from kombu.message import Message
from kombu.messaging import Consumer

from pyramid_durable.exceptions import StoreUnavailable

from .address import AMQP, REDIS, Address

log = logging.getLogger(__name__)

# Seconds between two looks at `stop`, the connection's health and the commands to give back.
# It bounds how long a daemon waits for its listener at shutdown; messages wake it at once.
TICK = 0.1

# Seconds for which messages are read before the announcements among them are handed on, as one.
BURST = 0.01

# Commands in hand at once. It hides the round trip to the broker, and more would only be kept
# from other daemons.
PREFETCH = 20

# Seconds until a command goes back whose handler failed, which mostly means the store is away.
COMMAND_PAUSE = 1.0

# Seconds between attempts to connect; drawn at random below the growing limit, so that a fleet
# does not come back to a restarted broker in step.
RECONNECT_FIRST = 0.2
RECONNECT_CEILING = 5.0

# Unreadable messages in a row after which it is rather the connection that is out of order.
MALFORMED_LIMIT = 100


class Handler(Protocol):
    """What a daemon does with what it hears. Called from the listener's thread."""

    def announced(self, queues: set[str]) -> None:
        """Jobs were stored for these queues."""

    def message(self, text: str, queue: str) -> None:
        """Somebody sent a message to the daemons of a queue."""

    def command(self, body: bytes) -> None:
        """Store a command; returning acknowledges it, raising lets it come again."""

    def connected(self) -> None:
        """From now on announcements arrive; those before may have been lost."""

    def disconnected(self, exc: BaseException) -> None:
        """The broker is away (BrokerUnavailable); said once each time."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """What a daemon wants to hear, and until when."""

    queues: Collection[str]
    incarnation: str
    handler: Handler
    stop: threading.Event
    commands: bool


def listen(address: Address, wanted: Subscription) -> None:
    """Keep a session with the broker until ``stop`` is set."""
    _quiet_libraries()
    limit = RECONNECT_FIRST
    is_told = False
    while not wanted.stop.is_set():
        session = Session(address, wanted)
        try:
            session.run()
        except Exception as exc:  # noqa: BLE001 - nothing may end the listener
            if session.was_connected:
                limit, is_told = RECONNECT_FIRST, False
            if not is_told:
                is_told = True
                log.warning(
                    "not connected to %s, trying again: %s",
                    address.shown,
                    address.redact(exc),
                    extra={"action": "broker_lost"},
                )
                _guarded(wanted.handler.disconnected, address.unavailable(exc))
            wanted.stop.wait(random.uniform(limit / 2, limit))
            limit = min(limit * 2, RECONNECT_CEILING)


class Session:
    """One connection: declares, hears, and hands on until it breaks or ``stop`` is set."""

    _connection: Connection

    def __init__(self, address: Address, wanted: Subscription) -> None:
        self.was_connected = False
        self._address = address
        self._queues = tuple(dict.fromkeys(wanted.queues))
        self._handler = wanted.handler
        self._stop = wanted.stop
        self._commands = wanted.commands
        self._reader = wanted.incarnation
        if address.kind == AMQP:
            # The exclusive queue of a connection the server has not given up would lock us out.
            self._reader += uuid.uuid4().hex[:8]
        self._announced: set[str] = set()
        self._failed: list[tuple[float, Message]] = []
        self._malformed = 0
        self._store_is_away = False

    def run(self) -> None:
        self._connection = self._address.connect()
        try:
            self._consume()
            self._settle()
            self.was_connected = True
            log.info(
                "listening to %s",
                self._address.shown,
                extra={"action": "broker_connected", "queue": " ".join(self._queues)},
            )
            _guarded(self._handler.connected)
            while not self._stop.is_set():
                self._hear()
                self._keep()
            self._leave()
        except BaseException:
            _guarded(self._connection.collect)
            raise
        _guarded(self._connection.release)

    def _consume(self) -> None:
        channel = self._connection.default_channel
        for queue in self._queues:
            Consumer(
                channel,
                [self._address.inbox(queue, self._reader)],
                no_ack=True,
                on_message=partial(self._on_note, queue),
                on_decode_error=self._on_malformed,
            ).consume()
        if self._commands:
            # A channel of its own, because the prefetch count is the channel's.
            Consumer(
                self._connection.channel(),
                [self._address.commands(queue) for queue in self._queues],
                on_message=self._on_command,
                on_decode_error=self._on_malformed_command,
                prefetch_count=PREFETCH,
            ).consume()

    def _settle(self) -> None:
        """Wait until the server has answered the subscription; Redis does so in a message."""
        if self._address.kind == REDIS:
            self._drain(TICK)
        self._hand_on()

    def _hear(self) -> None:
        """Wait for a message, hand on what it says, and then what those say that came with it."""
        if self._drain(TICK):
            self._hand_on()
            ends = time.monotonic() + BURST
            while time.monotonic() < ends and self._drain(0):
                pass
        self._hand_on()

    def _drain(self, timeout: float) -> bool:
        try:
            self._connection.drain_events(timeout=timeout)
        except TimeoutError as exc:
            if exc.errno == errno.ETIMEDOUT:  # the network's, not ours
                raise
            return False
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            # kombu's virtual transports raise these from messages that are none of theirs.
            self._on_malformed(None, exc)
        return True

    def _hand_on(self) -> None:
        if self._announced:
            announced, self._announced = self._announced, set()
            _guarded(self._handler.announced, announced)

    def _keep(self) -> None:
        """Do what has to be done now and then."""
        if self._address.kind == AMQP:
            self._connection.heartbeat_check()
        elif self._address.kind == REDIS:
            self._check_subscription()
        now = time.monotonic()
        due = [message for retry_at, message in self._failed if retry_at <= now]
        self._failed = [pair for pair in self._failed if pair[0] > now]
        for message in due:
            message.requeue()

    def _check_subscription(self) -> None:
        """Send a PING every health_check_interval: kombu does so in its event loop only."""
        channel: Any = self._connection.default_channel
        subscription = channel.subclient
        if subscription.health_check_response_counter > 1:
            raise ConnectionError("Redis leaves PING unanswered")
        subscription.check_health()

    def _leave(self) -> None:
        """Leave no inbox behind; commands in hand go back when the connection is closed.

        Nothing is cancelled before that: what Redis hands out in this moment would find nobody
        to take it, and kombu would drop it.
        """
        if self._address.kind != AMQP:
            channel = self._connection.default_channel
            for queue in self._queues:
                self._address.inbox(queue, self._reader)(channel).delete()

    def _on_note(self, queue: str, message: Message) -> None:
        try:
            body = json.loads(message.body)
            kind = body["kind"]
            text = body["text"] if kind == "message" else None
        except (KeyError, TypeError, ValueError) as exc:
            self._on_malformed(message, exc)
            return
        self._malformed = 0
        if kind == "announced":
            self._announced.add(queue)
        elif isinstance(text, str):
            _guarded(self._handler.message, text, queue)
        else:
            log.debug("ignored a message of an unknown kind", extra={"action": "ignored"})

    def _on_command(self, message: Message) -> None:
        if self._stop.is_set():
            # Not acknowledged: it goes back when the connection is closed.
            return
        self._malformed = 0
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        try:
            self._handler.command(body)
        except StoreUnavailable as exc:
            if not self._store_is_away:
                log.warning("commands wait for: %s", exc, extra={"action": "commands_wait"})
            self._store_is_away = True
            self._failed.append((time.monotonic() + COMMAND_PAUSE, message))
        except Exception:
            text = "a command could not be stored, it comes again"
            log.exception(text, extra={"action": "command_failed"})
            self._failed.append((time.monotonic() + COMMAND_PAUSE, message))
        else:
            if self._store_is_away:
                log.info("commands are stored again", extra={"action": "commands_go_on"})
            self._store_is_away = False
            message.ack()

    def _on_malformed(self, message: Message | None, exc: BaseException) -> None:
        self._malformed += 1
        if self._malformed > MALFORMED_LIMIT:
            raise ConnectionError("nothing but unreadable messages") from exc
        log.warning(
            "dropped a malformed message: %s",
            type(exc).__name__,
            extra={"action": "message_dropped"},
        )

    def _on_malformed_command(self, message: Message, exc: BaseException) -> None:
        message.reject()
        self._on_malformed(message, exc)


def _guarded(function: Callable[..., Any], *args: Any) -> None:
    """Call what may fail without harm: a handler, the end of a broken connection."""
    try:
        function(*args)
    except Exception:
        log.exception("failed and went on", extra={"action": "ignored_failure"})


def _quiet_libraries() -> None:
    """Keep kombu's and amqp's lines about each heartbeat out of a log at DEBUG.

    Whoever wants them names these loggers in the ini, which then counts.
    """
    for name in ("amqp", "kombu"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)

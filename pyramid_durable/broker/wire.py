"""An open connection to publish on (both)."""

from __future__ import annotations

import json
from typing import Any

from kombu.messaging import Producer

from .address import PATIENCE, Address


class Wire:
    """An open connection to publish on; belongs to the publisher's thread."""

    def __init__(self, address: Address, compressor: str | None) -> None:
        self._address = address
        self._compressor = compressor
        self._connection = address.connect()
        self._producer = Producer(self._connection.default_channel)
        # By queue: kombu would look anew at each message whether it has declared the exchange.
        self._exchanges: dict[str, str] = {}

    def announce(self, queue: str) -> None:
        # The key lets inboxes without a server keep one unread announcement instead of many.
        self._broadcast(queue, {"kind": "announced"}, headers={"key": "announced"})

    def send_message(self, text: str, queue: str) -> None:
        message = {"kind": "message", "text": text}
        self._broadcast(queue, message, compression=self._compressor)

    def publish_command(self, body: bytes, queue: str) -> None:
        commands = self._address.commands(queue)
        self._producer.publish(
            body,
            exchange="",
            routing_key=commands.routing_key,
            declare=[commands],
            content_type="application/octet-stream",
            content_encoding="binary",
            compression=self._compressor,
            delivery_mode=2,
            # Were the queue deleted behind our back, AMQP would confirm and forget.
            mandatory=True,
            timeout=PATIENCE,
            confirm_timeout=PATIENCE,
        )

    def probe(self) -> None:
        """Ask the server for something: a channel (AMQP), a PING (kombu's new Redis channel)."""
        self._connection.channel().close()

    def close(self) -> None:
        self._connection.release()

    def abandon(self) -> None:
        """Drop the connection without a word: a server that is away would let us wait."""
        self._connection.collect()

    def _broadcast(self, queue: str, body: dict[str, str], **properties: Any) -> None:
        self._producer.publish(
            json.dumps(body),
            exchange=self._exchanges.get(queue) or self._declare(queue),
            routing_key="",
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=1,
            timeout=PATIENCE,
            confirm_timeout=PATIENCE,
            **properties,
        )

    def _declare(self, queue: str) -> str:
        exchange = self._address.exchange(queue)
        self._producer.maybe_declare(exchange)
        self._exchanges[queue] = exchange.name
        return exchange.name

"""All that touches kombu (both): announcements, messages, commands, and listening for them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kombu import compression

from pyramid_durable.exceptions import InvalidSetting

from .address import AMQP, REDIS, Address
from .listener import Handler, Subscription, listen
from .publisher import Publisher
from .wire import Wire

__all__ = ["Broker", "Handler"]

log = logging.getLogger(__name__)

DEADLINE = 0.1


class Broker:
    """The way between the web processes and the daemons.

    ``url``: any kombu URL with fanout exchanges; ``filesystem:///path`` is a folder shared by
    the processes of one machine, ``memory://`` reaches the threads of this process.
    ``namespace``: keeps applications on one broker apart. ``options``: for kombu, as texts or
    values. ``compressor``: a name kombu knows, for messages and commands. ``deadline``: seconds
    that a caller waits at most. ``clock``: what the breaker goes by.

    Opens nothing: connections and the publishing thread start at first use, and again in a
    forked process. Raises InvalidSetting for a URL, an option or a compressor that cannot be
    used. Errors and logs show the URL without its password.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        options: Mapping[str, Any] | None = None,
        compressor: str | None = None,
        deadline: float = DEADLINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = Address(url, namespace=namespace, options=options or {})
        self._compressor = _find_compressor(compressor)
        self._deadline = deadline
        self._clock = clock
        # By process: a forked child has neither the thread nor a right to the connection, and
        # a lock may have been held in the middle of the fork.
        self._publishers: dict[int, Publisher] = {}

    def __repr__(self) -> str:
        return f"<Broker {self._address.shown}>"

    @property
    def carries_commands(self) -> bool:
        """Whether commands survive here until a daemon has stored them (amqp, redis)."""
        return self._address.kind in (AMQP, REDIS)

    def announce(self, queues: Collection[str]) -> None:
        """Tell the daemons of ``queues`` to look into the store; a hint that may get lost.

        Returns at once and never raises. Announcements that follow each other closely are
        published as one; while the broker does not answer they are dropped.
        """
        if not queues:
            return
        try:
            self._publisher().announce(queues)
        except Exception:
            # No thread at the end of the interpreter, for one. The job is stored; it will run.
            log.exception("cannot announce", extra={"action": "announcement_dropped"})

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is left to announce: published, or given up.

        Returns False where that took longer than ``timeout`` seconds.
        """
        return self._publisher().flush(timeout)

    def send_message(self, text: str, queue: str) -> None:
        """Send ``text`` to every daemon of ``queue`` that is there now. Best effort.

        Raises BrokerUnavailable within the deadline.
        """
        self._call(lambda wire: wire.send_message(text, queue))

    def publish_command(self, body: bytes, queue: str) -> None:
        """Put a command into the durable queue that the daemons of ``queue`` share.

        Returns when the broker has confirmed it. Raises BrokerUnavailable within the deadline:
        then it was not sent, or was sent and not confirmed in time and may have arrived. Where
        a connection breaks it may arrive twice, so storing it has to be idempotent. Raises
        InvalidSetting where the transport cannot keep commands.
        """
        if not self.carries_commands:
            raise InvalidSetting(
                f"scheduler.broker.url {self._address.shown} cannot carry commands: they would be"
                " lost with the process that reads them; scheduler.producer = broker needs"
                " amqp:// or redis://"
            )
        self._call(lambda wire: wire.publish_command(body, queue))

    def probe(self) -> None:
        """Raise BrokerUnavailable where the broker does not answer within the deadline."""
        self._call(Wire.probe)

    def listen(
        self,
        queues: Collection[str],
        incarnation: str,
        handler: Handler,
        stop: threading.Event,
        *,
        commands: bool = False,
    ) -> None:
        """Hear what is sent to the daemons of ``queues`` until ``stop`` is set.

        Blocks, reconnects by itself and never raises; call it in a thread of its own. With
        ``commands`` it also takes commands, whose handler acknowledges by returning.
        ``incarnation`` names this listener and must be unique among the living.
        """
        listen(
            self._address,
            Subscription(
                queues=queues,
                incarnation=incarnation,
                handler=handler,
                stop=stop,
                commands=commands and self.carries_commands,
            ),
        )

    def close(self) -> None:
        """Publish what is waiting, as far as the deadline allows, and let the connection go."""
        self._publisher().close(self._deadline)

    def _call(self, work: Callable[[Wire], None]) -> None:
        self._publisher().call(work, self._deadline)

    def _publisher(self) -> Publisher:
        pid = os.getpid()
        found = self._publishers.get(pid)
        if found is None:
            found = self._publishers.setdefault(
                pid,
                Publisher(
                    self._address,
                    compressor=self._compressor,
                    exit_patience=self._deadline,
                    clock=self._clock,
                ),
            )
        return found


def _find_compressor(name: str | None) -> str | None:
    if not name:
        return None
    try:
        compression.get_encoder(name)
    except KeyError:
        raise InvalidSetting(
            f"scheduler.broker.compressor is {name!r}, which kombu does not know; expected one of"
            " gzip, bzip2, lzma (or zstd, brotli where their libraries are installed)"
        ) from None
    return name

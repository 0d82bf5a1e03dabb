"""kombu transports without a server (both): within a process, and on one machine by files.

kombu brings both, and neither keeps law 12. Its memory transport goes on filling queues whose
reader has left, and looks for messages once a second; its filesystem transport writes into the
queues of dead daemons for ever, sorts the whole folder at every look, and reads files that are
half written. These know one thing, broadcasting to inboxes, and bound what an inbox holds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import virtual

from .inboxes import FolderInboxes, Inboxes, MemoryInboxes


class Channel(virtual.Channel):
    """What kombu asks of a channel, in terms of inboxes."""

    supports_fanout = True
    do_restore = False

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self.connection.inboxes.open(queue)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Do nothing: an inbox's name says which exchange it is bound to."""

    def _put_fanout(
        self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any
    ) -> None:
        self.connection.inboxes.put(exchange, message, message["headers"].get("key"))

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        raise ChannelError("this transport broadcasts and does nothing else")

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        message: dict[str, Any] | None = self.connection.inboxes.get(queue)
        if message is None:
            raise Empty
        return message

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self.connection.inboxes.remove(queue)

    def _size(self, queue: str) -> int:
        size: int = self.connection.inboxes.size(queue)
        return size


class LocalTransport(virtual.Transport):
    """A transport over inboxes, which know how to wait for the next message."""

    Channel = Channel
    inboxes: Inboxes
    implements = virtual.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct", "fanout"])
    )

    def driver_version(self) -> str:
        return "N/A"

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        assert self.cycle is not None
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            mark = self.inboxes.mark()
            try:
                self.cycle.get(self._deliver, timeout=timeout)
            except Empty:
                left = 60.0 if ends is None else ends - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                self.inboxes.wait(mark, left)
            else:
                return


# By process, because nobody reads the inboxes that a forked child inherits.
_memory: dict[int, MemoryInboxes] = {}


class MemoryTransport(LocalTransport):
    """Messages between the threads of one process."""

    driver_type = "memory"
    driver_name = "memory"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.inboxes = _memory.setdefault(os.getpid(), MemoryInboxes())


class FolderTransport(LocalTransport):
    """Messages between the processes of one machine, as files."""

    driver_type = "filesystem"
    driver_name = "filesystem"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        options = client.transport_options
        self._folder = Path(options["folder"])
        given = options.get("polling_interval")
        self.inboxes = FolderInboxes(self._folder, None if given is None else float(given))

    def establish_connection(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        return super().establish_connection()

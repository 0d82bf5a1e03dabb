"""The four brokers as the tests see them: where they are, what is left there, cleaning up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection

from pyramid_durable.broker import Broker
from pyramid_durable.broker.address import Address
from pyramid_durable.broker.local import MemoryTransport
from tests.services import service_url

ROOT = Path(__file__).parents[2]


class Server:
    """A broker in a namespace of this test's own."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.namespace = f"t{uuid4().hex[:12]}"
        self.folder = folder / "queues"
        self.queues = ["default", "mail"]
        self.url = self._url()
        self._brokers: list[Broker] = []

    @property
    def is_shared(self) -> bool:
        """Whether other processes reach it."""
        return self.kind != "memory"

    def broker(self, url: str | None = None, **arguments: Any) -> Broker:
        arguments.setdefault("deadline", 5.0)
        broker = Broker(url or self.url, namespace=self.namespace, **arguments)
        self._brokers.append(broker)
        return broker

    def address(self, **options: Any) -> Address:
        return Address(self.url, namespace=self.namespace, options=options)

    @contextmanager
    def peer(self, *arguments: str, url: str | None = None) -> Iterator[subprocess.Popen[str]]:
        """Another process on this broker, see peer.py; killed in the end, with its children."""
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.broker.peer",
                url or self.url,
                self.namespace,
                *arguments,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as peer:
            try:
                yield peer
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(peer.pid, signal.SIGKILL)

    def leftovers(self) -> list[str]:
        """Name what lies on the broker: messages, inboxes, bindings, commands."""
        find: dict[str, Callable[[], list[str]]] = {
            "memory": self._in_memory,
            "filesystem": self._in_folder,
            "amqp": self._in_rabbitmq,
            "redis": self._in_redis,
        }
        return find[self.kind]()

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()
        if self.kind == "redis":
            with self.redis() as client:
                for key in client.scan_iter(f"*{self.namespace}*"):
                    client.delete(key)
        elif self.kind == "amqp":
            with Connection(self.url) as connection:
                for queue in self.queues:
                    connection.channel().exchange_delete(self.address().exchange(queue).name)
                    connection.channel().queue_delete(self.address().commands(queue).name)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def _url(self) -> str:
        if self.kind == "memory":
            return "memory://"
        if self.kind == "filesystem":
            return f"filesystem://{self.folder}"
        return service_url(self.kind)

    def _in_memory(self) -> list[str]:
        with Connection(transport=MemoryTransport) as connection:
            inboxes = connection.transport.inboxes._inboxes
            return [name for name in inboxes if self.namespace in name]

    def _in_folder(self) -> list[str]:
        return [str(path) for path in self.folder.glob("*/*")]

    def _in_redis(self) -> list[str]:
        with self.redis() as client:
            return [key.decode() for key in client.scan_iter(f"*{self.namespace}*")]

    def _in_rabbitmq(self) -> list[str]:
        """Exchanges with an inbox bound to them, and commands that wait.

        AMQP does not list; it refuses to delete what is in use. An unused exchange is the
        configuration of a queue, and goes here.
        """
        found = []
        with Connection(self.url) as connection:
            for queue in self.queues:
                name = self.address().exchange(queue).name
                try:
                    connection.channel().exchange_delete(name, if_unused=True)
                except PreconditionFailed:
                    found.append(name)
                name = self.address().commands(queue).name
                try:
                    waiting = connection.channel().queue_declare(name, passive=True)
                except NotFound:
                    continue
                if waiting.message_count:
                    found.append(name)
        return found

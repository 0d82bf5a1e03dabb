"""A TCP proxy between a broker and the tests, which can break in every way a network does."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class Proxy:
    """Forwards to the server of ``url``; ``self.url`` is the same one through the proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._refuses = False
        self._is_stuck = threading.Event()
        self._is_open = threading.Event()
        self._is_open.set()
        self.accepted = 0
        port = self._door.getsockname()[1]
        userinfo, at, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{port}").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._door.close()
        self.cut()

    def cut(self) -> None:
        """End every connection, as a server does that is restarted."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def refuse(self, refuses: bool) -> None:
        """Whether connections are closed as soon as they are accepted."""
        self._refuses = refuses

    def hold(self) -> None:
        """Let those who connect wait; what they say meanwhile is kept."""
        self._is_open.clear()

    def let_go(self) -> None:
        self._is_open.set()

    def stick(self) -> None:
        """Forward nothing any more, on connections that stay open: half-open ones."""
        self._is_stuck.set()

    def come_loose(self) -> None:
        self._is_stuck.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self.accepted += 1
            if self._refuses:
                near.close()
                continue
            self._is_open.wait()
            far = socket.create_connection(self._target)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._is_stuck.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

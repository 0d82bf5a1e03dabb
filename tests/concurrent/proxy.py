"""A TCP proxy in front of a server that must not be disturbed itself: it cuts, and it swallows."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

CHUNK = 65536

DEAF_FOR = 5.0
"""Seconds that the proxy waits for the server behind it; that is on this machine or away."""


class Proxy:
    """Forwards a port of its own to ``host:port``; what goes wrong on the way is up to the test.

    A connection that was swallowed never comes loose again: bytes that were lost in the middle of
    a stream would be a fault that no network has.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._door = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._door.getsockname()[1])
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._swallows = False
        self._closed = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> int:
        """End every connection, as a firewall does that is restarted; returns how many."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            pair.close()
        return len(pairs)

    def swallow(self) -> None:
        """From now on neither answer nor close, on open connections and on new ones."""
        with self._lock:
            self._swallows = True
            for pair in self._pairs:
                pair.silent.set()

    def heal(self) -> None:
        """End what was swallowed, and serve again."""
        with self._lock:
            self._swallows = False
        self.cut()

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._open, args=(near,), daemon=True).start()

    def _open(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=DEAF_FOR)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(near, far)
        with self._lock:
            if self._swallows:
                pair.silent.set()
            self._pairs.add(pair)
        if self._closed:
            self.cut()
            return
        threading.Thread(target=self._forward, args=(pair, near, far), daemon=True).start()
        self._forward(pair, far, near)

    def _forward(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if pair.silent.is_set():
                    # The end of this side is lost on the way too.
                    return
                sink.sendall(data)
        if pair.silent.is_set():
            return
        pair.close()
        with self._lock:
            self._pairs.discard(pair)


class _Pair:
    """The two ends of a forwarded connection."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._ends = (near, far)
        self.silent = threading.Event()

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

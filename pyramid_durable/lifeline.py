"""What ties a supervisor and its children: a socket, and either end of it (daemon)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

log = logging.getLogger(__name__)

SUPERVISED: Final = "PYRAMID_DURABLE_SUPERVISED"
"""The environment variable that makes a pscheduler a child: its lifeline and its number. Not an
argument: a child gets the very arguments of its supervisor, whatever they end with."""

STARTED: Final = b"s"
STOP: Final = b"t"
HURRY: Final = b"h"


class Process(Protocol):
    """A process as ``subprocess.Popen`` shows it."""

    pid: int

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class TiedChild:
    """A child that is a process of its own, tied to the supervisor by a socket, its lifeline.

    What the child is told goes over the socket, not by signals: a service manager or a terminal
    may signal the children too, and the supervisor's would be the second one, that hurries.
    """

    def __init__(self, process: Process, lifeline: socket.socket) -> None:
        self.pid = process.pid
        self._process = process
        self._socket = lifeline
        self._socket.setblocking(False)
        self._started = False

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""
        return self._process.poll()

    def has_started(self) -> bool:
        """Whether it ever said that it is at work."""
        with contextlib.suppress(OSError):
            self._started = self._started or self._socket.recv(1) == STARTED
        return self._started

    def stop(self) -> None:
        """Let it finish what it runs, and end; one that has not started has nothing to finish."""
        self._say(STOP)
        if not self.has_started():
            self._process.terminate()

    def hurry(self) -> None:
        """Let it end without waiting for what it runs."""
        self._say(HURRY)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """Close the lifeline."""
        self._socket.close()

    def _say(self, word: bytes) -> None:
        # A child that is gone is noticed by its exit code.
        with contextlib.suppress(OSError):
            self._socket.send(word)


class ChildProcess(TiedChild):
    """A child that is started by a command."""

    def __init__(self, command: Sequence[str], number: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, SUPERVISED: f"{theirs.fileno()}:{number}"},
                pass_fds=[theirs.fileno()],
                # Ctrl-C is the supervisor's to hear: a child that still imports would die of it.
                start_new_session=True,
            )
        super().__init__(process, ours)


class Lifeline:
    """The child's end of what ties it to its supervisor. ``number`` is the child's, from 1."""

    def __init__(self, descriptor: int, number: int) -> None:
        self.number = number
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    @classmethod
    def adopt(cls) -> Lifeline | None:
        """The lifeline of this process; None where it is nobody's child.

        Processes that jobs start do not see the variable any more. Raises OSError where it names
        no socket.
        """
        given = os.environ.pop(SUPERVISED, None)
        if given is None:
            return None
        descriptor, _, number = given.partition(":")
        return cls(int(descriptor), int(number))

    def say_started(self) -> None:
        """Tell the supervisor that this child is at work."""
        with contextlib.suppress(OSError):
            self._socket.send(STARTED)

    def watch(self, stop: Callable[[], Any], hurry: Callable[[], Any]) -> None:
        """Call ``stop`` and ``hurry`` from a thread when told so; ``stop`` also when the
        supervisor is gone, however it went: its end of the socket closes with it."""

        def listen() -> None:
            while word := self._hear():
                (hurry if word == HURRY else stop)()
            log.warning("the supervisor is gone; stopping", extra={"action": "orphaned"})
            stop()

        threading.Thread(target=listen, name="durable-lifeline", daemon=True).start()

    def _hear(self) -> bytes:
        try:
            return self._socket.recv(1)
        except OSError:
            return b""

"""Bells beside the inboxes in a folder (both): a message is read at once, not at the next look.

A bell is a named pipe. Where there can be none, or a publisher may not ring it, the look finds
what has come.
"""

from __future__ import annotations

import contextlib
import os
import select
import weakref
from collections.abc import Iterable
from typing import Final

SIGN: Final = ".bell"


class Bells:
    """The bells of one reader; used from its thread."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, int]] = {}
        self._heard = select.poll()
        weakref.finalize(self, _close_all, self._ends)

    def hang(self, inbox: str) -> None:
        """Have a bell for an inbox, if the folder can hold one."""
        self.take_down(inbox)
        path = inbox + SIGN
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path)
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                # Held, not used: a pipe without a writer would be heard for ever.
                writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                os.close(reading)
                raise
            self._ends[inbox] = (reading, writing)
            self._heard.register(reading, select.POLLIN)

    def hang_at(self, inboxes: Iterable[str]) -> bool:
        """Tell whether each of these has one."""
        return self._ends.keys() >= set(inboxes)

    def take_down(self, inbox: str) -> None:
        """Have none for this inbox any more."""
        ends = self._ends.pop(inbox, None)
        if ends is not None:
            self._heard.unregister(ends[0])
            _close(ends)

    def wait(self, seconds: float) -> bool:
        """Wait until one rings, or so long; tells whether one did."""
        rung = self._heard.poll(seconds * 1000)
        for end, _ in rung:
            with contextlib.suppress(BlockingIOError):
                os.read(end, 65536)
        return bool(rung)


def ring(inbox: str) -> None:
    """Let the reader of an inbox know; nothing happens where it has no bell."""
    try:
        end = os.open(inbox + SIGN, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    # A full pipe is heard as well.
    with contextlib.suppress(OSError):
        os.write(end, b"!")
    os.close(end)


def _close(ends: tuple[int, int]) -> None:
    for end in ends:
        os.close(end)


def _close_all(ends: dict[str, tuple[int, int]]) -> None:
    while ends:
        _close(ends.popitem()[1])

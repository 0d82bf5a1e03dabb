"""Where messages lie that no server keeps (both): in memory, or in a folder of files."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

from .bells import SIGN as BELL
from .bells import Bells, ring

log = logging.getLogger(__name__)

# Hints of a queue are all alike and messages are for people: a daemon this far behind is better
# served by losing the oldest than by reading them all.
INBOX_LIMIT = 1000

# Seconds between two looks into an inbox on disk that has no bell. Measured on two cores, publisher and
# listener in processes of their own, one queue; idle CPU as part of one core, latency of such a
# message from the call to the handler:
#
#   interval   idle CPU    p50     p99
#      5 ms      1.7 %      3 ms    6 ms
#     10 ms      1.2 %      7 ms   11 ms
#     20 ms      0.9 %     10 ms   21 ms
#     50 ms      0.4 %     26 ms   51 ms
#    100 ms      0.3 %     49 ms  100 ms
#
# At 20 ms a person who reloads a page sees the job done, and an idle laptop stays below one
# percent; `broker.options.polling_interval` is for those who weigh it otherwise.
POLLING_INTERVAL = 0.02

# The same where there is a bell: only what another machine has put there, or a user who may not
# ring it, waits for a look.
RUNG_INTERVAL = 0.1

# Seconds between two signs of life of an inbox in a folder, and the age at which publishers
# clear it away. A daemon that was only asleep opens its inbox again when it looks next.
SIGN_OF_LIFE = 5.0
DEAD_AFTER = 60.0

_SIGN = ".alive"


class Inboxes(Protocol):
    """Where a transport keeps its messages. An inbox is named ``<exchange>.<reader>``.

    A message with a ``key`` is dropped while an unread one with that key lies there: the first
    says it all.
    """

    def open(self, inbox: str) -> None: ...

    def put(self, exchange: str, message: dict[str, Any], key: str | None) -> None: ...

    def get(self, inbox: str) -> dict[str, Any] | None: ...

    def size(self, inbox: str) -> int: ...

    def remove(self, inbox: str) -> None: ...

    def mark(self) -> int:
        """Return what ``wait`` wants to know: how far one had looked."""

    def wait(self, mark: int, timeout: float) -> None:
        """Wait for something new since ``mark``, or until it is time to look again."""


class MemoryInboxes:
    """Inboxes of one process; readers sleep on a condition and wake at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inboxes: dict[str, OrderedDict[str, dict[str, Any]]] = {}
        self._puts = 0

    def open(self, inbox: str) -> None:
        with self._changed:
            self._inboxes.setdefault(inbox, OrderedDict())

    def put(self, exchange: str, message: dict[str, Any], key: str | None) -> None:
        with self._changed:
            for inbox, messages in self._inboxes.items():
                if inbox.rpartition(".")[0] != exchange:
                    continue
                messages.setdefault(key or uuid.uuid4().hex, message)
                if len(messages) > INBOX_LIMIT:
                    messages.popitem(last=False)
            self._puts += 1
            self._changed.notify_all()

    def get(self, inbox: str) -> dict[str, Any] | None:
        with self._changed:
            messages = self._inboxes.get(inbox)
            return messages.popitem(last=False)[1] if messages else None

    def size(self, inbox: str) -> int:
        with self._changed:
            return len(self._inboxes.get(inbox, ()))

    def remove(self, inbox: str) -> None:
        with self._changed:
            self._inboxes.pop(inbox, None)

    def mark(self) -> int:
        with self._changed:
            return self._puts

    def wait(self, mark: int, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._puts != mark, timeout)


class FolderInboxes:
    """Inboxes as folders of files: ``<folder>/<exchange>/<reader>/<message>.json``.

    Messages appear by renaming, so none is read half written. Beside an inbox lies a file its
    reader touches; without that sign of life the inbox is cleared away. Its bell tells the reader
    to look. What comes without a ring is found by a look at every ``polling_interval``.
    """

    def __init__(self, folder: Path, polling_interval: float | None) -> None:
        self._folder = folder
        self._polling_interval = polling_interval
        self._pause = POLLING_INTERVAL
        self._signed: dict[str, float] = {}
        self._paths: list[str] = []
        self._unreadable: set[Path] = set()
        self._bells = Bells()

    def open(self, inbox: str) -> None:
        path = self._path(inbox)
        path.parent.mkdir(parents=True, exist_ok=True)
        _living(path.parent)
        self._sign(inbox, path)
        path.mkdir(exist_ok=True)
        self._bells.hang(str(path))
        self._paths = [str(self._path(name)) for name in self._signed]
        usual = RUNG_INTERVAL if self._bells.hang_at(self._paths) else POLLING_INTERVAL
        self._pause = self._polling_interval or usual

    def put(self, exchange: str, message: dict[str, Any], key: str | None) -> None:
        inboxes = _living(self._folder / exchange)
        if not inboxes:
            return
        text = json.dumps(message)
        name = f"{key or f'{time.time_ns()}-{uuid.uuid4().hex}'}.json"
        for path in inboxes:
            if key is not None and (path / name).exists():
                continue
            draft = path / f".{uuid.uuid4().hex}"
            try:
                draft.write_text(text, encoding="utf-8")
                draft.replace(path / name)
                ring(str(path))
                if key is None:
                    _drop_oldest(path)
            except FileNotFoundError:
                # Its reader, or somebody who took the reader for dead, has just removed it.
                continue

    def get(self, inbox: str) -> dict[str, Any] | None:
        path = self._path(inbox)
        if time.monotonic() - self._signed.get(inbox, 0.0) >= SIGN_OF_LIFE:
            self._sign(inbox, path)
        try:
            found = sorted(path.iterdir())
        except FileNotFoundError:
            self.open(inbox)
            return None
        for file in found:
            message = self._read(file)
            if message is not None:
                return message
        return None

    def size(self, inbox: str) -> int:
        try:
            return len(_messages(self._path(inbox)))
        except FileNotFoundError:
            return 0

    def remove(self, inbox: str) -> None:
        self._signed.pop(inbox, None)
        self._bells.take_down(str(self._path(inbox)))
        _remove_inbox(self._path(inbox))

    def mark(self) -> int:
        return 0

    def wait(self, mark: int, timeout: float) -> None:
        ends = time.monotonic() + timeout
        while (left := ends - time.monotonic()) > 0:
            if self._bells.wait(min(left, self._pause)):
                return
            try:
                # The poll, without kombu around it and without Path, at a tenth of their cost.
                if any(os.listdir(path) for path in self._paths):  # noqa: PTH208
                    return
            except FileNotFoundError:
                return

    def _path(self, inbox: str) -> Path:
        exchange, _, reader = inbox.rpartition(".")
        return self._folder / exchange / reader

    def _sign(self, inbox: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}{_SIGN}").touch()
        self._signed[inbox] = time.monotonic()

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Take one message out of the inbox; None for what is none."""
        if path.name.startswith("."):
            _remove_abandoned_draft(path)
            return None
        try:
            text = path.read_bytes()
            # Before it is delivered: an announcement from here on has to leave a new file.
            path.unlink()
        except FileNotFoundError:
            return None
        except OSError:
            if path not in self._unreadable:
                self._unreadable.add(path)
                log.warning("cannot read a message", exc_info=True, extra={"action": "unread"})
            return None
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            log.warning("dropped a malformed message", extra={"action": "message_dropped"})
            return None
        return message


def _living(exchange: Path) -> list[Path]:
    """Return the inboxes somebody reads; remove what is left of the others."""
    living = []
    try:
        with os.scandir(exchange) as entries:
            paths = [entry.path for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    for path in paths:
        try:
            signed = os.stat(path + _SIGN).st_mtime  # noqa: PTH116 - every publication comes here
        except FileNotFoundError:
            signed = 0.0
        if time.time() - signed < DEAD_AFTER:
            living.append(Path(path))
        else:
            log.info("removed an abandoned inbox", extra={"action": "inbox_removed"})
            _remove_inbox(Path(path))
    return living


def _messages(inbox: Path) -> list[str]:
    return [path.name for path in inbox.iterdir() if not path.name.startswith(".")]


def _drop_oldest(inbox: Path) -> None:
    names = _messages(inbox)
    if len(names) > INBOX_LIMIT:
        (inbox / min(names)).unlink(missing_ok=True)


def _remove_abandoned_draft(path: Path) -> None:
    """Remove what a publisher wrote that died before it renamed it."""
    try:
        if time.time() - path.stat().st_mtime > DEAD_AFTER:
            path.unlink()
    except FileNotFoundError:
        pass


def _remove_inbox(path: Path) -> None:
    for sign in (_SIGN, BELL):
        Path(f"{path}{sign}").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)

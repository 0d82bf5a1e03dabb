"""The producers' books: what they asked for, and what they were told, on disk before they go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

ASKING = "asking"
COMMITTED = "committed"
ROLLED_BACK = "rolled back"
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One job that was asked for. ``key`` is its name in the store, and unique.

    ``kind`` is what the checker expects by, ``attempts`` how many it takes where nothing dies.
    ``in_request``: a row of the request's own was written in the same transaction. ``told`` stays
    "asking" when the producer was killed before it heard.
    """

    key: str
    kind: str
    attempts: int = 1
    in_request: bool = True
    told: str = ASKING


class Book:
    """Written by one producer process; every line is on disk before the next step is taken."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def __enter__(self) -> Book:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._file.close()

    def asking(self, entries: Iterable[Entry]) -> None:
        self._write({"entries": [asdict(entry) for entry in entries]})

    def told(self, entries: Iterable[Entry], what: str, why: str = "") -> None:
        self._write({"keys": [entry.key for entry in entries], "told": what, "why": why})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_books(folder: Path) -> list[Entry]:
    """What all producers have in their books."""
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.book")):
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # the line in which the producer was killed: nothing followed from it
            for values in line.get("entries", ()):
                entries[values["key"]] = Entry(**values)
            for key in line.get("keys", ()):
                entries[key] = replace(entries[key], told=line["told"])
    return list(entries.values())

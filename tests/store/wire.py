"""What goes over the wire: the statements and commits of some work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event


@dataclass
class Wire:
    """What went over it so far; a statement comes with its parameters."""

    statements: list[tuple[str, Any]] = field(default_factory=list)
    commits: int = 0

    @property
    def cost(self) -> tuple[int, int]:
        """The number of statements, and of commits."""
        return len(self.statements), self.commits

    def __str__(self) -> str:
        lines = [" ".join(statement.split())[:300] for statement, _ in self.statements]
        return "\n".join([f"{len(lines)} statements, {self.commits} commits:", *lines])

    def _say(self, conn: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        # A BEGIN is a part of what it begins: with some drivers it is no statement.
        if not statement.startswith("BEGIN"):
            self.statements.append((statement, parameters))

    def _commit(self, conn: Any) -> None:
        self.commits += 1


@contextmanager
def recorded(*engines: Engine) -> Iterator[Wire]:
    """Note what goes through these engines."""
    wire = Wire()
    with ExitStack() as stack:
        for engine in engines:
            for name, heard in (("before_cursor_execute", wire._say), ("commit", wire._commit)):
                event.listen(engine, name, heard)
                stack.callback(event.remove, engine, name, heard)
        yield wire

"""The claim of a lone job that was just announced: one statement, no look before it (daemon)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, Text, bindparam, func, literal, select, true
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import ReturningUpdate

from ..records import PRIORITIES, Claim
from .claims import Claims
from .database import Database
from .queues import is_active
from .rows import to_claims

Read = Callable[[Any], Any]

SLOW: Final = 0.05
"""Seconds after which the connection is not used again: it may have kept a plan from when the table
was almost empty, and to keep this one statement to the indexes would take two round trips more."""


class PromptClaims:
    """Claiming what an idle daemon was woken for, where the database can.

    A look, and a claim of what it has seen, are four round trips and some more of Python: most of
    what a job that nothing else is waiting with would wait for. For the same reason the driver gets
    the statement, and gives the rows, without SQLAlchemy between.
    """

    def __init__(self, database: Database, claims: Claims) -> None:
        self._db = database
        self._claims = claims
        self._kept: dict[tuple[str, ...], tuple[str, dict[str, Any], list[Read | None]]] = {}

    @property
    def possible(self) -> bool:
        """Whether this database does it in one statement, and keeps nobody waiting meanwhile."""
        dialect = self._db.dialect
        return dialect.commits_alone and dialect.skip_locked and dialect.update_returning

    def take(self, owner: str, queues: Sequence[str]) -> list[Claim]:
        """Claim one due job, the first by priority and time; it starts at once.

        Only one that was never claimed before, and that no behavior compares with others: about
        those a claim has more to decide. So an empty answer does not say that nothing is due.

        A transaction of its own. Raises StoreUnavailable when the database cannot be reached.
        """
        with self._db.alone(slow=SLOW) as connection:
            sql, parameters, reads = self._compiled(connection.dialect, tuple(queues))
            rows = connection.exec_driver_sql(sql, {**parameters, "claimant": owner})
        read = (
            [read(one) if read else one for read, one in zip(reads, row, strict=True)]
            for row in rows
        )
        return to_claims(read, (True,))

    def _compiled(
        self, dialect: Dialect, queues: tuple[str, ...]
    ) -> tuple[str, dict[str, Any], list[Read | None]]:
        """The statement in the driver's words, its parameters, and what reads its columns."""
        kept = self._kept.get(queues)
        if kept is None:
            written_out = {"render_postcompile": True}
            compiled = self.statement(queues).compile(dialect=dialect, compile_kwargs=written_out)
            types = (one.type.dialect_impl(dialect) for one in self._claims.claimed)
            reads = [one.result_processor(dialect, None) for one in types]
            # Who claims has to be told at each execution; without it the driver refuses.
            parameters = {name: one for name, one in compiled.params.items() if name != "claimant"}
            kept = self._kept[queues] = (compiled.string, parameters, reads)
        return kept

    def statement(self, queues: Sequence[str]) -> ReturningUpdate[Any]:
        """What ``take`` executes."""
        c = self._db.tables.job.c
        # In their order, and no further than the first that has a job.
        pairs = [(priority, queue) for priority in PRIORITIES for queue in queues]
        # Written out: the driver would take longer for two lists than the database for the rest.
        arrays = (
            literal([pair[at] for pair in pairs], ARRAY(kind), literal_execute=True)
            for at, kind in enumerate((c.priority.type, Text()))
        )
        lanes = func.unnest(*arrays).table_valued("priority", "queue", name="lane").render_derived()
        first = (
            select(c.id)
            .where(c.queue == lanes.c.queue, c.priority == lanes.c.priority)
            .where(c.due_at <= self._db.soon(), is_active(self._db.tables, lanes.c.queue))
            .order_by(c.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
            .lateral("first")
        )
        picked = select(first.c.id).select_from(lanes.join(first, true())).limit(1)
        claiming = self._claims.claiming(picked, self._db.dialect.now())
        new = claiming.where(c.claim_no == 0, c.equal_key.is_(None))
        # With a value to compile it with, which is dropped: who claims is told at each execution.
        named = new.values(owner=bindparam("claimant", None))
        return named.returning(*self._claims.claimed)

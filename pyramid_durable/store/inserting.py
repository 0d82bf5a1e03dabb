"""The INSERT of new jobs, one or many in one statement (web and daemon)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Connection, Double, Integer
from sqlalchemy.exc import IntegrityError

from ..behaviors import KEY_OPTION
from ..records import SCHEDULED, JobSpec
from ..times import utcnow
from .database import Database
from .plain import PlainStatement
from .rows import dump_options

LARGEST_TEXT: Final = 4_000_000
"""Characters of arguments in one statement, unless one job alone has more: MariaDB closes the
connection on a packet of more than 16 MB."""

MOST_KINDS: Final = 200
"""Kinds of jobs in one statement: MariaDB looks for the kind of each job among all of them."""

NO_NUMBERS: Final[Mapping[str, int]] = MappingProxyType({})

_KIND: Final = {
    "func": "func",
    "queue": "queue",
    "codec": "codec",
    "name": "name",
    "kind": "kind",
    "priority": "priority",
    "max_attempts": "max_attempts",
    "group": "group_name",
    "options": "options",
}
"""The fields of a JobSpec that many jobs have in common, and their columns."""

_OWN: Final = {
    "run_at": "run_at",
    "delay": "delay",
    "userdata": "userdata",
    "schedule_id": "schedule_id",
    "fire_at": "fire_at",
    "waiting_key": "waiting_key",
}
"""The fields that a job seldom has; each has an id and a payload."""

_FIRST, _OPTIONS, _REST = (JobSpec._fields.index(name) for name in ("func", "options", "run_at"))
_PLAIN: Final = tuple(JobSpec._field_defaults[name] for name in JobSpec._fields[_REST:])


class _Part(NamedTuple):
    """What one statement takes: jobs, their rows, and what they have in common, by kind."""

    specs: list[JobSpec]
    rows: list[dict[str, Any]]
    kinds: list[dict[str, Any]]


class JobInsert:
    """Writes new jobs. What many have in common is said once, and joined by the database."""

    def __init__(self, database: Database) -> None:
        self._db = database
        sql = self._sql()
        self._all = PlainStatement(sql)
        self._new = PlainStatement(f"{sql} WHERE true ON CONFLICT DO NOTHING RETURNING id")

    def _sql(self) -> str:
        """Its times are SQL's, or come with the rows."""
        dialect, table = self._db.dialect, self._db.tables.job
        own = ("id", "payload", "userdata", "schedule_id", "fire_at", "waiting_key", "equal_key")
        delay: Column[float] = Column("delay", Double)
        kind_no: Column[int] = Column("kind_no", Integer)
        rows = dialect.table_of_rows(
            [*(table.c[name] for name in own), table.c.run_at, table.c.claim_no, delay, kind_no]
        )
        kinds = dialect.table_of_rows(
            [Column("no", Integer), *(table.c[name] for name in _KIND.values())], "k", "kinds"
        )
        names = ", ".join((*own, *_KIND.values()))
        values = ", ".join((*(f"v.{name}" for name in own), *(f"k.{n}" for n in _KIND.values())))
        after = dialect.after_sql.format(seconds="COALESCE(v.delay, 0)")
        run_at = f"COALESCE(v.run_at, {after})"
        # From the left, so that the jobs are stored in the order in which they were asked for.
        return (
            f"INSERT INTO {table.fullname} ({names}, overlap_key, run_at, due_at, created_at,"
            " state, attempt, crashes, claim_no)"
            f" SELECT {values}, v.schedule_id, {run_at}, {run_at},"
            f" {dialect.now_sql}, '{SCHEDULED}', 0, 0, COALESCE(v.claim_no, 0)"
            f" FROM {rows} LEFT JOIN {kinds} ON k.no = v.kind_no"
        )

    def all(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Insert jobs that nothing can refuse."""
        for part in _parts(specs, NO_NUMBERS):
            self._all.execute(connection, self._parameters(part))

    def new(
        self,
        connection: Connection,
        specs: Sequence[JobSpec],
        numbers: Mapping[str, int] = NO_NUMBERS,
    ) -> list[str]:
        """Insert jobs but for those whose id or key is taken; returns the ids of the others.

        ``numbers`` are the last claims of those that they replace.
        """
        return [id for part in _parts(specs, numbers) for id in self._new_of(connection, part)]

    def _new_of(self, connection: Connection, part: _Part) -> list[str]:
        parameters = self._parameters(part)
        if self._db.dialect.update_returning:
            return list(self._new.execute(connection, parameters).scalars())
        try:
            with connection.begin_nested():
                self._all.execute(connection, parameters)
        except IntegrityError:
            if len(part.specs) == 1:
                return []
            # IGNORE would hide other errors too, and cut texts that are too long.
            alone = (_Part([spec], [row], part.kinds) for spec, row in zip(*part[:2], strict=True))
            return [id for one in alone for id in self._new_of(connection, one)]
        return [spec.id for spec in part.specs]

    def _parameters(self, part: _Part) -> dict[str, Any]:
        dialect = self._db.dialect
        if not dialect.local_clock:
            return {"rows": dialect.dump(part.rows), "kinds": dialect.dump(part.kinds)}
        now = utcnow()
        for row in part.rows:
            if "delay" in row:
                row["run_at"] = now + timedelta(seconds=row["delay"])
        return {
            "rows": dialect.dump(part.rows),
            "kinds": dialect.dump(part.kinds),
            "now": dialect.moment(now),
        }


def _parts(specs: Sequence[JobSpec], numbers: Mapping[str, int]) -> Iterator[_Part]:
    """Divide new jobs into what one statement takes; most often that is all of them."""
    part, size = _Part([], [], []), 0
    known: dict[Any, int] = {}
    for spec in specs:
        # Jobs that were made together have the same options, and not only equal ones.
        options = spec[_OPTIONS]
        kind = (*spec[_FIRST:_OPTIONS], id(options) if options else None)
        size += len(spec.payload) + len(spec.userdata or "")
        number = known.get(kind)
        if part.specs and (size > LARGEST_TEXT or (number is None and len(known) == MOST_KINDS)):
            yield part
            part, known, size = _Part([], [], []), {}, len(spec.payload)
            number = None
        if number is None:
            number = known[kind] = len(known)
            part.kinds.append(_kind(spec, number))
        part.specs.append(spec)
        part.rows.append(_row(spec, number, numbers))
    if part.specs:
        yield part


def _kind(spec: JobSpec, number: int) -> dict[str, Any]:
    found = {column: getattr(spec, field) for field, column in _KIND.items()}
    found["options"] = dump_options(spec.options)
    return {"no": number} | {name: one for name, one in found.items() if one is not None}


def _row(spec: JobSpec, kind: int, numbers: Mapping[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": spec.id, "payload": spec.payload, "kind_no": kind}
    if spec[_REST:] != _PLAIN:
        own = ((column, getattr(spec, field)) for field, column in _OWN.items())
        row.update((column, value) for column, value in own if value is not None)
        if spec.run_at is not None:
            del row["delay"]
    if KEY_OPTION in spec.options:
        row["equal_key"] = spec.options[KEY_OPTION]
    if spec.id in numbers:
        row["claim_no"] = numbers[spec.id]
    return row

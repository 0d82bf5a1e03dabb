"""The INSERT of new jobs, one or many in one statement (web and daemon)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Connection, CursorResult, Double, Integer
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

_SELDOM: Final = ("run_at", "delay", "userdata", "schedule_id", "fire_at", "waiting_key")
"""The fields that few jobs have, and their columns; each has an id and a payload."""

_OWN: Final = ("id", "payload", "userdata", "schedule_id", "fire_at", "waiting_key", "equal_key")
_ALL: Final = frozenset((*_KIND.values(), *_OWN, *_SELDOM, "claim_no"))

_PASSING: Final = {False: "", True: " ON CONFLICT DO NOTHING RETURNING id"}
"""Whether a job is passed over whose id or key is taken, and how that is said."""

_FIRST, _OPTIONS, _REST = (JobSpec._fields.index(name) for name in ("func", "options", "run_at"))
_PLAIN: Final = tuple(JobSpec._field_defaults[name] for name in JobSpec._fields[_REST:])


class _Part(NamedTuple):
    """What one statement takes: what each job has for itself, and what they have in common."""

    rows: list[dict[str, Any]]
    kinds: list[dict[str, Any]]


class JobInsert:
    """Writes new jobs. What many have in common is said once, and joined by the database."""

    def __init__(self, database: Database) -> None:
        self._db = database
        selected = self._values(_of_documents, _ALL)
        many = (
            f"{self._into(selected)} SELECT {', '.join(selected.values())} FROM {self._documents()}"
        )
        self._many = {new: PlainStatement(f"{many} WHERE true{_PASSING[new]}") for new in _PASSING}
        self._one: dict[bool, dict[tuple[str, ...], PlainStatement]] = {new: {} for new in _PASSING}

    def _into(self, values: Mapping[str, str]) -> str:
        return f"INSERT INTO {self._db.tables.job.fullname} ({', '.join(values)})"

    def _of_one(self, given: Collection[str], *, new: bool) -> PlainStatement:
        """The INSERT of a job that has these columns. Most jobs have few of them, and to tell the
        database of the others that they are empty would take the driver as long again."""
        key = tuple(given)
        kept = self._one[new].get(key)
        if kept is None:
            values = self._values(":{0}".format, given)
            one = f"{self._into(values)} VALUES ({', '.join(values.values())}){_PASSING[new]}"
            kept = self._one[new][key] = PlainStatement(one)
        return kept

    def _values(self, value: Callable[[str], str], given: Collection[str]) -> dict[str, str]:
        """What is put into each column: a value that comes with the statement, or its clock."""
        dialect = self._db.dialect
        due = dialect.now_sql
        if "delay" in given:
            due = dialect.after_sql.format(seconds=f"COALESCE({value('delay')}, 0)")
        if "run_at" in given:
            due = f"COALESCE({value('run_at')}, {due})"
        values = {name: value(name) for name in (*_OWN, *_KIND.values()) if name in given}
        if "schedule_id" in given:
            values["overlap_key"] = value("schedule_id")
        return values | {
            "run_at": due,
            "due_at": due,
            "created_at": dialect.now_sql,
            "state": f"'{SCHEDULED}'",
            "attempt": "0",
            "crashes": "0",
            "claim_no": f"COALESCE({value('claim_no')}, 0)" if "claim_no" in given else "0",
        }

    def _documents(self) -> str:
        dialect, c = self._db.dialect, self._db.tables.job.c
        own = [c[name] for name in (*_OWN, "run_at", "claim_no")]
        own += [Column("delay", Double), Column("kind_no", Integer)]
        kinds = [Column("no", Integer), *(c[name] for name in _KIND.values())]
        rows = dialect.table_of_rows(own)
        # From the left, so that the jobs are stored in the order in which they were asked for.
        return f"{rows} LEFT JOIN {dialect.table_of_rows(kinds, 'k', 'kinds')} ON k.no = v.kind_no"

    def all(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Insert jobs that nothing can refuse."""
        for part in _parts(specs, NO_NUMBERS):
            self._insert(connection, part, new=False)

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
        if self._db.dialect.update_returning:
            return list(self._insert(connection, part, new=True).scalars())
        try:
            with connection.begin_nested():
                self._insert(connection, part, new=False)
        except IntegrityError:
            if len(part.rows) == 1:
                return []
            # IGNORE would hide other errors too, and cut texts that are too long.
            alone = (_Part([row], [part.kinds[row["kind_no"]]]) for row in part.rows)
            return [id for one in alone for id in self._new_of(connection, one)]
        return [row["id"] for row in part.rows]

    def _insert(self, connection: Connection, part: _Part, *, new: bool) -> CursorResult[Any]:
        """Insert a part; one job needs no documents, which cost the database more than the row."""
        dialect, rows, kinds = self._db.dialect, *part
        more: dict[str, Any] = {}
        if dialect.local_clock:
            now = utcnow()
            more["now"] = dialect.moment(now)
            for row in rows:
                if "delay" in row:
                    row["run_at"] = now + timedelta(seconds=row["delay"])
        if len(rows) > 1:
            documents = {"rows": dialect.dump(rows), "kinds": dialect.dump(kinds)}
            return self._many[new].execute(connection, documents | more)
        values = kinds[0] | rows[0]
        for name in ("run_at", "fire_at"):
            if name in values:
                values[name] = dialect.moment(values[name])
        return self._of_one(values, new=new).execute(connection, values | more)


def _parts(specs: Sequence[JobSpec], numbers: Mapping[str, int]) -> Iterator[_Part]:
    """Divide new jobs into what one statement takes; most often that is all of them."""
    part, size = _Part([], []), 0
    known: dict[Any, int] = {}
    for spec in specs:
        # Jobs that were made together have the same options, and not only equal ones.
        options = spec[_OPTIONS]
        kind = (*spec[_FIRST:_OPTIONS], id(options) if options else None)
        size += len(spec.payload) + len(spec.userdata or "")
        number = known.get(kind)
        if part.rows and (size > LARGEST_TEXT or (number is None and len(known) == MOST_KINDS)):
            yield part
            part, known, size = _Part([], []), {}, len(spec.payload)
            number = None
        if number is None:
            number = known[kind] = len(known)
            part.kinds.append(_kind(spec, number))
        part.rows.append(_row(spec, number, numbers))
    if part.rows:
        yield part


def _kind(spec: JobSpec, number: int) -> dict[str, Any]:
    found = {column: getattr(spec, field) for field, column in _KIND.items()}
    found["options"] = dump_options(spec.options)
    return {"no": number} | {name: one for name, one in found.items() if one is not None}


def _row(spec: JobSpec, kind: int, numbers: Mapping[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": spec.id, "payload": spec.payload, "kind_no": kind}
    if spec[_REST:] != _PLAIN:
        own = ((name, getattr(spec, name)) for name in _SELDOM)
        row.update((name, value) for name, value in own if value is not None)
        if spec.run_at is not None:
            del row["delay"]
    if KEY_OPTION in spec.options:
        row["equal_key"] = spec.options[KEY_OPTION]
    if spec.id in numbers:
        row["claim_no"] = numbers[spec.id]
    return row


def _of_documents(name: str) -> str:
    """A column of the documents that _documents describes."""
    return f"k.{name}" if name in _KIND.values() else f"v.{name}"

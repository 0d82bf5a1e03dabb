"""The INSERT of new jobs, one or many in one statement (web and daemon)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Column, Connection, CursorResult, Double
from sqlalchemy.exc import IntegrityError

from ..behaviors import KEY_OPTION
from ..records import SCHEDULED, JobSpec
from ..times import utcnow
from .database import Database
from .plain import PlainStatement
from .rows import CLAIM_NAMES, dump_options

LARGEST_TEXT: Final = 4_000_000
"""Characters in one statement, unless one job alone has more: MariaDB closes the connection on a
packet of more than 16 MB."""

BESIDE: Final = 500
"""Characters that a job brings beside its texts: few have as many."""

ESCAPED: Final = 14
"""Characters that one of a name can become on the way to MariaDB: two escapes, their backslashes
doubled. The other texts are ASCII mostly."""

MOST_STATEMENTS: Final = 200
"""Statements that are kept. An application's jobs come in some tens of forms; whoever makes up more
of them does not fill the memory."""

NO_NUMBERS: Final[Mapping[str, int]] = MappingProxyType({})

_FIELDS: Final = JobSpec._fields[: JobSpec._fields.index("chosen_id")]
_BROUGHT: Final = tuple(CLAIM_NAMES.get(name, name) for name in _FIELDS)
"""What jobs bring: columns of their rows, and for how long they wait."""

_MOMENTS: Final = ("run_at", "fire_at")

_PASSING: Final = {False: "", True: " ON CONFLICT DO NOTHING RETURNING id"}
"""Whether a job is passed over whose id or key is taken, and how that is said."""


class JobInsert:
    """Writes new jobs: what they have in common is said once, the rest in lists.

    What none of them has is not said: that would take the driver as long again. Most have few of
    the columns.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        columns = (*database.tables.job.c, Column("delay", Double))
        self._columns = {column.name: column for column in columns}
        self._statements: dict[Any, PlainStatement] = {}

    def _statement(
        self, shared: Collection[str], own: Collection[str], *, new: bool
    ) -> PlainStatement:
        """The INSERT of jobs that share some columns, and have others each for itself.

        A job by itself needs no lists, which cost the database more than the row.
        """
        key = (*shared, None, *own, new)  # None stands between the two
        kept = self._statements.get(key)
        if kept is None:
            if len(self._statements) >= MOST_STATEMENTS:
                self._statements.clear()
            given = {name: f":{name}" for name in shared} | {name: f"v.{name}" for name in own}
            values = self._values(given)
            into = f"INSERT INTO {self._db.tables.job.fullname} ({', '.join(values)})"
            source = f"VALUES ({', '.join(values.values())})"
            if own:
                lists = self._db.dialect.table_of_lists([self._columns[name] for name in own])
                source = f"SELECT {', '.join(values.values())} FROM {lists} WHERE true"
            kept = self._statements[key] = PlainStatement(f"{into} {source}{_PASSING[new]}")
        return kept

    def _values(self, given: Mapping[str, str]) -> dict[str, str]:
        """What is put into each column: a value that comes with the statement, or its clock."""
        dialect = self._db.dialect
        due = dialect.now_sql
        if "delay" in given:
            due = dialect.after_sql.format(seconds=given["delay"])
        if "run_at" in given:
            due = f"COALESCE({given['run_at']}, {due})"
        values = {name: value for name, value in given.items() if name != "delay"}
        if "schedule_id" in given:
            values["overlap_key"] = given["schedule_id"]
        return values | {
            "run_at": due,
            "due_at": due,
            "created_at": dialect.now_sql,
            "state": f"'{SCHEDULED}'",
            "attempt": "0",
            "crashes": "0",
            "claim_no": given.get("claim_no", "0"),
        }

    def all(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Insert jobs that nothing can refuse."""
        for part in _parts(specs):
            self._insert(connection, part, NO_NUMBERS, new=False)

    def new(
        self,
        connection: Connection,
        specs: Sequence[JobSpec],
        numbers: Mapping[str, int] = NO_NUMBERS,
    ) -> list[str]:
        """Insert jobs but for those whose id or key is taken; returns the ids of the others.

        ``numbers`` are the last claims of those that they replace.
        """
        return [id for part in _parts(specs) for id in self._new_of(connection, part, numbers)]

    def _new_of(
        self, connection: Connection, specs: Sequence[JobSpec], numbers: Mapping[str, int]
    ) -> list[str]:
        if self._db.dialect.update_returning:
            return list(self._insert(connection, specs, numbers, new=True).scalars())
        try:
            with connection.begin_nested():
                self._insert(connection, specs, numbers, new=False)
        except IntegrityError:
            if len(specs) == 1:
                return []
            # IGNORE would hide other errors too, and cut texts that are too long.
            return [id for spec in specs for id in self._new_of(connection, [spec], numbers)]
        return [spec.id for spec in specs]

    def _insert(
        self,
        connection: Connection,
        specs: Sequence[JobSpec],
        numbers: Mapping[str, int],
        *,
        new: bool,
    ) -> CursorResult[Any]:
        dialect = self._db.dialect
        more: dict[str, Any] = {}
        if dialect.local_clock:
            now = utcnow()
            more["now"] = dialect.moment(now)
            specs = [_after(now, spec) if spec.delay else spec for spec in specs]
        shared, own = _divide(specs, numbers)
        for name in _MOMENTS:
            if name in shared:
                shared[name] = dialect.moment(shared[name])
        if own:
            more |= dialect.lists(own)
        return self._statement(shared, own, new=new).execute(connection, shared | more)


def _parts(specs: Sequence[JobSpec]) -> Iterator[Sequence[JobSpec]]:
    """Divide new jobs into what one statement takes; most often that is all of them."""
    part: list[JobSpec] = []
    size = 0
    for spec in specs:
        takes = len(spec.payload) + BESIDE
        if spec.name or spec.group or spec.userdata or spec.options:
            takes += _size_of_more(spec)
        size += takes
        if part and size > LARGEST_TEXT:
            yield part
            part, size = [], takes
        part.append(spec)
    if part:
        yield part


def _size_of_more(spec: JobSpec) -> int:
    """The characters of the texts that few jobs have."""
    names = len(spec.name or "") + len(spec.group or "")
    options = sum(len(str(value)) for value in spec.options.values())
    return ESCAPED * names + len(spec.userdata or "") + options


def _after(now: datetime, spec: JobSpec) -> JobSpec:
    at = spec.run_at or now + timedelta(seconds=spec.delay)
    return spec._replace(run_at=at, delay=0.0)


def _divide(
    specs: Sequence[JobSpec], numbers: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """What all jobs have in common, and what each has for itself, column by column."""
    shared: dict[str, Any] = dict(zip(_BROUGHT, specs[0], strict=False))
    own: dict[str, Sequence[Any]] = {}
    if len(specs) > 1:
        for name, values in zip(_BROUGHT, zip(*specs, strict=True), strict=False):
            if name == "id" or values.count(values[0]) < len(values):
                own[name] = values
                del shared[name]
    if numbers:
        own["claim_no"] = [numbers.get(spec.id, 0) for spec in specs]
    if options := shared.pop("options", None):
        shared["options"] = dump_options(options)
        shared["equal_key"] = options.get(KEY_OPTION)
    elif "options" in own:
        own |= _of_options(own["options"])
    if not shared.get("delay"):
        shared.pop("delay", None)
    return {name: value for name, value in shared.items() if value is not None}, own


def _of_options(options: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    # Jobs of one function have the same ones, which are written once.
    known = {id(one): one for one in options}
    texts = {number: dump_options(one) for number, one in known.items()}
    columns: dict[str, Sequence[Any]] = {"options": [texts[id(one)] for one in options]}
    keys = [one.get(KEY_OPTION) for one in options]
    return columns | {"equal_key": keys} if any(keys) else columns

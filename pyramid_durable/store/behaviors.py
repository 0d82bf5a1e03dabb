"""What behaviors do when jobs are added: refuse them, or cancel equal ones that wait (both)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, text, update

from ..behaviors import BINDS_SUCCESS, BINDS_WAITING, KEY_OPTION, LAST_ONLY
from ..exceptions import DuplicateJob
from ..records import CANCELLED, RUNNING, SCHEDULED, JobSpec
from .database import Database
from .rows import ended_values, with_reason


def once_name(key: str) -> str:
    """The holder's row that tells who runs, or has succeeded, under a ``RUN_ONCE`` key."""
    return f"once {key}"


def last_name(key: str) -> str:
    """The holder's row that tells the newest job of a ``LAST_ONLY`` key."""
    return f"last {key}"


class Behaviors:
    """Compares jobs that are to be added with those that are there.

    Jobs with a key are compared: those with a comparing behavior, and those of a group. Jobs that
    other transactions are adding at this moment are not seen by these questions: equal ones of
    ``SCHEDULE_ONCE`` meet in the unique index, those of ``LAST_ONLY`` at their holder's row, those
    of ``RUN_ONCE`` when they are claimed.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._job = database.tables.job
        self._holder = database.tables.holder
        holder = self._holder.fullname
        rows = database.dialect.table_of_rows([self._holder.c.name, self._holder.c.job_id])
        insert = f"INSERT INTO {holder} (name, job_id) SELECT v.name, v.job_id FROM {rows}"
        # A row that is there is locked and stays as it is. (MariaDB: a plain insert would take a
        # shared lock, and two who wait for it would then be in each other's way.)
        if database.dialect.update_returning:
            self._hold = text(
                f"{insert} WHERE true ON CONFLICT (name) DO UPDATE SET job_id = {holder}.job_id "
                "RETURNING name, job_id"
            )
        else:
            self._hold = text(f"{insert} ON DUPLICATE KEY UPDATE job_id = {holder}.job_id")

    def check(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Raise DuplicateJob where a behavior refuses one of these, given in their order."""
        living = self._living(connection, specs)
        succeeded = self._succeeded(connection, specs)
        for spec in specs:
            key, behavior = spec.options.get(KEY_OPTION), spec.options.get("behavior")
            if key is None:
                continue
            if behavior in BINDS_SUCCESS and key in succeeded:
                raise DuplicateJob(
                    f"an equal job has succeeded already: {succeeded[key]}; its behavior "
                    f"{behavior} lets it do so once",
                    succeeded[key],
                )
            if behavior in BINDS_WAITING and key in living:
                raise waits_already(living[key])
            living.setdefault(key, spec.id)

    def _living(self, connection: Connection, specs: Sequence[JobSpec]) -> dict[str, str]:
        """Equal jobs that have not ended, by key, but for those that are to be replaced."""
        keys = _keys_of(specs, BINDS_WAITING)
        if not keys:
            return {}
        c = self._job.c
        question = (
            select(c.equal_key, func.min(c.id))
            .where(c.equal_key.in_(keys), c.state.in_([SCHEDULED, RUNNING]))
            .group_by(c.equal_key)
        )
        replaced = [spec.id for spec in specs if spec.replace_existing]
        if replaced:
            question = question.where((c.state == RUNNING) | c.id.not_in(replaced))
        return {row[0]: row[1] for row in connection.execute(question)}

    def _succeeded(self, connection: Connection, specs: Sequence[JobSpec]) -> dict[str, str]:
        names = {once_name(key): key for key in _keys_of(specs, BINDS_SUCCESS)}
        if not names:
            return {}
        c = self._holder.c
        question = select(c.name, c.job_id).where(c.name.in_(names), c.succeeded_at.is_not(None))
        return {names[name]: id for name, id in connection.execute(question)}

    def queue_up(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Let adders of jobs with one ``SCHEDULE_ONCE`` key pass one after the other.

        The unique index does as much. But on MariaDB who waits there locks a stretch of it, and two
        that add several keys are easily in each other's way.
        """
        asked = {f"wait {spec.waiting_key}": spec.id for spec in specs if spec.waiting_key}
        if asked:
            connection.execute(self._hold, self._rows(asked))
            self.check(connection, specs)

    def _rows(self, asked: Mapping[str, str]) -> dict[str, str]:
        # In one order, so that two batches never wait for each other.
        rows = [{"name": name, "job_id": asked[name]} for name in sorted(asked)]
        return {"rows": self._db.dialect.document(rows)}

    def make_last(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Cancel the equal jobs that wait for those with ``LAST_ONLY``.

        Adders of equal ones pass here one after the other, each until its transaction has ended.
        """
        newest = _newest(specs)
        if not newest:
            return
        before = self._take_over(connection, newest)
        c = self._job.c
        equal = select(c.id).where(c.equal_key.in_(newest), c.state == SCHEDULED)
        ids = set(connection.execute(equal).scalars())
        unseen = set(before) - ids
        if unseen:
            # Ended, running, gone, or (at MariaDB's own isolation level) too new to be seen.
            known = select(c.id).where(c.id.in_(unseen))
            ids |= unseen - set(connection.execute(known).scalars())
        if not ids:
            return
        # One that is being claimed at this moment runs. To wait for it would, on PostgreSQL, leave
        # its row locked to the end of this transaction, and the job could not end before.
        question = (
            select(c.id, c.equal_key, c.errors)
            .where(c.id.in_(ids), c.state == SCHEDULED, c.equal_key.in_(newest))
            .order_by(c.id)
            .with_for_update(skip_locked=self._db.dialect.locks_exactly)
        )
        question = self._db.dialect.by_primary_key(question, self._job)
        rows = connection.execute(question).all()
        self._cancel(connection, [(row.id, newest[row.equal_key], row.errors) for row in rows])

    def settle_batch(self, connection: Connection, specs: Sequence[JobSpec]) -> None:
        """Cancel those of a batch that was just added for which a later one of it came."""
        newest = _newest(specs)
        passed: list[tuple[str, str, str | None]] = []
        for spec in specs:
            last = newest.get(spec.options.get(KEY_OPTION, ""))
            if last == spec.id:
                del newest[spec.options[KEY_OPTION]]
            elif last is not None:
                passed.append((spec.id, last, None))
        self._cancel(connection, passed)

    def _take_over(self, connection: Connection, newest: Mapping[str, str]) -> Collection[str]:
        """Make these the newest of their keys; returns the ids of those that were."""
        asked = {last_name(key): id for key, id in newest.items()}
        found: Iterable[Any] = connection.execute(self._hold, self._rows(asked))
        c = self._holder.c
        if not self._db.dialect.update_returning:
            question = select(c.name, c.job_id).where(c.name.in_(asked)).with_for_update()
            found = connection.execute(self._db.dialect.by_primary_key(question, self._holder))
        before = {name: id for name, id in found if asked[name] != id}
        if before:
            statement = update(self._holder).where(c.name == bindparam("known"))
            changes = [{"known": name, "newest": asked[name]} for name in before]
            connection.execute(statement.values(job_id=bindparam("newest")), changes)
        return before.values()

    def _cancel(
        self, connection: Connection, passed: Sequence[tuple[str, str, str | None]]
    ) -> None:
        """Cancel jobs, given with the newer one and their errors; one that runs by now does."""
        if not passed:
            return
        c = self._job.c
        statement = update(self._job).where(c.id == bindparam("known"), c.state == SCHEDULED)
        values = ended_values(CANCELLED, self._db.soon()) | {"errors": bindparam("said")}
        changes = [
            {"known": id, "said": with_reason(errors, f"an equal job was asked for later: {newer}")}
            for id, newer, errors in passed
        ]
        connection.execute(statement.values(values), changes)
        paused = self._db.tables.pause.c.job_id.in_([id for id, _, _ in passed])
        connection.execute(delete(self._db.tables.pause).where(paused))


def waits_already(id: str) -> DuplicateJob:
    """The error of a job that is refused because this one waits."""
    return DuplicateJob(f"an equal job waits already: {id}; its behavior allows one at a time", id)


def _keys_of(specs: Iterable[JobSpec], behaviors: Collection[str]) -> list[str]:
    found = (spec for spec in specs if spec.options.get("behavior") in behaviors)
    return sorted({spec.options[KEY_OPTION] for spec in found if KEY_OPTION in spec.options})


def _newest(specs: Iterable[JobSpec]) -> dict[str, str]:
    """The last job with ``LAST_ONLY`` of each key."""
    return {
        spec.options[KEY_OPTION]: spec.id
        for spec in specs
        if spec.options.get("behavior") == LAST_ONLY and KEY_OPTION in spec.options
    }

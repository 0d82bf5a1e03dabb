"""The store's tables as SQLAlchemy Core sees them (web and daemon); migrations/ creates them.

Two columns exist for the indexes alone, on databases that have no partial ones: ``due_at`` is set
only while a job can be claimed, ``overlap_key`` only while a schedule's job has not ended. What a
claim looks at therefore never grows with the number of jobs that are running or over. In the same
way ``waiting_key`` and ``equal_key`` are set only while a job has not ended. A job that is
``scheduled`` without ``due_at`` is paused; the pause table remembers when it was due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, Column, Double, Index, Integer, MetaData, SmallInteger, Table

from .types import UtcDateTime, key, long_text

ID_LENGTH = 120
"""Of job and schedule ids: ours take 36, the rest is room for ids that applications choose."""

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables of one store; another application in the same database has another prefix."""

    metadata: MetaData
    job: Table
    schedule: Table
    daemon: Table
    generation: Table
    queue: Table
    progress: Table
    cancel: Table
    holder: Table
    pause: Table
    meta: Table

    @property
    def beside(self) -> tuple[Table, ...]:
        """What is kept of single jobs in rows of their own, and goes with them."""
        return self.progress, self.cancel, self.pause


def split_prefix(prefix: str) -> tuple[str | None, str]:
    """``"durable_"`` is a table prefix, ``"jobs.durable_"`` names a database schema as well."""
    schema, _, name = prefix.rpartition(".")
    return schema or None, name


def make_tables(prefix: str) -> Tables:
    """Describe the tables under this prefix."""
    schema, prefix = split_prefix(prefix)
    metadata = MetaData(schema=schema)
    return Tables(
        metadata=metadata,
        job=_job(metadata, prefix),
        schedule=_schedule(metadata, prefix),
        daemon=_daemon(metadata, prefix),
        generation=Table(
            f"{prefix}generation",
            metadata,
            Column("digest", key(64), primary_key=True),
            Column("number", Integer, nullable=False),
            Column("since", UtcDateTime, nullable=False),
            **TABLE_OPTIONS,
        ),
        queue=Table(
            f"{prefix}queue",
            metadata,
            Column("name", key(80), primary_key=True),
            Column("paused", Boolean, nullable=False),
            **TABLE_OPTIONS,
        ),
        progress=Table(
            f"{prefix}progress",
            metadata,
            Column("job_id", key(ID_LENGTH), primary_key=True),
            Column("done", Double, nullable=False),
            Column("total", Double),
            Column("message", long_text(), nullable=False),
            **TABLE_OPTIONS,
        ),
        cancel=_cancel(metadata, prefix),
        pause=Table(
            f"{prefix}pause",
            metadata,
            Column("job_id", key(ID_LENGTH), primary_key=True),
            Column("due_at", UtcDateTime, nullable=False),
            **TABLE_OPTIONS,
        ),
        # Who counts for a uniqueness key. A row with succeeded_at outlives its job for good.
        holder=Table(
            f"{prefix}holder",
            metadata,
            Column("name", key(80), primary_key=True),
            Column("job_id", key(ID_LENGTH), nullable=False),
            Column("succeeded_at", UtcDateTime),
            **TABLE_OPTIONS,
        ),
        meta=Table(
            f"{prefix}meta",
            metadata,
            Column("name", key(40), primary_key=True),
            Column("value", long_text(), nullable=False),
            **TABLE_OPTIONS,
        ),
    )


def _work() -> list[Column[Any]]:
    """The columns that say what to run: of a job, and of the jobs a schedule will make."""
    return [
        Column("name", key(255)),
        Column("func", key(255), nullable=False),
        Column("payload", long_text(), nullable=False),
        Column("codec", key(255), nullable=False),
        Column("queue", key(80), nullable=False),
        Column("priority", SmallInteger, nullable=False),
        Column("max_attempts", Integer),
        Column("group_name", key(255)),
        Column("options", long_text()),
        Column("userdata", long_text()),
    ]


def _job(metadata: MetaData, prefix: str) -> Table:
    table = Table(
        f"{prefix}job",
        metadata,
        Column("id", key(ID_LENGTH), primary_key=True),
        Column("kind", key(10), nullable=False),
        Column("state", key(10), nullable=False),
        *_work(),
        Column("run_at", UtcDateTime, nullable=False),
        Column("due_at", UtcDateTime),
        Column("created_at", UtcDateTime, nullable=False),
        Column("started_at", UtcDateTime),
        Column("finished_at", UtcDateTime),
        Column("attempt", Integer, nullable=False),
        Column("crashes", Integer, nullable=False),
        Column("owner", key(36)),
        Column("claim_no", Integer, nullable=False),
        Column("schedule_id", key(ID_LENGTH)),
        Column("fire_at", UtcDateTime),
        Column("overlap_key", key(ID_LENGTH)),
        Column("waiting_key", key(64)),
        Column("equal_key", key(64)),
        Column("result", long_text()),
        Column("errors", long_text()),
        **TABLE_OPTIONS,
    )
    c = table.c
    _partial(f"ix_{prefix}job_due", c.queue, c.priority, c.due_at, only=c.due_at)
    _partial(f"ix_{prefix}job_owner", c.owner, only=c.owner)
    # The queue is there for stats alone: they count ended jobs without a look at the rows.
    _partial(f"ix_{prefix}job_ended", c.state, c.finished_at, c.queue, only=c.finished_at)
    _partial(f"ix_{prefix}job_overlap", c.overlap_key, only=c.overlap_key)
    _partial(f"uq_{prefix}job_fire", c.schedule_id, c.fire_at, only=c.fire_at, unique=True)
    _partial(f"uq_{prefix}job_waiting", c.waiting_key, only=c.waiting_key, unique=True)
    _partial(f"ix_{prefix}job_equal", c.equal_key, only=c.equal_key)
    return table


def _partial(name: str, *columns: Column[Any], only: Column[Any], unique: bool = False) -> None:
    """An index over the rows where ``only`` is set; over all of them where none is partial."""
    Index(
        name,
        *columns,
        unique=unique,
        postgresql_where=only.is_not(None),
        sqlite_where=only.is_not(None),
    )


def _schedule(metadata: MetaData, prefix: str) -> Table:
    table = Table(
        f"{prefix}schedule",
        metadata,
        Column("id", key(ID_LENGTH), primary_key=True),
        Column("kind", key(10), nullable=False),
        *_work(),
        Column("trigger_json", long_text(), nullable=False),
        Column("timezone", key(60), nullable=False),
        Column("next_run_at", UtcDateTime),
        Column("due_at", UtcDateTime),
        Column("last_run_at", UtcDateTime),
        Column("start_date", UtcDateTime),
        Column("end_date", UtcDateTime),
        Column("iterations_left", Integer),
        Column("coalesce_missed", Boolean, nullable=False),
        Column("max_instances", Integer),
        Column("paused", Boolean, nullable=False),
        Column("declared", Boolean, nullable=False),
        Column("generation", Integer, nullable=False),
        Column("declaration", long_text()),
        Column("created_at", UtcDateTime, nullable=False),
        Column("error", long_text()),
        Column("account_id", key(ID_LENGTH)),
        **TABLE_OPTIONS,
    )
    _partial(f"ix_{prefix}schedule_due", table.c.due_at, only=table.c.due_at)
    return table


def _cancel(metadata: MetaData, prefix: str) -> Table:
    """Requests to stop; where ``remove_at`` is set, the job's row is to go when it has ended."""
    table = Table(
        f"{prefix}cancel",
        metadata,
        Column("job_id", key(ID_LENGTH), primary_key=True),
        Column("requested_at", UtcDateTime, nullable=False),
        Column("remove_at", UtcDateTime),
        **TABLE_OPTIONS,
    )
    _partial(f"ix_{prefix}cancel_remove", table.c.remove_at, only=table.c.remove_at)
    return table


def _daemon(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}daemon",
        metadata,
        Column("incarnation", key(36), primary_key=True),
        Column("label", key(255), nullable=False),
        Column("host", key(255), nullable=False),
        Column("pid", Integer, nullable=False),
        Column("queues", long_text(), nullable=False),
        Column("declares", key(64)),
        Column("started_at", UtcDateTime, nullable=False),
        Column("heartbeat_at", UtcDateTime, nullable=False),
        **TABLE_OPTIONS,
    )

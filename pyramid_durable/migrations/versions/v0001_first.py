"""The first tables: jobs, schedules, daemons, generations, queues, and what stands beside jobs.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from pyramid_durable.store.types import UtcDateTime, key, long_text

revision = "0001"
down_revision = None

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}

INDEXES = (
    ("ix", "job", "due", ["queue", "priority", "due_at"], "due_at"),
    ("ix", "job", "owner", ["owner"], "owner"),
    ("ix", "job", "ended", ["state", "finished_at", "queue"], "finished_at"),
    ("ix", "job", "overlap", ["overlap_key"], "overlap_key"),
    ("uq", "job", "fire", ["schedule_id", "fire_at"], "fire_at"),
    ("uq", "job", "waiting", ["waiting_key"], "waiting_key"),
    ("ix", "job", "equal", ["equal_key"], "equal_key"),
    ("ix", "schedule", "due", ["due_at"], "due_at"),
    ("ix", "cancel", "remove", ["remove_at"], "remove_at"),
)


def _options() -> tuple[str, str | None]:
    options = op.get_context().opts
    return options.get("durable_prefix", "durable_"), options.get("durable_schema")


def _create(name: str, *columns: Any) -> None:
    prefix, schema = _options()
    op.create_table(f"{prefix}{name}", *columns, schema=schema, **TABLE_OPTIONS)


def _work() -> list[sa.Column[Any]]:
    return [
        sa.Column("name", key(255)),
        sa.Column("func", key(255), nullable=False),
        sa.Column("payload", long_text(), nullable=False),
        sa.Column("codec", key(255), nullable=False),
        sa.Column("queue", key(80), nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("group_name", key(255)),
        sa.Column("options", long_text()),
        sa.Column("userdata", long_text()),
    ]


def upgrade() -> None:
    _create(
        "job",
        sa.Column("id", key(120), primary_key=True),
        sa.Column("kind", key(10), nullable=False),
        sa.Column("state", key(10), nullable=False),
        *_work(),
        sa.Column("run_at", UtcDateTime, nullable=False),
        sa.Column("due_at", UtcDateTime),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("owner", key(36)),
        sa.Column("claim_no", sa.Integer, nullable=False),
        sa.Column("schedule_id", key(120)),
        sa.Column("fire_at", UtcDateTime),
        sa.Column("overlap_key", key(120)),
        sa.Column("waiting_key", key(64)),
        sa.Column("equal_key", key(64)),
        sa.Column("result", long_text()),
        sa.Column("errors", long_text()),
    )
    _create(
        "schedule",
        sa.Column("id", key(120), primary_key=True),
        sa.Column("kind", key(10), nullable=False),
        *_work(),
        sa.Column("trigger_json", long_text(), nullable=False),
        sa.Column("timezone", key(60), nullable=False),
        sa.Column("next_run_at", UtcDateTime),
        sa.Column("due_at", UtcDateTime),
        sa.Column("last_run_at", UtcDateTime),
        sa.Column("start_date", UtcDateTime),
        sa.Column("end_date", UtcDateTime),
        sa.Column("iterations_left", sa.Integer),
        sa.Column("coalesce_missed", sa.Boolean, nullable=False),
        sa.Column("max_instances", sa.Integer),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("declared", sa.Boolean, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("declaration", long_text()),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("error", long_text()),
        sa.Column("account_id", key(120)),
    )
    _create(
        "daemon",
        sa.Column("incarnation", key(36), primary_key=True),
        sa.Column("label", key(255), nullable=False),
        sa.Column("host", key(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", long_text(), nullable=False),
        sa.Column("declares", key(64)),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("heartbeat_at", UtcDateTime, nullable=False),
    )
    _create(
        "generation",
        sa.Column("digest", key(64), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
    )
    _create(
        "queue",
        sa.Column("name", key(80), primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False),
    )
    _create(
        "progress",
        sa.Column("job_id", key(120), primary_key=True),
        sa.Column("done", sa.Double, nullable=False),
        sa.Column("total", sa.Double),
        sa.Column("message", long_text(), nullable=False),
    )
    _create(
        "cancel",
        sa.Column("job_id", key(120), primary_key=True),
        sa.Column("requested_at", UtcDateTime, nullable=False),
        sa.Column("remove_at", UtcDateTime),
    )
    _create(
        "pause",
        sa.Column("job_id", key(120), primary_key=True),
        sa.Column("due_at", UtcDateTime, nullable=False),
    )
    _create(
        "holder",
        sa.Column("name", key(80), primary_key=True),
        sa.Column("job_id", key(120), nullable=False),
        sa.Column("succeeded_at", UtcDateTime),
    )
    _create(
        "meta",
        sa.Column("name", key(40), primary_key=True),
        sa.Column("value", long_text(), nullable=False),
    )
    _create_indexes()


def _create_indexes() -> None:
    prefix, schema = _options()
    for kind, table, name, columns, only in INDEXES:
        where = sa.text(f"{only} IS NOT NULL")
        op.create_index(
            f"{kind}_{prefix}{table}_{name}",
            f"{prefix}{table}",
            columns,
            unique=kind == "uq",
            schema=schema,
            postgresql_where=where,
            sqlite_where=where,
        )


def downgrade() -> None:
    prefix, schema = _options()
    beside = ("holder", "pause", "cancel", "progress")
    for name in ("meta", *beside, "queue", "generation", "daemon", "schedule", "job"):
        op.drop_table(f"{prefix}{name}", schema=schema)

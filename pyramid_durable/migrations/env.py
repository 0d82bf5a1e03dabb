"""Alembic's environment: the connection, prefix and schema come from store/migrate.py.

An application that keeps the tables in its own Alembic history adds this package's ``versions``
folder to its ``version_locations`` and passes ``durable_prefix`` to ``context.configure``.
"""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
prefix = attributes["prefix"]
schema = attributes["schema"]

context.configure(
    connection=attributes["connection"],
    version_table=f"{prefix}alembic_version",
    version_table_schema=schema,
    durable_prefix=prefix,
    durable_schema=schema,
)
context.run_migrations()

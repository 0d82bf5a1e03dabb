"""PgQueuer."""

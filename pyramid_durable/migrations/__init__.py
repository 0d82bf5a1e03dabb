"""The store's Alembic migrations; run by ``pscheduler --migrate`` (see store/migrate.py)."""

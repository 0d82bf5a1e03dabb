"""APScheduler 3 with its SQLAlchemy job store."""

"""The one error tree (web and daemon): every error of the package is a DurableError."""

from __future__ import annotations


class DurableError(Exception):
    """Base of all errors raised by pyramid_durable."""


class InvalidJob(DurableError, ValueError):
    """Raised when a job, a schedule or one of its arguments cannot be stored or run as asked."""


class InvalidQueue(DurableError, ValueError):
    """Raised when a queue is named that is not among the configured ones."""


class InvalidSetting(DurableError, ValueError):
    """Raised when a ``scheduler.`` setting is unknown or its value cannot be read."""


class DuplicateJob(DurableError, ValueError):
    """Raised when the id exists already, or the behavior refuses an equal job.

    ``id`` is the id (or uniqueness key) that is taken.
    """

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class BrokenJob(DurableError):
    """Raised when a stored job cannot be called: unreadable arguments, a failing constructor."""


class UnknownFunction(BrokenJob):
    """Raised when a stored job names a function this process cannot find or may not run."""


class JobTimeout(DurableError):
    """Raised in a job that has run longer than its ``timeout``; an attempt like any that fails."""


class LostClaim(DurableError):
    """Raised when a write about a claimed job matched nothing: another daemon has the job now."""


class RemoteError(DurableError):
    """Stands for what a job raised in another process; its text is what was raised there.

    ``reason`` says it as events do.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class StoreUnavailable(DurableError):
    """Raised when the store's database cannot be reached or refuses to work."""


class StoreBusy(StoreUnavailable):
    """Raised when another transaction has held an id, or the key of an equal job, for too long."""


class SchemaMismatch(StoreUnavailable):
    """Raised when the store's tables are missing or are not at the version this code expects."""


class BrokerUnavailable(DurableError):
    """Raised when the broker cannot be reached within its deadline."""


class InvalidCommand(DurableError, ValueError):
    """Raised when a message is not a command: wrong shape, wrong version, wrong signature."""

"""Imports what is declared elsewhere, as applications do."""

from tests.unit.sample_jobs import LateFee, mail, nightly, poll

__all__ = ["LateFee", "mail", "nightly", "poll"]

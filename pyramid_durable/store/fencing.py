"""The fence: what a claimant changes only as long as the claim is its own (daemon)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.sql.schema import Table


def fence(job: Table, claim_no: Any, owner: Any) -> tuple[ColumnElement[bool], ...]:
    """Conditions that hold for a job's row while it is claimed under this number by this owner.

    No index is to serve the owner. Statistics of a moment when nothing ran say that nobody owns
    anything, and a plan made after them walks all that a daemon holds, for each single job.
    """
    return job.c.claim_no == claim_no, job.c.owner.is_not_distinct_from(owner)

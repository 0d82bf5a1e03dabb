"""How the templates write times and money (web)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from markupsafe import Markup

from .models import utcnow

# Unit, its length in seconds, and up to how many seconds a distance is told in it.
UNITS = (("s", 1, 120), ("min", 60, 2 * 3600), ("h", 3600, 48 * 3600), ("days", 86400, None))


def when(value: datetime | None) -> Markup:
    """``in 12 s``, ``3 min ago``; the exact time is in the tooltip."""
    if value is None:
        return Markup("–")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(
        value.isoformat(timespec="seconds"), distance((value - utcnow()).total_seconds())
    )


def distance(seconds: float) -> str:
    """A distance from now in the largest unit that still says something."""
    size = abs(seconds)
    unit, length = next((u, n) for u, n, limit in UNITS if limit is None or size < limit)
    text = f"{size / length:.0f} {unit}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def money(amount: Decimal | int | None) -> str:
    """``$600.00``"""
    return f"${amount or 0:,.2f}"

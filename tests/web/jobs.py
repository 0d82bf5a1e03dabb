"""What the applications under test ask for; nothing here is ever run by them."""

from __future__ import annotations


def charge(*args: object, **kwargs: object) -> None:
    """A job."""


def report() -> None:
    """Another."""


NOT_CALLABLE = 7

"""What the package knows of the application's SQLAlchemy session (web and daemon)."""

from __future__ import annotations

from typing import Any

from pyramid.util import SettableProperty
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session
from zope.sqlalchemy import ZopeTransactionEvents

_EVALUATED_AT_EACH_ACCESS = (property, SettableProperty)


def session_of(request: Any, name: str) -> Session | None:
    """The session the request already has under ``name``; None where it has none yet.

    A reified attribute that was not asked for so far stays untouched: a job that never looks at
    the database must not cost a session. A plain property is evaluated, since every access does
    that anyway (an application's scoped session is reached this way).
    """
    value = vars(request).get(name)
    if value is None:
        if not is_evaluated(type(request), name):
            return None
        value = getattr(request, name)
    if isinstance(value, scoped_session):
        # Asking an empty registry would create the very session we only want to look at.
        value = value.registry() if value.registry.has() else None
    return value if isinstance(value, Session) else None


def is_evaluated(kind: type, name: str) -> bool:
    """Whether an attribute of a class of requests is a property that every access evaluates."""
    return isinstance(getattr(kind, name, None), _EVALUATED_AT_EACH_ACCESS)


def zope_listener(session: Session) -> ZopeTransactionEvents | None:
    """The object zope.sqlalchemy registered on the session or on its class, None without one.

    It knows the session's transaction manager and ``keep_session``, so that its own
    ``mark_changed(session)`` is right where the module's function would guess.
    """
    for listener in session.dispatch.after_begin:
        owner = getattr(listener, "__self__", None)
        if isinstance(owner, ZopeTransactionEvents):
            return owner
    return None


def bind_of(session: Session) -> Any:
    """The engine or connection the session works on; None where it has several or none."""
    try:
        return session.get_bind()
    except UnboundExecutionError:
        return None

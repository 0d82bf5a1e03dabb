"""Who hears the events of one application: its listeners, and Pyramid's subscribers (daemon)."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import transaction
from pyramid.threadlocal import manager as threadlocals
from zope.interface import implementedBy, providedBy

from .events import EVENTS, DurableEvent, JobEvent

log = logging.getLogger(__name__)

Listener = Callable[..., Any]

SPECS: Final = {event: (implementedBy(event),) for event in EVENTS}
"""What the registry looks subscribers up by."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Listening:
    """One listener, and what it was added with."""

    listener: Listener
    events: tuple[type[DurableEvent], ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Listeners:
    """The listeners of one registry in this process; safe to change from any thread.

    ``heard`` are the classes of events that somebody hears, so that nobody else's are ever made. It
    knows a listener from the moment it was added, a subscriber from the next ``refresh``. Without a
    ``registry`` nobody ever hears anything.
    """

    def __init__(self, registry: Any = None) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        # Replaced, never changed: whoever goes through it needs no lock.
        self._listening: tuple[_Listening, ...] = ()
        self.heard: frozenset[type[DurableEvent]] = frozenset()

    def add(self, listener: Listener, events: Any, args: Any, kwargs: Any) -> None:
        """Add a listener, or replace what it was added with. Raises TypeError; see Listening."""
        new = _Listening(
            listener=_checked_listener(listener),
            events=_checked_events(events),
            args=_checked_args(args),
            kwargs=_checked_kwargs(kwargs),
        )
        _check_call(new)
        with self._lock:
            old = self._listening
            if any(one.listener == listener for one in old):
                listening = tuple(new if one.listener == listener else one for one in old)
            else:
                listening = (*old, new)
            self._change(listening)

    def remove(self, listener: Listener) -> None:
        """Forget a listener; one that is not known is no error."""
        with self._lock:
            self._change(tuple(one for one in self._listening if one.listener != listener))

    def refresh(self) -> None:
        """Look who hears what by now: subscribers may come while the application runs."""
        if self._registry is not None:
            with self._lock:
                self._change(self._listening)

    def tell(self, event: DurableEvent) -> None:
        """Call the subscribers to an event, then the listeners. Never raises.

        The registry is current meanwhile, and no request is. What they leave uncommitted in the
        thread's own transaction is rolled back.
        """
        depth = len(threadlocals.stack)
        threadlocals.push({"registry": self._registry, "request": None})
        try:
            for subscriber in self._registry.adapters.subscriptions((providedBy(event),), None):
                _call(subscriber, event, (), {})
            for one in self._listening:
                # Looked at again: an earlier one may have removed it.
                if isinstance(event, one.events) and one in self._listening:
                    _call(one.listener, event, one.args, one.kwargs)
        finally:
            del threadlocals.stack[depth:]

    def _change(self, listening: tuple[_Listening, ...]) -> None:
        self._listening = listening
        asked = tuple(event for one in listening for event in one.events)
        self.heard = frozenset(
            event for event in EVENTS if issubclass(event, asked) or self._has_subscribers(event)
        )

    def _has_subscribers(self, event: type[DurableEvent]) -> bool:
        return bool(self._registry.adapters.subscriptions(SPECS[event], None))


NOBODY: Final = Listeners()
"""Hears nothing."""


def _call(listener: Listener, event: DurableEvent, args: Any, kwargs: Any) -> None:
    """Call a listener; what it raises is logged, and disturbs nobody."""
    try:
        listener(event, *args, **kwargs)
    except BaseException:
        # Also a SystemExit: this is no thread of the listener's.
        extra: dict[str, Any] = {"action": "listener_failed", "event": type(event).__name__}
        about = ""
        if isinstance(event, JobEvent):
            about = f" of job {event.job.id}"
            extra |= {"job": event.job.id, "queue": event.job.queue}
        log.exception(
            "%s raised on the %s%s", _name(listener), type(event).__name__, about, extra=extra
        )
    finally:
        try:
            transaction.abort()
        except Exception:
            log.exception(
                "%s left a transaction that cannot be rolled back",
                _name(listener),
                extra={"action": "listener_failed", "event": type(event).__name__},
            )


def _name(listener: Any) -> str:
    module = getattr(listener, "__module__", None)
    name = getattr(listener, "__qualname__", None)
    return f"{module}.{name}" if module and name else type(listener).__qualname__


def _checked_listener(listener: Any) -> Listener:
    if not callable(listener):
        raise TypeError(f"add_listener: expected a callable, found {listener!r}")
    if inspect.iscoroutinefunction(listener):
        raise TypeError(
            f"add_listener: {_name(listener)} is async, nobody would await it; expected a plain "
            "function, which may add a job for what takes long"
        )
    return listener


def _checked_events(events: Any) -> tuple[type[DurableEvent], ...]:
    if events is None:
        return (DurableEvent,)
    found = tuple(events) if isinstance(events, Iterable) else (events,)
    if not found:
        raise TypeError("add_listener: events is empty; leave it out for all of them")
    for event in found:
        if not (isinstance(event, type) and issubclass(event, DurableEvent)):
            raise TypeError(
                f"add_listener: events: expected classes of pyramid_durable.events, found {event!r}"
            )
    return found


def _checked_args(args: Any) -> tuple[Any, ...]:
    if args is None:
        return ()
    if not isinstance(args, Sequence) or isinstance(args, str | bytes):
        raise TypeError(f"add_listener: args: expected a list or a tuple, found {args!r}")
    return tuple(args)


def _checked_kwargs(kwargs: Any) -> dict[str, Any]:
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TypeError(f"add_listener: kwargs: expected a dict with names, found {kwargs!r}")
    return dict(kwargs)


def _check_call(one: _Listening) -> None:
    """Refuse what could never be called."""
    try:
        signature = inspect.signature(one.listener, follow_wrapped=False)
    except (TypeError, ValueError):  # written in C, it tells nothing
        return
    try:
        signature.bind(None, *one.args, **one.kwargs)
    except TypeError as error:
        raise TypeError(
            f"add_listener: {_name(one.listener)} cannot be called as "
            f"listener(event, *args, **kwargs): {error}"
        ) from error

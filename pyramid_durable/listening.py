"""The verbs about who hears events (both; events are told where a daemon or run_due works)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .events import DurableEvent

if TYPE_CHECKING:
    from .scheduler import Scheduler


class Listening:
    """Listeners belong to the registry, in this process: not to a request, and not to the store."""

    @property
    @abstractmethod
    def _scheduler(self) -> Scheduler: ...

    def add_listener(
        self,
        listener: Callable[..., Any],
        events: type[DurableEvent] | Iterable[type[DurableEvent]] | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Call ``listener(event, *args, **kwargs)`` for what happens in this process's daemon.

        ``events`` is a class of ``pyramid_durable.events``, also a base class, or several (default:
        all). A listener that is there already is not added twice: what it is added with now
        replaces what it was added with. May be called at any time, also by a listener.

        Raises TypeError for a listener that could not be called so, or is async, and for what is
        not a class of an event.
        """
        self._scheduler.listeners.add(listener, events, args, kwargs)

    def remove_listener(self, listener: Callable[..., Any]) -> None:
        """Call this listener no more; one that is not known is no error."""
        self._scheduler.listeners.remove(listener)

"""Which functions may run as jobs: ``allow``, and what an application has registered (both)."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

from .definitions import BODY, MARK, Definition, load
from .exceptions import InvalidJob, UnknownFunction
from .settings import Settings

NOT_REGISTERED: Final = (
    "it is not registered: with scheduler.producer = broker and no scheduler.allow only definitions "
    "run that a decorator (@job, @routine, @cron, @interval) or a directive names, in modules that "
    "the application imports, as config.scan() does"
)


class Allowed:
    """What may run under an application's settings.

    ``allow`` says it. Without one everything may that can be imported; with ``producer = broker``
    only what is registered: decorated, of a declared schedule (``declared`` has their functions),
    or an alias of these.
    """

    def __init__(
        self, settings: Settings, aliases: Mapping[str, str], declared: Collection[str]
    ) -> None:
        self._allow = settings.allow
        self._only_registered = settings.producer == "broker" and settings.allow is None
        self._aliases = aliases
        self._declared = frozenset(declared)

    def is_registered(self, ref: str) -> bool:
        """Whether a function is registered, where only such may run; True where that is no matter.

        A name may come from another machine, so it is looked up in what is imported already:
        whoever could make a daemon import a module of their choice could run its top level.
        """
        if not self._only_registered:
            return True
        return (
            ref in self._declared
            or ref in self._aliases
            or ref.replace(":", ".") in self._aliases
            or ref in self._aliases.values()
            or _is_decorated(ref)
        )

    def check(self, ref: str) -> None:
        """Raise InvalidJob for a function that is not registered, and has to be."""
        if not self.is_registered(ref):
            raise InvalidJob(f"{ref} cannot be a job: {NOT_REGISTERED}")

    def load(self, ref: str) -> Definition:
        """Find the definition that a stored job names.

        Raises UnknownFunction where the name leads nowhere, or may not run.
        """
        if not self.is_registered(ref):
            raise UnknownFunction(f"{ref!r} does not run: {NOT_REGISTERED}")
        return load(ref, aliases=self._aliases, allow=self._allow)


def _is_decorated(ref: str) -> bool:
    module, _, path = ref.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type):
        # A class does not pass its mark on to those derived from it.
        return MARK in vars(found)
    return hasattr(found, MARK) or hasattr(found, BODY)

"""Whether an idle daemon claims what it was told of at once, without a look: bookkeeping (daemon)."""

from __future__ import annotations


class Promptness:
    """Of all daemons that hear of a lone job, one can have it; the others would only be in its way.

    So the one that had the last goes first, and the others look a little later. Whoever finds nothing
    there lets others go first, until a look has found it something.
    """

    def __init__(self) -> None:
        self._told = False
        self._more = True
        self.goes_first = True

    def tell(self) -> None:
        """Note that something was stored; from any thread."""
        self._told = True

    def is_wanted(self, *, idle: bool) -> bool:
        """Whether something was stored since this was asked last, and is probably all there is.

        ``idle``: the daemon has nothing to do, and expected nothing either.
        """
        told, self._told = self._told, False
        return told and idle and not self._more

    def tried(self, *, found: bool) -> None:
        """Note how a claim without a look went."""
        self.goes_first = found

    def looked(self, *, found: bool, full: bool) -> None:
        """Note what a look has brought; ``full``: as much as there was room for, so there is more."""
        self._more = full
        self.goes_first = self.goes_first or found

"""What every group of the scheduler's verbs knows: its scheduler and its request (both)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scheduler import Scheduler


class Bound(ABC):
    """Verbs of a scheduler; each joins the transaction of ``_request()``."""

    @property
    @abstractmethod
    def _scheduler(self) -> Scheduler: ...

    @abstractmethod
    def _request(self) -> Any: ...

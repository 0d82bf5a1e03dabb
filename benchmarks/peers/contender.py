"""What a contender says of itself; one folder under contenders/ for each library.

Such a folder holds three files. ``requirements.txt``: what is installed, pinned. ``contender.py``:
``CONTENDERS``, read by the process that measures, which has none of the peers installed. ``app.py``: the
library's own side, imported in its own environment by its workers and by producer.py, with ``setup`` and
``opened``; it imports nothing of the project but the witness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .place import Place

Command = list[str]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One library on one set of services."""

    id: str
    """For the command line and the JSON, such as ``celery-redis``."""
    title: str
    place: str
    """The services it stands on, in words."""
    library: str
    """Name of its folder under contenders/."""
    packages: tuple[str, ...]
    """Distributions whose versions are shown, the library first."""
    workers: Callable[[Place], list[Command]]
    """Commands that start two worker processes; the first word is a program of its environment."""
    configured: tuple[str, ...]
    """How it is set up, and which page of its documentation says so."""
    keeps: str
    """What is left of a job that has ended, in words."""
    finished: Callable[[Place], int] | None = None
    """How many jobs its own record shows as ended well; None where it keeps no record."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """More environment for app.py, where a library comes on several sets of services."""
    database: str = ""
    """``postgresql``, ``mariadb`` or ``sqlite``, if it wants a database of its own."""
    redis: bool = False
    queues: tuple[str, ...] = ()
    """RabbitMQ queues to delete afterwards; ``{queue}`` stands for the queue's name."""
    bulk: bool = False
    """It has a call of its own for many jobs: app.py has ``enqueue_many``."""
    requests: bool = False
    """It has a measure of enqueueing inside a web request: app.py has ``request_cost``."""
    runs_in_producer: bool = False
    """Its scheduler must live in the process that adds jobs, as long as that process lives."""

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / "contenders" / self.library

    @property
    def module(self) -> str:
        return f"{__package__}.contenders.{self.library}.app"

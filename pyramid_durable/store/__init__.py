"""The store: all SQL of the package, as verbs about jobs, schedules, claims and daemons."""

from __future__ import annotations

from .cancels import Cancels
from .claims import Claims
from .completions import Completions
from .daemons import DaemonInfo, Daemons, Rescued
from .database import Database
from .dialects import ALONE, LOOKING, SWEEPING, WRITING
from .generations import Generations, Standing
from .holdings import Holdings
from .job_changes import JobChanges
from .jobs import Jobs
from .look import Look, Looks
from .migrate import ensure_schema, migrate
from .prompt import PromptClaims
from .queues import Queues
from .retention import Retention
from .schedule_changes import ScheduleChanges
from .schedules import Schedules
from .settling import Settling
from .stats import Stats
from .survey import Survey


class Store(Database):
    """The one truth about jobs: a database, and the verbs by what they are about.

    ``url`` is a SQLAlchemy URL, ``prefix`` stands before every table's name (``schema.prefix``
    puts them into a database schema). Nothing is opened before the first use.
    """

    def __init__(self, url: str, *, prefix: str = "durable_") -> None:
        super().__init__(url, prefix=prefix)
        self.jobs = Jobs(self)
        self.schedules = Schedules(self, self.jobs)
        settling = Settling(self)
        self.generations = Generations(self, self.schedules)
        self.looks = Looks(self)
        self.holdings = Holdings(self)
        self.claims = Claims(self, self.schedules, settling, self.holdings)
        self.prompt = PromptClaims(self, self.claims)
        self.cancels = Cancels(self)
        self.completions = Completions(self, settling)
        self.daemons = Daemons(self)
        self.survey = Survey(self)
        self.retention = Retention(self)
        self.job_changes = JobChanges(self)
        self.schedule_changes = ScheduleChanges(self, self.jobs)
        self.queues = Queues(self)
        self.stats = Stats(self)

    def migrate(self) -> None:
        """Bring the tables up to date; several processes may do so at once."""
        migrate(self)

    def ensure_schema(self, *, create: bool) -> None:
        """Check that the tables are at this code's version; with ``create`` bring them there.

        Raises SchemaMismatch, saying what to run, and StoreUnavailable.
        """
        ensure_schema(self, create=create)


__all__ = [
    "ALONE",
    "LOOKING",
    "SWEEPING",
    "WRITING",
    "DaemonInfo",
    "Look",
    "Rescued",
    "Standing",
    "Store",
]

"""Commands from web processes that cannot reach the store, taken into it (daemon)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .allowing import NOT_REGISTERED
from .behaviors import KEY_OPTION
from .changes import Change
from .command_items import STORE, Item, items_from_json
from .commands import Command, decode
from .exceptions import BrokenJob, DuplicateJob, InvalidCommand
from .joining import News
from .outbox import StoreOutbox
from .records import JobSpec, ScheduleSpec
from .serializers import JSONSerializer, PickleSerializer
from .store.deliveries import Deliveries

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)


class Intake:
    """Stores commands, each once however often it is delivered.

    The signature decides whether a command is stored; whether its functions may run is decided
    where they are run. What they name is kept for a newer daemon, or for people to see.
    """

    def __init__(self, scheduler: Any, *, wake: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._settings = scheduler.settings
        self._store = scheduler.store
        self._deliveries = Deliveries(self._store)
        self._wake = wake
        codecs = {JSONSerializer.name, scheduler.serializer.name}
        if self._settings.secrets:
            codecs.add(PickleSerializer.name)
        # A codec is imported by its name; one that the settings do not name must not be.
        self._codecs = frozenset(codecs)

    def take(self, body: bytes) -> None:
        """Store a command; returning acknowledges it. What is none is refused and logged.

        Raises StoreUnavailable: the command is not acknowledged then, and comes again.
        """
        try:
            command = decode(body, self._settings.secrets)
        except InvalidCommand as error:
            _refuse("a command", len(body), error)
            return
        try:
            items = self._items(command)
            news = self._keep(command.id, items)
        except InvalidCommand as error:
            _refuse(f"command {command.id}", len(body), error, body=command.body)
            return
        if news is not None:
            self._tell(command.id, items, news)
        else:
            log.debug(
                "command %s came again, and is stored already",
                command.id,
                extra={"action": "command_redelivered"},
            )

    def _items(self, command: Command) -> list[Item]:
        if command.verb != STORE:
            raise InvalidCommand(
                f"its verb is {command.verb!r}, expected {STORE!r}: is the daemon older than the "
                "web process?"
            )
        items = items_from_json(self._plain(command.body))
        for item in items:
            about = item.job if isinstance(item, ScheduleSpec) else item
            if about.codec is not None and about.codec not in self._codecs:
                raise InvalidCommand(
                    f"job {item.id}: its arguments are written with {about.codec!r}, expected one of "
                    f"{', '.join(sorted(self._codecs))}: scheduler.serializer must be the same for "
                    "web processes and daemons"
                )
        return items

    def _plain(self, body: Any) -> Any:
        """The items as JSON values; they may be pickled where the settings say so."""
        if "pickle" not in body:
            return body.get("items")
        if self._settings.broker_serializer != PickleSerializer.name:
            raise InvalidCommand(
                "its body is pickled, expected JSON: scheduler.broker.serializer must be the same "
                "for web processes and daemons"
            )
        try:
            return PickleSerializer(self._settings.secrets).loads(body["pickle"])
        except Exception as error:
            raise InvalidCommand(f"its body cannot be unpickled: {type(error).__name__}") from error

    def _keep(self, id: str, items: Sequence[Item]) -> News | None:
        """Store a command; returns where it changed something, None if it came again."""
        news = News()
        with self._deliveries.receive(id) as connection:
            if connection is None:
                return None
            for kind, group in groupby(items, type):
                if kind is JobSpec:
                    self._add_jobs(connection, list(group))
                elif kind is ScheduleSpec:
                    self._add_schedules(connection, group)
                else:
                    self._change(connection, group, news)
        return news

    def _add_jobs(self, connection: Connection, jobs: Sequence[Any]) -> None:
        plain = [job for job in jobs if not _may_conflict(job)]
        if self._store.jobs.add_new(connection, plain) < len(plain):
            self._check_stored(connection, plain)
        for job in jobs:
            if _may_conflict(job):
                try:
                    self._store.jobs.add(connection, [job])
                except DuplicateJob as error:
                    _drop("job", job.id, job.queue, error)

    def _check_stored(self, connection: Connection, jobs: Sequence[Any]) -> None:
        """Tell jobs that were there already from those that the database passed over."""
        for job in jobs:
            if self._store.jobs.get(connection, job.id) is None:
                raise InvalidCommand(f"the database does not take job {job.id}")

    def _add_schedules(self, connection: Connection, schedules: Iterable[Any]) -> None:
        for schedule in schedules:
            try:
                self._store.schedules.add(connection, [schedule])
            except DuplicateJob as error:
                _drop("schedule", schedule.id, schedule.job.queue, error)

    def _change(self, connection: Connection, changes: Iterable[Any], news: News) -> None:
        outbox = StoreOutbox(self._store, connection, news, self._scheduler.changer)
        for one in changes:
            about = {"job": one.id, "queue": one.queue}
            try:
                changed = outbox.change(one)
            # What a verb refuses, and what a change from another version does not have.
            except (ValueError, TypeError, LookupError, BrokenJob) as error:
                log.warning(
                    "%s of %s is not done: %s",
                    one.verb,
                    one.id,
                    error,
                    extra={"action": "change_dropped", **about},
                )
                continue
            if not changed:
                log.info(
                    "nothing to %s by the id %s",
                    one.verb,
                    one.id,
                    extra={"action": f"nothing_to_{one.verb}", **about},
                )

    def _tell(self, id: str, items: Sequence[Item], news: News) -> None:
        """Let the daemons know, and people of what will not run as it is."""
        jobs = [job for job in map(_job_of, items) if job is not None]
        log.debug(
            "command %s is stored: %d jobs and schedules",
            id,
            len(jobs),
            extra={"action": "command_stored"},
        )
        for job in jobs:
            if not self._scheduler.allowed.is_registered(job.func):
                log.error(
                    "job %s of queue %s names %s, and does not run: %s",
                    job.id,
                    job.queue,
                    job.func,
                    NOT_REGISTERED,
                    extra={"action": "job_not_allowed", "job": job.id, "queue": job.queue},
                )
        self._wake()
        # The other daemons have room where this one may have none.
        self._scheduler.broker.announce(news.queues.union([job.queue for job in jobs]))


def _job_of(item: Item) -> JobSpec | None:
    """The job, or the pattern of a schedule's jobs."""
    if isinstance(item, Change):
        return None
    return item.job if isinstance(item, ScheduleSpec) else item


def _may_conflict(job: JobSpec) -> bool:
    """Whether a job can be refused, or the order counts; all others are stored in one statement."""
    compared = job.waiting_key or KEY_OPTION in job.options
    return bool(job.chosen_id or job.replace_existing or compared)


def _drop(kind: str, id: str, queue: str, error: DuplicateJob) -> None:
    # Nobody is there to hear of it: the call returned when the command was sent.
    log.warning(
        "%s %s of queue %s is not stored: %s",
        kind,
        id,
        queue,
        error,
        extra={"action": "duplicate_dropped", "job": id, "queue": queue},
    )


def _refuse(what: str, size: int, error: InvalidCommand, body: Any = None) -> None:
    """Say what is lost, as far as it can be told. Arguments are not logged."""
    about = {} if body is None else body
    queue, jobs = about.get("queue"), about.get("ids")
    log.error(
        "%s of %d bytes is refused, for queue %s, jobs %s: %s",
        what,
        size,
        queue,
        jobs,
        error,
        extra={"action": "command_refused", "queue": queue, "jobs": jobs},
    )

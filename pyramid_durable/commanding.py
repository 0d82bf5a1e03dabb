"""Signed commands made of what a transaction asked for, and sent (web, without the store)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from .broker import Broker
from .changes import Change
from .command_items import STORE, Item, items_to_json
from .commands import encode
from .exceptions import BrokerUnavailable, InvalidCommand, InvalidJob
from .records import DATE, JobSpec, ScheduleSpec
from .serializers import PickleSerializer
from .settings import Settings
from .times import utcnow

log = logging.getLogger(__name__)

MESSAGE_LIMIT: Final = 1_000_000
"""Bytes after which another message is begun. One job may take more, so this is no promise, but a
thousand of them at once must not make one that a broker refuses (RabbitMQ: from 16 MiB on)."""

OVERHEAD: Final = 500
"""Bytes that a job takes beside its arguments, roughly."""


class CommandOutbox:
    """Collects what one call asks for; it is published when the caller's transaction commits.

    ``check`` raises InvalidJob for a function that no daemon would run.
    """

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check
        self.items: list[Item] = []

    def now(self) -> datetime:
        """This process's clock: the store's is out of reach."""
        return utcnow()

    def add(self, jobs: Sequence[JobSpec], schedules: Sequence[ScheduleSpec]) -> None:
        """Keep new jobs and schedules. Whether their ids are taken only the daemon will know."""
        for job in (*jobs, *(schedule.job for schedule in schedules)):
            self._check(job.func)
        now = utcnow()
        self.items += [_timed(job, now) for job in jobs]
        self.items += schedules

    def add_inline(self, jobs: Sequence[JobSpec]) -> None:
        """Refuse: what this process runs itself has to be in the store. Raises InvalidJob."""
        raise InvalidJob(
            f"{jobs[0].func}: executor='inline' needs the store, which this process does not reach "
            "(scheduler.producer = broker); expected 'thread', 'process' or 'auto'"
        )

    def change(self, change: Change) -> bool:
        """Ask for it; whether there is anything to change only the daemon will know."""
        self.items.append(_timed_change(change, utcnow()))
        return True


def _timed(job: JobSpec, now: datetime) -> JobSpec:
    """A relative date counts from the call, however long the command then waits for a daemon.

    An async job is due whenever it gets into the store, by the store's clock.
    """
    if job.kind != DATE or job.run_at is not None:
        return job
    return job._replace(run_at=now + timedelta(seconds=job.delay))


def _timed_change(change: Change, now: datetime) -> Change:
    """A new date that is relative counts from the call too."""
    if "delay" not in change.changes:
        return change
    run_at = now + timedelta(seconds=change.changes["delay"])
    return replace(change, changes={"run_at": run_at.isoformat()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A signed command for the daemons of a queue. ``ids`` are those it is about, for the log."""

    queue: str
    body: bytes
    ids: tuple[str, ...]


class Sender:
    """Makes messages and sends them over this process's broker."""

    def __init__(self, broker: Callable[[], Broker], settings: Settings) -> None:
        self._broker = broker
        self._default_queue = settings.default_queue
        self._secrets = settings.secrets
        self._pickled = settings.broker_serializer == PickleSerializer.name

    def probe(self) -> None:
        """Raise BrokerUnavailable where the broker does not answer."""
        self._broker().probe()

    def seal(self, items: Sequence[Item]) -> list[Message]:
        """One message for each queue, in the order of the calls; several where it grows too large.

        A queue has its own so that its jobs do not wait for another one's daemons.
        """
        groups: dict[str, list[list[Item]]] = {}
        sizes: dict[str, int] = {}
        queues: dict[str, str] = {}
        for item in items:
            queue = queues[item.id] = self._queue_of(item, queues)
            size = _size_of(item)
            if queue not in groups or sizes[queue] + size > MESSAGE_LIMIT:
                groups.setdefault(queue, []).append([])
                sizes[queue] = 0
            groups[queue][-1].append(item)
            sizes[queue] += size
        return [self._message(queue, part) for queue, parts in groups.items() for part in parts]

    def send(self, messages: Sequence[Message]) -> None:
        """Publish, and wait for the broker to confirm each. Raises BrokerUnavailable."""
        for number, message in enumerate(messages):
            try:
                self._broker().publish_command(message.body, message.queue)
            except BrokerUnavailable:
                for lost in messages[number:]:
                    log.error(
                        "not confirmed by the broker, and perhaps lost: %s of queue %s",
                        ", ".join(lost.ids),
                        lost.queue,
                        extra={
                            "action": "command_unconfirmed",
                            "jobs": lost.ids,
                            "queue": lost.queue,
                        },
                    )
                raise

    def _queue_of(self, item: Item, queues: dict[str, str]) -> str:
        if isinstance(item, Change):
            # With the job that this transaction asked for: another queue's message may overtake.
            return item.queue or queues.get(item.id) or self._default_queue
        return item.job.queue if isinstance(item, ScheduleSpec) else item.queue

    def _message(self, queue: str, items: Sequence[Item]) -> Message:
        ids = tuple(item.id for item in items)
        found: Any = items_to_json(items)
        body: dict[str, Any] = {"queue": queue, "at": utcnow().isoformat(), "ids": ids}
        if self._pickled:
            body["pickle"] = PickleSerializer(self._secrets).dumps(found)
        else:
            body["items"] = found
        try:
            return Message(queue=queue, body=encode(STORE, body, self._secrets[0]), ids=ids)
        except InvalidCommand as error:
            raise InvalidCommand(f"{', '.join(ids)}: {error}") from error


def _size_of(item: Item) -> int:
    if isinstance(item, Change):
        return OVERHEAD + sum(len(str(value)) for value in item.changes.values())
    job = item.job if isinstance(item, ScheduleSpec) else item
    return len(job.payload) + len(job.userdata or "") + OVERHEAD

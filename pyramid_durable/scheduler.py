"""The scheduler of an application, and that of one of its requests (web and daemon)."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
from datetime import datetime
from functools import cached_property
from typing import Any

from pyramid.threadlocal import get_current_request
from sqlalchemy import Connection
from zope.interface import implementer

from .allowing import Allowed
from .broker import Broker
from .calls import Call
from .change_requests import ChangeMaker
from .changed import Changer
from .commanding import Sender
from .enqueue import Enlister
from .exceptions import DurableError, InvalidJob, InvalidSetting
from .facade import Facade
from .interfaces import IDaemonFactory, IRunInline, IScheduler
from .job_infos import Infos
from .job_specs import SpecMaker
from .joining import News
from .listeners import Listeners
from .listening import Listening
from .outbox import Outbox, StoreOutbox
from .publishing import CommandEnlister
from .records import ScheduleSpec
from .serializers import Serializer, resolve_serializer
from .setting_names import import_setting, import_store_class
from .settings import Settings, read_settings
from .store import Store
from .times import utcnow


class _Process:
    """What one process has open. A forked child has one of its own.

    The parent's is kept, not closed: its connections are the parent's, and closing them in the
    child would end them there.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # One of its own: jobs that finish during a shutdown may be the first to need the broker.
        self.daemon_lock = threading.Lock()
        self.store: Store | None = None
        self.store_is_ready = False
        self.broker: Broker | None = None
        self.daemon: Any = None
        self.stops_at_exit = False


@implementer(IScheduler)
class Scheduler(Facade, Listening):
    """``registry.scheduler``: finds the current request by itself; opens nothing until it is used.

    Safe in many threads, and in processes that are forked from one that has used it.
    """

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.aliases: dict[str, str] = {}
        self.listeners = Listeners(registry)
        self._declarations: list[tuple[str, Call, Any, dict[str, Any]]] = []
        self._processes: dict[int, _Process] = {}

    @property
    def _scheduler(self) -> Scheduler:
        return self

    def _request(self) -> Any:
        request = get_current_request()
        if request is None or getattr(request, "registry", None) is not self.registry:
            return None
        return request

    @cached_property
    def settings(self) -> Settings:
        """The application's settings, read at the first use; InvalidSetting is raised here."""
        return read_settings(self.registry.settings or {})

    @cached_property
    def serializer(self) -> Serializer:
        """What turns arguments, results and userdata into text and back."""
        return resolve_serializer(self.settings.serializer, self.settings.secrets)

    @cached_property
    def specs(self) -> SpecMaker:
        """What turns calls into records for the store."""
        return SpecMaker(self.settings, self.serializer, self.aliases)

    @cached_property
    def change_maker(self) -> ChangeMaker:
        """What turns calls that change something into Changes."""
        return ChangeMaker(self.settings, self.serializer, self.specs)

    @cached_property
    def changer(self) -> Changer:
        """What applies Changes to what is stored."""
        return Changer(self.settings, self.serializer)

    @cached_property
    def infos(self) -> Infos:
        """What turns records of the store into what people see."""
        return Infos(self.serializer, self.settings.secrets)

    @property
    def _process(self) -> _Process:
        # setdefault is atomic; a lock might have been held by another thread at the fork.
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _Process())

    @property
    def broker(self) -> Broker:
        """The broker of this process; connects when something is sent."""
        process = self._process
        if process.broker is None:
            with process.lock:
                if process.broker is None:
                    process.broker = self._make_broker()
        return process.broker

    @property
    def store(self) -> Store:
        """The store of this process, its schema looked at at the first use.

        Raises StoreUnavailable; SchemaMismatch where the tables are not those of this version.
        """
        process = self._process
        if process.store is None:
            with process.lock:
                if process.store is None:
                    process.store = self._make_store()
        if not process.store_is_ready:
            # Outside of the lock: while the store is away every thread learns it for itself,
            # rather than one after the other.
            process.store.ensure_schema(create=self.settings.create)
            process.store_is_ready = True
        return process.store

    def _make_store(self) -> Store:
        return Store(self.settings.store_url, prefix=self.settings.prefix)

    def _make_broker(self) -> Broker:
        settings = self.settings
        return Broker(
            settings.broker_url,
            namespace=settings.prefix,
            options=settings.broker_options,
            compressor=settings.broker_compressor,
            deadline=settings.broker_deadline,
        )

    @cached_property
    def _enlister(self) -> Enlister[StoreOutbox]:
        return Enlister(
            lambda: self.store,
            dbsession=self.settings.dbsession,
            tell=self._tell,
            outbox=functools.partial(StoreOutbox, changer=self.changer),
        )

    @cached_property
    def _commands(self) -> CommandEnlister:
        return CommandEnlister(
            Sender(lambda: self.broker, self.settings),
            dbsession=self.settings.dbsession,
            check=self.allowed.check,
        )

    def _tell(self, news: News) -> None:
        if news.queues:
            self.broker.announce(news.queues)
        if news.inline:
            self.registry.getUtility(IRunInline)(self.registry, list(news.inline))

    @property
    def reaches_store(self) -> bool:
        """Whether verbs go to the store itself, not as commands through the broker.

        With ``producer = broker``: in a process that has opened it, as daemons, jobs and pjobs do.
        """
        return self.settings.producer == "store" or self._process.store_is_ready

    def outbox(
        self, request: Any, *, alone: bool = False
    ) -> contextlib.AbstractContextManager[Outbox]:
        """Where a verb writes: it is kept when the request's transaction commits.

        Every verb that changes something goes through here and knows no more than Outbox says.
        ``alone``: the store will be asked a single statement.
        """
        if not self.reaches_store:
            return self._commands.writing(request)
        return self._enlister.writing(request, alone=alone)

    def reading(self, request: Any) -> contextlib.AbstractContextManager[Connection]:
        """A connection that sees what the request's transaction has written so far; DurableError
        where the store is out of reach (``producer = broker``)."""
        if not self.reaches_store:
            raise DurableError(
                "jobs and schedules cannot be looked up from here: scheduler.producer = broker says "
                "that this process does not reach the store; ask a daemon's process, a job or pjobs"
            )
        return self._enlister.reading(request)

    def declare(self, kind: str, call: Call, start_date: Any, fields: dict[str, Any]) -> None:
        """Note a schedule that the application declares; see directives."""
        self._declarations.append((kind, call, start_date, fields))

    @property
    def declared(self) -> tuple[ScheduleSpec, ...]:
        """The declared schedules, as they are by this machine's clock; see ``declared_at``."""
        return self.declared_at(utcnow())

    def declared_at(self, now: datetime) -> tuple[ScheduleSpec, ...]:
        """The declared schedules, their first fire times counted from ``now``.

        A daemon brings the store in line with them at its start, by the store's clock. Raises
        InvalidJob, InvalidQueue or TypeError for a declaration that cannot be used.
        """
        return tuple(
            self.specs.schedule(call, kind, start_date, fields, now=now, declared=True)
            for kind, call, start_date, fields in self._declarations
        )

    @cached_property
    def allowed(self) -> Allowed:
        """What may run, and how it is found."""
        declared = {self.specs.reference(call.func) for _, call, _, _ in self._declarations}
        return Allowed(self.settings, self.aliases, declared)

    def check(self) -> None:
        """Read everything that is configured, and open nothing.

        Raises what using it would raise later: InvalidSetting and, over declared schedules,
        InvalidJob, InvalidQueue and TypeError.
        """
        self._forget()
        try:
            self._check_broker(self._make_broker())
            if self.settings.producer == "store":
                self._make_store().engine  # noqa: B018 - made to see whether its driver is there
            try:
                self.specs  # noqa: B018 - reads the defaults of options
            except InvalidJob as error:
                # The others are read where the settings are.
                raise InvalidSetting(f"scheduler.backoff: {error.__cause__}") from error
            self.declared  # noqa: B018 - reads what was declared
            for key in ("delegator", "housekeeping_append"):
                if (name := getattr(self.settings, key)) is not None:
                    import_setting(key.replace("_", "."), name)
            if self.settings.store_class is not None:
                import_store_class(self.settings.store_class)
        finally:
            self._forget()

    def _check_broker(self, broker: Broker) -> None:
        if self.settings.producer == "broker" and not broker.carries_commands:
            raise InvalidSetting(
                f"scheduler.producer = broker does not go with {broker!r}: when a daemon dies with "
                "commands in hand, only RabbitMQ and Redis deliver them again, and jobs would be "
                "lost; expected scheduler.broker.url = amqp://… or redis://…"
            )

    def _forget(self) -> None:
        """Read the settings anew at the next use: they may change until the commit is over."""
        read = ("settings", "serializer", "specs", "infos", "allowed", "change_maker", "changer")
        for name in (*read, "_enlister", "_commands"):
            self.__dict__.pop(name, None)

    @property
    def aps(self) -> Any:
        """The daemon's APScheduler instance in this process, for reading; None without one."""
        daemon = self._process.daemon
        return None if daemon is None else daemon.aps

    def start(self) -> None:
        """Start the daemon in this process, as combined mode does at the first request.

        A second call does nothing. The daemon stops with ``shutdown()``, or when Python ends: what
        it runs may finish. (SIGTERM ends Python only where the server handles it.)
        """
        process = self._process
        with process.daemon_lock:
            if process.daemon is not None:
                return
            process.daemon = self.registry.getUtility(IDaemonFactory)(self.registry)
            try:
                process.daemon.start()
            except BaseException:
                process.daemon = None
                raise
            if not process.stops_at_exit:
                atexit.register(self.shutdown)
                process.stops_at_exit = True

    def shutdown(self) -> None:
        """Stop the daemon of this process; what it runs may finish. Without one, do nothing."""
        process = self._process
        with process.daemon_lock:
            if process.daemon is not None:
                process.daemon.shutdown()
                process.daemon = None


class BoundScheduler(Facade, Listening):
    """``request.scheduler``: the scheduler's verbs, bound to this request's transaction."""

    def __init__(self, scheduler: Scheduler, request: Any) -> None:
        self._bound = scheduler
        self._own_request = request

    @property
    def _scheduler(self) -> Scheduler:
        return self._bound

    def _request(self) -> Any:
        return self._own_request

    @property
    def aps(self) -> Any:
        """The daemon's APScheduler instance in this process, for reading; None without one."""
        return self._bound.aps

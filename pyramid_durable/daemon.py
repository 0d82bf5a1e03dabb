"""The daemon: APScheduler, listener, heartbeat, recorder and workers of one process (daemon)."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

from .async_jobs import AsyncJobs
from .attempt import Attempt
from .bootstrapping import Ini
from .clock import DurableScheduler
from .declaring import Declaring
from .endings import GiveBack, ending_of
from .exceptions import DurableError, StoreUnavailable
from .executors import DurableThreadExecutor, Leave
from .hearing import Hearing
from .heartbeat import Heartbeat, default_label
from .housekeeping import Housekeeper
from .intake import Intake
from .interfaces import IScheduler
from .jobstore import DurableJobStore
from .outcomes import Outcome
from .policies import is_noted_first
from .processes import Processes
from .recorder import Recorder
from .records import SCHEDULED, Claim
from .runner import Runner
from .setting_names import import_store_class
from .settings import checked_queues
from .telling import CUT_OFF, Telling

log = logging.getLogger(__name__)

LAST_WRITES: Final = 5.0
"""Seconds to write the last ends of jobs when the daemon stops: for a failover, not an outage."""


class Daemon:
    """Serves queues of one application in this process, until it is stopped.

    ``registry`` is the application's; ``queues`` (default: all it has) narrows, ``threads`` and
    ``label`` (``scheduler.id``) replace what its settings say. ``ini`` is what processes for jobs
    load the application from (default: ``scheduler.config_uri``). A daemon is started once and
    stopped once.

    Raises InvalidQueue for a queue that is not among the configured ones.
    """

    def __init__(
        self,
        registry: Any,
        *,
        queues: Sequence[str] | None = None,
        threads: int | None = None,
        label: str | None = None,
        ini: Ini | None = None,
    ) -> None:
        self._registry = registry
        self._scheduler = registry.getUtility(IScheduler)
        settings = self._settings = self._scheduler.settings
        self.queues = checked_queues(queues, settings.queues)
        self._threads = threads or settings.threads
        self._name = label or settings.id or default_label()
        if ini is None and settings.config_uri is not None:
            ini = Ini(uri=settings.config_uri)
        self._ini = ini
        self._telling = Telling(self._scheduler.listeners)
        self._closing = threading.Event()
        self._hurry = threading.Event()
        self.aps: DurableScheduler | None = None

    def start(self) -> None:
        """Bring the declared schedules in line and begin to work; returns at once.

        Raises StoreUnavailable when the store cannot be reached, SchemaMismatch when its tables
        are not this version's, InvalidSetting for ``scheduler.executor = process`` where no process
        can be started, DurableError where threads do not run. A broker that cannot be reached is
        waited for.
        """
        _check_threads()
        store = self._scheduler.store
        self._make_parts(store)
        self._processes.check()
        self._heart.start()
        try:
            # Known to the others before it settles anything: nobody takes it for gone meanwhile.
            self._declaring.settle()
        except BaseException:
            self._heart.stop()
            raise
        self._recorder.start()
        self.aps = DurableScheduler(
            self._jobstore,
            self._executor,
            timezone=self._settings.zone,
            poll_interval=self._settings.poll_interval,
        )
        self.aps.start()
        self._listener = threading.Thread(target=self._listen, name="durable-listener", daemon=True)
        self._listener.start()
        self._housekeeper.start()
        self._telling.daemon_started(self._name, self.queues)
        log.info(
            # Two processes that were meant to share a store may have found two.
            "daemon started: queues %s, %d threads, store %s",
            " ".join(self.queues),
            self._threads,
            store.place,
            extra={"action": "daemon_started", "incarnation": self._heart.incarnation},
        )

    def _make_parts(self, store: Any) -> None:
        settings = self._settings
        telling = self._telling
        self._runner = Runner(self._registry, telling)
        self._recorder = Recorder(store, poison_limit=settings.poison_limit, telling=telling)
        self._housekeeper = Housekeeper(self._registry, telling)
        self._declaring = Declaring(store, self._scheduler.declared_at, lease=settings.lease)
        self._heart = Heartbeat(
            store,
            queues=self.queues,
            label=self._name,
            interval=settings.heartbeat,
            lease=settings.lease,
            poison_limit=settings.poison_limit,
            running=self._long_running,
            holding=self._holding,
            cancel=self._ask_to_cancel,
            revived=self._wake,
            declares=self._declaring.digest,
            beaten=self._declaring.ask_again,
            rescued=telling.rescued,
            removed=telling.removed,
        )
        self._processes = Processes(
            self._scheduler, self._ini, may_start=self._heart.holds, telling=telling
        )
        self._async_jobs = AsyncJobs(self._runner)
        self._executor = DurableThreadExecutor(
            self._perform, threads=self._threads, may_start=self._heart.holds
        )
        self._jobstore = self._store_class()(
            store,
            queues=self.queues,
            executor=self._executor,
            owner=lambda: self._heart.incarnation,
            held=self._heart.held,
            poll_interval=settings.poll_interval,
            claimed=telling.claimed,
        )

    def stop(self, timeout: float | None = None) -> bool:
        """Stop gracefully; True when every job that was running has ended.

        Nothing is claimed or started any more, what waits is given back, and what is running may
        finish within ``timeout`` seconds (default: ``scheduler.shutdown_timeout``). What is not
        over then is given back too: it runs again elsewhere, and what it still does here is
        dropped where it is fenced. ``hurry`` cuts the waiting short.
        """
        if self.aps is None:
            return True
        timeout = self._settings.shutdown_timeout if timeout is None else timeout
        log.info("daemon stopping", extra={"action": "daemon_stopping"})
        self._telling.daemon_stopping(self._name, self.queues)
        self._closing.set()
        self._housekeeper.close()
        self._jobstore.close()
        self._executor.close()
        self._give_back()
        ended = self._executor.wait(timeout, self._hurry)
        # Only after this no claim is on its way from the loop to the executor any more.
        self.aps.shutdown(wait=False)
        self._give_back()
        if not ended:
            self._recorder.flush(LAST_WRITES)
            self._cut_off()
            self._processes.cut_off()
        self._async_jobs.stop()
        self._recorder.stop(LAST_WRITES)
        self._processes.stop()
        self._housekeeper.stop(LAST_WRITES)
        self._heart.stop()
        self._listener.join(LAST_WRITES)
        self._telling.stop(LAST_WRITES)
        self.aps = None
        log.info("daemon stopped", extra={"action": "daemon_stopped"})
        return ended

    def shutdown(self) -> None:
        """Stop, with the time to finish that the settings give."""
        self.stop()

    def hurry(self) -> None:
        """Do not wait for running jobs any longer."""
        self._hurry.set()

    def _store_class(self) -> type[DurableJobStore]:
        name = self._settings.store_class
        return DurableJobStore if name is None else import_store_class(name)

    def _holding(self) -> set[tuple[str, int]]:
        # In the order in which a claim moves on: the executor first.
        return self._executor.holding() | self._recorder.holding()

    def _perform(self, claim: Claim, waited: float, leave: Leave) -> Outcome | None:
        apart = (claim.options or self._processes.is_default) and self._processes.wants(claim)
        outcome: Outcome | Attempt
        if is_noted_first(claim) and not self._note_started(claim):
            outcome = Outcome(state=SCHEDULED, give_back=0.0)
        else:
            self._telling.wait_for_room()
            outcome = (
                self._processes.run(claim, waited=waited)
                if apart
                else self._runner.start(claim, waited=waited)
            )
        if isinstance(outcome, Outcome):
            self._ended(claim, outcome)
            return outcome
        come_back = leave()

        def done(outcome: Outcome) -> None:
            self._ended(claim, outcome)
            come_back(outcome)

        if not self._async_jobs.take(outcome, done):
            done(self._runner.give_up(outcome))
        return None

    def _ended(self, claim: Claim, outcome: Outcome) -> None:
        self._telling.ended(claim, outcome)
        ending = ending_of(claim, outcome)
        if ending is not None:
            self._recorder.add(ending)

    def _note_started(self, claim: Claim) -> bool:
        store = self._scheduler.store
        try:
            with store.begin() as connection:
                return bool(store.holdings.mark_started(connection, [claim]))
        except StoreUnavailable:
            return False

    def _ask_to_cancel(self, ids: Collection[str]) -> None:
        self._runner.ask_to_cancel(ids)
        self._processes.ask_to_cancel(ids)

    def _long_running(self) -> Collection[Claim]:
        beat = self._settings.heartbeat
        return [run.claim for run, seconds in self._executor.running() if seconds > beat]

    def _wake(self) -> None:
        if self.aps is not None:
            self.aps.wakeup()

    def _listen(self) -> None:
        commands = self._settings.producer == "broker"
        wake = self._jobstore.announced
        take = Intake(self._scheduler, wake=wake).take if commands else None
        hearing = Hearing(
            wake=wake, take=take, print_jobs=self._print_jobs, tell=self._telling.message
        )
        broker = self._scheduler.broker
        broker.listen(
            self.queues, self._heart.incarnation, hearing, self._closing, commands=commands
        )

    def _print_jobs(self) -> None:
        if self.aps is not None:
            shown = io.StringIO()
            self.aps.print_jobs(out=shown)
            log.info("%s", shown.getvalue().rstrip(), extra={"action": "print_jobs"})

    def _give_back(self) -> None:
        try:
            self._jobstore.give_back()
        except StoreUnavailable as error:
            log.warning(
                "claims cannot be given back (%s); others take them when the lease ends",
                error,
                extra={"action": "give_back_failed"},
            )

    def _cut_off(self) -> None:
        """Give back what did not end in time: being cut off is no crash, and costs no attempt."""
        for run, _ in self._executor.running():
            log.warning(
                "job %s did not end in time; it runs again elsewhere",
                run.claim.id,
                extra={"action": "cut_off", "job": run.claim.id, "queue": run.claim.queue},
            )
            begun = self._runner.has_begun(run.claim) or self._processes.has_begun(run.claim)
            self._telling.cut_off(run.claim, started=begun)
            self._recorder.add(GiveBack(claim=run.claim, reason=CUT_OFF if begun else None))


def _check_threads() -> None:
    """Refuse to start threads that would stand still, as in a uWSGI that was not told of them."""
    # uWSGI itself puts this module into its processes; there is none to import anywhere else.
    server = sys.modules.get("uwsgi")
    if not getattr(server, "has_threads", True):
        raise DurableError(
            "uWSGI lets no threads run in this process, so no jobs either; expected "
            "enable-threads = true in the [uwsgi] section (uWSGI 2.0.27 and later need no telling)"
        )

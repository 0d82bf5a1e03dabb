"""Running one claimed job: a row of steps with one outcome (daemon; web and scripts through due
and inline)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from transaction.interfaces import NoTransaction

from .attempt import Attempt, call, invoke, load_entity
from .completing import commit
from .current import use_job
from .exceptions import BrokenJob, InvalidSetting, UnknownFunction
from .interfaces import IScheduler
from .interruptions import interruption
from .job_transaction import JobTransactionManager
from .jobrequest import JobRequests
from .outcomes import Outcome, broken, expired, note, raised, succeeded, too_late
from .records import RUNNING, SCHEDULED, Claim
from .retry import IGNORE, OK, RETRY, Retry
from .serializers import Serializer, stored_serializer
from .setting_names import import_setting
from .stopping import Stopper
from .telling import SILENT, Telling
from .working_dir import working_dir

log = logging.getLogger(__name__)

UNKNOWN_PAUSE: Final = 2.0
"""Seconds for which a job of an unknown function is left to others at first: a newer daemon that
waits for work takes it within its poll."""

UNKNOWN_SHARE: Final = 0.25
"""The pause as a share of the time a job has been unknown for, so that thousands of them do not keep
a daemon busy until their grace is over."""


FULL_PAUSE: Final = 1.0
"""Seconds until a coroutine that found no room in the loop is due again, here or elsewhere."""

Steps = tuple[Callable[[Attempt], "Outcome | None"], ...]

AWAY: Final = Outcome(state=RUNNING)
"""What a step returns when the attempt goes on elsewhere: it is not over, and nobody's here."""


class Runner:
    """Runs the claimed jobs of one application, each with a request and a transaction of its own.

    ``run`` never raises: what a job raises is part of its outcome.
    """

    def __init__(self, registry: Any, telling: Telling = SILENT) -> None:
        self._telling = telling
        self._scheduler = registry.getUtility(IScheduler)
        self._settings = self._scheduler.settings
        self._store = self._scheduler.store
        self._requests = JobRequests(registry, self._settings.dbsession)
        self._serializers: dict[str, Serializer] = {}
        self._running: dict[str, Attempt] = {}
        self._unknown_since: dict[str, datetime] = {}
        self._rng = Random()
        self.stopper = Stopper()
        delegator = self._settings.delegator
        self._delegator = import_setting("delegator", delegator) if delegator else None
        opening: Steps = (self._expire, self._load, self._open, self._decode)
        closing: Steps = (self._call, self._commit)
        self._here: Steps = (*opening, *closing)
        self._anywhere: Steps = (*opening, self._move, *closing)

    def run(
        self,
        claim: Claim,
        *,
        waited: float = 0.0,
        now: datetime | None = None,
        delete_completed: bool = False,
    ) -> Outcome:
        """Run a job that was claimed ``waited`` seconds ago.

        ``now`` takes the clock's place for expiry and misfire, and for when it is tried again. With
        ``delete_completed`` the row goes when the job succeeds.
        """
        attempt = self._attempt(claim, waited, now=now, delete_completed=delete_completed)
        return self._go(attempt, self._here)

    def start(self, claim: Claim, *, waited: float = 0.0) -> Outcome | Attempt:
        """Run a job likewise, unless its code is a coroutine: that is to be awaited elsewhere.

        Then it returns the attempt, open and in no thread's hands; ``conclude`` ends it.
        """
        attempt = self._attempt(claim, waited)
        outcome = self._go(attempt, self._anywhere)
        return attempt if outcome is AWAY else outcome

    def give_up(self, attempt: Attempt) -> Outcome:
        """Undo an attempt that ``start`` has left open, and that was not awaited to its end."""
        attempt.coroutine.close()
        self._requests.enter(attempt.request)
        with suppress(NoTransaction):
            attempt.manager.abort()
        self._close(attempt)
        return Outcome(state=SCHEDULED, give_back=FULL_PAUSE)

    def conclude(self, attempt: Attempt, result: Any, error: BaseException | None) -> Outcome:
        """End an attempt whose code was awaited elsewhere, in the thread that calls this."""

        def end(attempt: Attempt) -> None:
            if error is not None:
                raise error
            self._keep(attempt, result)

        self._requests.enter(attempt.request)
        return self._go(attempt, (end, self._commit))

    @contextmanager
    def current(self, attempt: Attempt) -> Iterator[None]:
        """Make an open attempt's request this thread's current one for a while."""
        self._requests.enter(attempt.request)
        try:
            yield
        finally:
            self._requests.leave(attempt.request)

    def _attempt(
        self,
        claim: Claim,
        waited: float,
        *,
        now: datetime | None = None,
        delete_completed: bool = False,
    ) -> Attempt:
        started_at = claim.claimed_at + timedelta(0, waited)
        return Attempt(claim, started_at, now, delete_completed, self._telling.starting())

    def _go(self, attempt: Attempt, steps: Steps) -> Outcome:
        """Take steps, until one of them ends the attempt; the last one does."""
        outcome: Outcome | None = None
        try:
            for step in steps:
                outcome = step(attempt)
                if outcome is not None:
                    break
        except BaseException as error:  # noqa: BLE001 - also a SystemExit ends only the job
            outcome = self._undo(attempt, error)
        finally:
            if outcome is not AWAY:
                self._close(attempt)
        assert outcome is not None, "the last step ends every attempt"
        if outcome is not AWAY:
            note(log, attempt.claim, outcome)
        return outcome

    def ask_to_cancel(self, ids: Collection[str]) -> None:
        """Let running jobs know that they are asked to stop."""
        for id in ids:
            attempt = self._running.get(id)
            current = None if attempt is None else attempt.current
            if attempt is not None and current is not None:
                current.request_cancel()
                attempt.guard.ask_to_stop()

    def running(self) -> list[Claim]:
        """The claims whose code is running."""
        return [attempt.claim for attempt in self._running.copy().values()]

    def has_begun(self, claim: Claim) -> bool:
        """Whether the job's own code has been reached, and has not returned."""
        attempt = self._running.get(claim.id)
        return attempt is not None and attempt.claim is claim and attempt.begun

    # The steps, in their order. One that returns an outcome is the last.

    def _expire(self, attempt: Attempt) -> Outcome | None:
        if not attempt.claim.options:
            return None
        reason = too_late(attempt.claim, attempt.as_of or attempt.started_at)
        return None if reason is None else expired(attempt.claim, reason)

    def _load(self, attempt: Attempt) -> Outcome | None:
        try:
            attempt.definition = self._scheduler.allowed.load(attempt.claim.func)
        except UnknownFunction as error:
            return self._leave_to_others(attempt.claim, error)
        return None

    def _open(self, attempt: Attempt) -> None:
        attempt.store, attempt.requests = self._store, self._requests
        attempt.manager = JobTransactionManager()
        attempt.request = self._requests.open(attempt.manager)
        attempt.manager.open()

    def _decode(self, attempt: Attempt) -> None:
        claim, request, name = attempt.claim, attempt.request, self._settings.dbsession
        serializer = self._serializer(claim.codec)
        attempt.args, attempt.kwargs = serializer.load_call(
            claim.payload, lambda ref: load_entity(request, name, ref)
        )
        attempt.prepare(serializer, self._scheduler)

    def _call(self, attempt: Attempt) -> None:
        assert attempt.current is not None
        attempt.guard = self.stopper.guard(attempt.claim.options.get("timeout"))
        self._running[attempt.claim.id] = attempt
        folder = attempt.claim.options.get("working_dir")
        with use_job(attempt.current):
            if folder is None:
                result = attempt.guard.call(self._invoke, attempt)
            else:
                with working_dir(folder):
                    result = attempt.guard.call(self._invoke, attempt)
        self._keep(attempt, result)

    def _move(self, attempt: Attempt) -> Outcome | None:
        """Call code that may be awaited elsewhere: not where a folder is the thread's own.

        A routine's constructor and check run here, the rest when it is awaited.
        """
        if not attempt.definition.is_async:
            return None
        if self._delegator is not None or attempt.claim.options.get("working_dir"):
            return None
        assert attempt.current is not None
        attempt.guard = self.stopper.guard(attempt.claim.options.get("timeout"))
        self._running[attempt.claim.id] = attempt
        with use_job(attempt.current):
            attempt.coroutine = attempt.guard.call(call, attempt)
        self._requests.leave(attempt.request)
        return AWAY

    def _commit(self, attempt: Attempt) -> Outcome:
        outcome = succeeded(
            attempt.claim,
            attempt.result,
            started_at=attempt.started_at,
            text=attempt.dump_result(self._settings.max_args_size),
            userdata=attempt.dump_userdata(),
            delete=attempt.delete_completed,
        )
        if commit(self._store, attempt.joined(), outcome.completion, attempt.manager):
            return outcome._replace(completion=None)
        return outcome

    # What the steps need.

    def _invoke(self, attempt: Attempt) -> Any:
        done = self._delegator is not None and self._delegator(
            attempt.definition.func, attempt.args, attempt.kwargs
        )
        return OK if done else invoke(attempt)

    def _keep(self, attempt: Attempt, result: Any) -> None:
        if result is RETRY:
            raise Retry
        attempt.result = None if result is OK or result is IGNORE else result

    def _serializer(self, codec: str) -> Serializer:
        found = self._serializers.get(codec)
        if found is None:
            try:
                found = stored_serializer(codec, self._scheduler.serializer, self._settings.secrets)
            except InvalidSetting as error:
                raise BrokenJob(f"its arguments cannot be read: {error}") from error
            self._serializers[codec] = found
        return found

    def _leave_to_others(self, claim: Claim, error: UnknownFunction) -> Outcome:
        """Give back a job whose function a newer daemon may know; in the end it is broken."""
        seen = self._unknown_since.setdefault(claim.func, claim.claimed_at)
        waited = (claim.claimed_at - max(seen, claim.run_at)).total_seconds()
        if waited >= self._settings.unknown_grace:
            return broken(claim, error)
        pause = max(UNKNOWN_PAUSE, waited * UNKNOWN_SHARE)
        return Outcome(state=SCHEDULED, error=error, give_back=pause)

    def _undo(self, attempt: Attempt, error: BaseException) -> Outcome:
        """Roll back what the job did, and decide how it goes on."""
        on_store = attempt.is_on_store()
        if attempt.request is not None:
            try:
                attempt.manager.abort()
            except NoTransaction:
                pass
            except Exception:
                log.exception("job %s: rolling back failed", attempt.claim.id)
        started = attempt.begun
        if is_ctrl_c(error):
            return Outcome(state=SCHEDULED, error=error, give_back=0.0, started=started)
        return interruption(error, self._store, on_store=on_store, started=started) or raised(
            attempt.claim,
            error,
            started_at=attempt.started_at,
            as_of=attempt.as_of,
            userdata=attempt.dump_userdata(),
            rng=self._rng,
            zone=self._settings.zone,
            asked_to_stop=attempt.current is not None and attempt.current.cancel_requested,
        )

    def _close(self, attempt: Attempt) -> None:
        """Leave nothing behind, however the attempt ended."""
        if self._running.get(attempt.claim.id) is attempt:
            del self._running[attempt.claim.id]
        if attempt.request is None:
            return
        try:
            attempt.finish_progress()
            # The two hold each other. Apart, all of an attempt is freed at once, not by a search.
            attempt.current = None
            self._requests.close(attempt.request)
        except Exception:
            log.exception(
                "job %s: cleaning up failed",
                attempt.claim.id,
                extra={"action": "cleanup_failed", "job": attempt.claim.id},
            )


def is_ctrl_c(error: BaseException | None) -> bool:
    """Whether the command is to stop (Ctrl-C), rather than the job. Only the main thread is told."""
    main = threading.current_thread() is threading.main_thread()
    return main and isinstance(error, KeyboardInterrupt)

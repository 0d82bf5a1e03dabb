"""Housekeeping: what goes after a while, by one daemon of all, beside the work (daemon)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from transaction.interfaces import NoTransaction

from .completing import commit, joined_session
from .definitions import MARK
from .exceptions import StoreUnavailable
from .interfaces import IScheduler
from .job_transaction import JobTransactionManager
from .jobrequest import JobRequests
from .setting_names import import_setting
from .store.deliveries import Deliveries
from .telling import SILENT, Telling

log = logging.getLogger(__name__)

REST: Final = 3.0
"""How long it rests after each batch, in times of what that took: so a million old jobs never take
more than a quarter of one connection, or of SQLite's one writer."""

LONGEST_SLEEP: Final = 3600.0
"""Seconds until it looks again whether its turn has come: somebody may have changed the setting."""

RETRY: Final = 30.0
"""Seconds until it tries again when the store was away; it is in no hurry."""


class Housekeeper:
    """Removes, every ``scheduler.housekeeping`` seconds, what ended ``scheduler.retention`` ago.

    Then it calls what ``scheduler.housekeeping.append`` names. All daemons of a store take turns: the
    store's clock decides, and one of them does it. It has a thread of its own, since nothing of
    this may delay a heartbeat.

    Raises InvalidSetting where the setting names nothing.
    """

    def __init__(self, registry: Any, telling: Telling = SILENT) -> None:
        self._telling = telling
        scheduler = registry.getUtility(IScheduler)
        self._store = scheduler.store
        self._every = scheduler.settings.housekeeping
        self._retention = scheduler.settings.retention
        self._requests = JobRequests(registry, scheduler.settings.dbsession)
        name = scheduler.settings.housekeeping_append
        self._appended: Any = import_setting("housekeeping.append", name) if name else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="durable-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin to wait for the first turn."""
        self._thread.start()

    def close(self) -> None:
        """Begin nothing any more; what is begun ends after its batch, or its call."""
        self._stop.set()

    def stop(self, timeout: float) -> None:
        """Close, and wait so many seconds for what is begun."""
        self.close()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def keep_house(self) -> int:
        """Do it now, whoever's turn it is; returns how many jobs were removed."""
        began = time.monotonic()
        removed = self._guarded("removing what is old", self._remove) or 0
        if self._appended is not None and not self._stop.is_set():
            self._guarded("scheduler.housekeeping.append", self._call_appended)
        log.info(
            "housekeeping: %d ended jobs removed in %.1f s",
            removed,
            time.monotonic() - began,
            extra={"action": "housekeeping", "number": removed},
        )
        return removed

    def _work(self) -> None:
        pause = 0.0
        while not self._stop.wait(min(pause, LONGEST_SLEEP)):
            try:
                pause = self._store.retention.turn(self._every)
            except StoreUnavailable:
                pause = RETRY
            except Exception:
                log.exception("housekeeping failed", extra={"action": "housekeeping_failed"})
                pause = RETRY
            else:
                if not pause:
                    self.keep_house()

    def _remove(self) -> int:
        number = 0
        if self._retention is not None:
            began = time.monotonic()
            for batch in self._store.retention.remove(older_than=self._retention):
                number += len(batch)
                self._telling.wait_for_room()
                self._telling.removed(batch)
                if self._stop.wait((time.monotonic() - began) * REST):
                    return number
                began = time.monotonic()
        self._store.retention.remove_orphans()
        Deliveries(self._store).forget()
        return number

    def _call_appended(self) -> None:
        """Call it as a job is: with a request and a transaction of its own."""
        func = self._appended
        definition = getattr(func, MARK, None)
        manager = JobTransactionManager()
        request = self._requests.open(manager)
        try:
            manager.open()
            passes_request = definition is not None and definition.pass_request
            result = func(request) if passes_request else func()
            if inspect.iscoroutine(result):
                asyncio.run(result)
            joined = joined_session(self._store, self._requests.session(request), manager)
            commit(self._store, joined, None, manager)
        except BaseException:
            _abort(manager)
            raise
        finally:
            self._requests.close(request)

    def _guarded(self, what: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except StoreUnavailable as error:
            log.warning(
                "housekeeping: %s: %s", what, error, extra={"action": "housekeeping_failed"}
            )
        except BaseException:
            # Also a SystemExit of the application's: it ends neither the thread nor the daemon.
            log.exception("housekeeping: %s failed", what, extra={"action": "housekeeping_failed"})
        return None


def _abort(manager: JobTransactionManager) -> None:
    with contextlib.suppress(NoTransaction):
        manager.abort()

"""The completion writer: how attempts ended, written in batches by one thread (daemon)."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import islice
from typing import Any, Final

from .endings import Ending, GiveBack, fence_of, give_back, size_of
from .exceptions import StoreUnavailable
from .records import FAILED, Completion
from .store.outages import refuses_to_write
from .telling import SILENT, Telling

log = logging.getLogger(__name__)

LARGEST_BATCH: Final = 1000
"""Rows in one statement. Larger ones gain nothing and hold their row locks longer."""

LINGER: Final = ((0.002,), (0.005,) * 4)
"""Seconds to let a batch grow, when the last one was small and when it was not, in slices: one that
has brought nothing is the last. A transaction costs as much as some hundred rows, and nobody waits
for a completion; but a lone job's should show soon."""

LARGEST_TEXT: Final = 4_000_000
"""Characters of results, errors and userdata in one statement, unless one ending alone has more.
MariaDB closes the connection on a packet of more than 16 MB, which looks like an outage."""

GOOD_BATCH: Final = 200
"""Endings that are written without letting more come: with them a transaction is paid for, and
meanwhile as many come again."""

BUSY_BATCH: Final = 10
"""A batch from this size on means more is coming."""

FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 5.0
"""Seconds between tries while the store is away: a failover takes some seconds, and when it is over
the leases of what waits here are running."""

DOUBTFUL: Final = 3
"""Failures in a row, while the store takes other writes, after which a batch itself is to blame."""


Entry = Ending | threading.Event | None
"""What waits: an Event is set when all before it is written; None ends the thread."""


class Recorder:
    """Takes endings from any thread and writes them; none is lost while the process lives.

    Endings that wait are written together. While the store is away they are kept and tried again.
    A batch that the database refuses for what is in it is split, so that only the one it cannot
    take is replaced by a failure that says so.
    """

    def __init__(self, store: Any, *, poison_limit: int, telling: Telling = SILENT) -> None:
        self._store = store
        self._poison_limit = poison_limit
        self._telling = telling
        # What is being written stays here until it is: what is held is what is here.
        self._waiting: deque[Entry] = deque()
        self._sleeps = False
        self._come = threading.Event()
        self._hurry = threading.Event()
        self._quit = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._work, name="durable-recorder", daemon=True)

    def start(self) -> None:
        """Start the writer's thread."""
        self._thread.start()

    def add(self, ending: Ending) -> None:
        """Hand over an ending; returns at once."""
        self._waiting.append(ending)
        # The thread says that it sleeps, and looks then; so one of the two sees the other. One that
        # was woken looks again, so that only the first has to wake it.
        if self._sleeps and not self._come.is_set():
            self._come.set()

    def holding(self) -> set[tuple[str, int]]:
        """The claims whose endings are not written yet, as (id, claim_no)."""
        return {fence_of(one) for one in self._waiting.copy() if isinstance(one, Ending)}

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over is written; False when the time was up first."""
        written = threading.Event()
        self._mark(written)
        return written.wait(timeout)

    def stop(self, timeout: float) -> bool:
        """Write what is left and end the thread; False when some of it could not be written.

        What could not be is run again by the daemon that takes the work over.
        """
        self._mark(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)
            self._quit.set()
            self._thread.join(sum(LINGER[1]))
        left = sum(isinstance(one, Ending) for one in self._waiting.copy())
        if left:
            log.error(
                "%d endings of jobs could not be written before the end; these jobs run again",
                left,
                extra={"action": "completions_lost"},
            )
        return not left

    def _mark(self, mark: threading.Event | None) -> None:
        """Put a mark behind what waits, which is not to wait for more."""
        self._waiting.append(mark)
        self._hurry.set()
        self._come.set()

    def _work(self) -> None:
        busy = last = False
        while not last and not self._quit.is_set():
            batch = self._gather(LINGER[busy])
            busy = len(batch) >= BUSY_BATCH
            completions = [one for one in batch if isinstance(one, Completion)]
            # Most batches have nothing else, and are not gone through for it.
            others = batch if len(completions) < len(batch) else []
            last = None in others
            if self._write_all(completions, [one for one in others if isinstance(one, GiveBack)]):
                for _ in batch:
                    self._waiting.popleft()
                for one in others:
                    if isinstance(one, threading.Event):
                        one.set()

    def _gather(self, linger: Sequence[float]) -> list[Entry]:
        """What is to be written next, waiting for the first and a little for more."""
        while not self._waiting:
            self._come.clear()  # before it sleeps: what is set from then on wakes it
            self._sleeps = True
            if not self._waiting:
                self._come.wait()
            self._sleeps = False
        let_grow(self._waiting, self._hurry.wait, linger)
        self._hurry.clear()
        # Of a copy, since others append meanwhile.
        return fitting(list(islice(self._waiting.copy(), LARGEST_BATCH)))

    def _write_all(self, completions: Sequence[Completion], given_back: Sequence[GiveBack]) -> bool:
        """Write a batch, however often that has to be tried; False when told to give up."""
        written = not completions or self._record(completions)
        return written and (not given_back or self._return(given_back))

    def _record(self, completions: Sequence[Completion]) -> bool:
        try:
            return self._insist(lambda: self._write(completions))
        except Exception as error:  # noqa: BLE001 - whatever it is, only one row may be to blame
            return self._split(completions, error)

    def _return(self, given_back: Sequence[GiveBack]) -> bool:
        try:
            return self._insist(lambda: self._release(given_back))
        except Exception:
            log.critical(
                "%d claims could not be given back",
                len(given_back),
                exc_info=True,
                extra={"action": "release_failed"},
            )
            return True

    def _insist(self, write: Callable[[], None]) -> bool:
        """Try until it is written, or False when told to give up.

        Raises what the database says of the statement; also StoreUnavailable, where it fails again
        and again while the store takes other writes.
        """
        pause, failures = FIRST_RETRY, 0
        while True:
            try:
                write()
            except StoreUnavailable as error:
                self._note_away(error)
                failures += 1
                doubtful = failures >= DOUBTFUL and not refuses_to_write(error.__cause__)
                if doubtful and self._store.works():
                    raise
            else:
                self._note_back()
                return True
            if self._quit.wait(pause):
                return False
            pause = min(pause * 2, LONGEST_RETRY)

    def _write(self, completions: Sequence[Completion]) -> None:
        with self._store.begin() as connection:
            accepted = self._store.completions.write(connection, completions)
        self._telling.written(completions, accepted)
        if len(accepted) == len(completions):
            return
        for completion in completions:
            if (completion.id, completion.claim_no) not in accepted:
                note_lost(completion.id, completion.claim_no)

    def _split(self, completions: Sequence[Completion], error: Exception) -> bool:
        """Find the completion the database cannot take, and write that its job failed instead."""
        middle = len(completions) // 2
        if middle:
            return self._record(completions[:middle]) and self._record(completions[middle:])
        (completion,) = completions
        substitute = unwritable(completion)
        # Not the whole error: a database's shows the values, which are the application's.
        cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
        name = type(getattr(cause, "orig", cause)).__name__
        extra = {"action": "completion_unwritable", "job": completion.id}
        if substitute == completion:
            log.critical("job %s: its end cannot be stored: %s", completion.id, name, extra=extra)
            self._telling.written(completions, ())
            return True
        log.error("job %s: its end cannot be stored as it is: %s", completion.id, name, extra=extra)
        return self._record([substitute])

    def _release(self, given_back: Sequence[GiveBack]) -> None:
        give_back(self._store, given_back, poison_limit=self._poison_limit, telling=self._telling)

    def _note_away(self, error: StoreUnavailable) -> None:
        if not self._away:
            log.warning(
                "ends of jobs wait for the store: %s", error, extra={"action": "completions_wait"}
            )
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.info("ends of jobs are written again", extra={"action": "completions_go_on"})
        self._away = False


def let_grow(waiting: Sized, wait: Callable[[float], bool], slices: Iterable[float]) -> None:
    """Wait for as long as more keeps coming, and a transaction is not paid for yet.

    ``wait`` takes seconds, and tells whether there is no time for that any more.
    """
    before = 0
    for pause in slices:
        now = len(waiting)
        if not before < now < GOOD_BATCH or wait(pause):
            return
        before = now


def fitting(batch: list[Entry]) -> list[Entry]:
    """The first of a batch, as many as one statement takes the texts of."""
    # Most have none; no function is called for each of those.
    with_texts = [
        one
        for one in batch
        if isinstance(one, Completion) and (one.result or one.errors or one.userdata)
    ]
    room = LARGEST_TEXT
    for one in with_texts:
        room -= size_of(one)
        if room <= 0:
            return batch[: batch.index(one) + 1]
    return batch


def unwritable(completion: Completion) -> Completion:
    """What to store where the end of an attempt cannot be stored: that, and nothing of its texts."""
    return completion._replace(
        state=FAILED,
        due_at=None,
        delay=None,
        result=None,
        userdata=None,
        carry_to=None,
        errors='["how this attempt ended could not be stored; see the daemon\'s log"]',
    )


def note_lost(id: str, claim_no: int) -> None:
    """Log that a job's end was dropped: the claim was no longer ours."""
    log.warning(
        "job %s: claim %d was lost to another daemon (or its end was written before the "
        "connection broke); what this attempt wrote about the job is dropped",
        id,
        claim_no,
        extra={"action": "claim_lost", "job": id},
    )

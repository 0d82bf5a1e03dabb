"""The verbs that change what is stored: cancel, pause, run, retry, modify and others (both)."""

from __future__ import annotations

from typing import Any

from .bound import Bound
from .changes import (
    CANCEL,
    PAUSE,
    PAUSE_QUEUE,
    REMOVE,
    RESUME,
    RESUME_QUEUE,
    RETRY,
    RUN,
    Change,
)


class Changing(Bound):
    """Changes to jobs, schedules and queues; they happen if the request's transaction commits.

    ``id`` is a job's or a schedule's; where both have it, the job's. Each verb returns True if it
    changed anything; an unknown id is no error. With ``producer = broker`` it returns True when it
    was asked for, and what a daemon then refuses is logged there.

    Raises StoreUnavailable, or BrokerUnavailable.
    """

    def cancel_job(self, id: str, queue: str | None = None) -> bool:
        """Cancel a job that waits, ask one that runs to stop, end a schedule.

        With ``queue`` only there. Raises InvalidQueue for one that is not configured.
        """
        if queue is not None:
            queue = self._scheduler.specs.queue(queue)
        return self._change(Change(verb=CANCEL, id=str(id), queue=queue))

    def pause_job(self, id: str) -> bool:
        """Keep a waiting job from starting, or a schedule from firing, until it is resumed."""
        return self._change(Change(verb=PAUSE, id=str(id)))

    def resume_job(self, id: str) -> bool:
        """Let a paused job start when it was due, at once if that is over (it may be too late by
        its own ``expires`` or ``misfire_grace_time``); let a paused schedule go on from its next
        fire time. Those it has missed make no jobs, but one account that says how many.
        """
        return self._change(Change(verb=RESUME, id=str(id)))

    def run_job(self, id: str) -> bool:
        """Make a waiting job due now, also a paused one. Of a schedule, make one job more, now,
        whatever its pause, limits and fire times, which stay as they are. (Its behavior may refuse
        it: DuplicateJob.)
        """
        return self._change(Change(verb=RUN, id=str(id)))

    def retry_job(self, id: str) -> bool:
        """Let a job that failed, was broken, was cancelled or expired wait again, due now.

        It has all its attempts again, and keeps its errors. Its behavior is asked again: raises
        DuplicateJob where that refuses it.
        """
        return self._change(Change(verb=RETRY, id=str(id)))

    def remove_job(self, id: str) -> bool:
        """Delete a job that waits or has ended; end and delete a schedule, whose jobs stay.

        A job that runs is asked to stop, and deleted within a heartbeat of its attempt's end. A
        declared schedule is back when the next daemon starts.
        """
        return self._change(Change(verb=REMOVE, id=str(id)))

    def modify_job(self, id: str, **changes: Any) -> bool:
        """Give a waiting job or a schedule other options than it was added with.

        ``args``, ``kwargs``, ``queue`` and the options of ``add_*``, read as there; one that is None
        is taken away. ``args`` are all that JobInfo shows: the object of a bound method comes first.
        Of a schedule it concerns the jobs it is going to make; in a declared one it stays until its
        declaration says something else about that very thing.

        Raises TypeError for an unknown option, InvalidJob for a bad value, InvalidQueue, and
        DuplicateJob where the behavior refuses what the job would be.
        """
        scheduler = self._scheduler
        with scheduler.outbox(self._request()) as outbox:
            change = scheduler.change_maker.modify(str(id), changes, now=outbox.now())
            return outbox.change(change)

    def reschedule_job(self, id: str, date: Any = None, **trigger: Any) -> bool:
        """Give a waiting job another ``date``, or a schedule other fields of an interval or of cron.

        ``trigger`` may also have ``start_date``, ``end_date``, ``timezone`` and ``jitter``; the last
        three stay as they are otherwise. A schedule goes on from now, also one that has ended; what
        is left of its iterations, and its userdata, stay.

        Raises TypeError for an unknown field, InvalidJob for what cannot be read or would never
        fire, and for a date where ``id`` is a schedule's, or fields where it is a job's.
        """
        scheduler = self._scheduler
        with scheduler.outbox(self._request()) as outbox:
            now = outbox.now()
            change = scheduler.change_maker.reschedule(str(id), date, trigger, now=now)
            return outbox.change(change)

    def pause_queue(self, name: str) -> bool:
        """Let nothing of a queue start any more, in any daemon. What runs is not touched.

        Its schedules do not fire meanwhile; when it is resumed they do what they do after an outage
        (``coalesce``). Raises InvalidQueue.
        """
        name = self._scheduler.specs.named_queue(name)
        return self._change(Change(verb=PAUSE_QUEUE, id=name, queue=name))

    def resume_queue(self, name: str) -> bool:
        """Let jobs of a queue start again, and its schedules fire. Raises InvalidQueue."""
        name = self._scheduler.specs.named_queue(name)
        return self._change(Change(verb=RESUME_QUEUE, id=name, queue=name))

    def _change(self, change: Change) -> bool:
        with self._scheduler.outbox(self._request()) as outbox:
            return outbox.change(change)

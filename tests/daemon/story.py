"""What was heard of each job, as a word: one letter for each event."""

from __future__ import annotations

import re
import threading
from collections import defaultdict

from pyramid_durable.events import EVENTS, JobEvent

LETTERS = {
    "JobCreated": "C",
    "JobStarted": "S",
    "JobRetrying": "r",
    "JobSucceeded": "s",
    "JobFailed": "f",
    "JobCancelled": "c",
    "JobExpired": "e",
    "JobBroken": "b",
    "JobRemoved": "X",
}
assert set(LETTERS) == {event.__name__ for event in EVENTS if issubclass(event, JobEvent)}

LAWFUL = re.compile(r"C(Sr)*(S[sfc]|e|b)X?")
"""A whole life that one daemon has seen from the beginning to the end."""


class Story:
    """A listener that writes everything down."""

    def __init__(self):
        self.events = []
        self.threads = set()

    def __call__(self, event):
        self.events.append(event)
        self.threads.add(threading.current_thread().name)

    @property
    def words(self):
        """What was heard of each job, by its id."""
        words = defaultdict(str)
        for event in list(self.events):
            if isinstance(event, JobEvent):
                words[event.job.id] += LETTERS[type(event).__name__]
        return words

    def of(self, kind):
        """The events of one class."""
        return [event for event in list(self.events) if isinstance(event, kind)]

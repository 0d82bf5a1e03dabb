"""umeboshi's examples in this package's words; what they did is in ``calls``."""

from __future__ import annotations

import os
import pickle
from typing import Any

from pyramid.threadlocal import get_current_request
from sqlalchemy import Boolean, Column, Integer, String, Table

from pyramid_durable import Retry, TriggerBehavior, job, routine
from tests.web.site import mapper

calls: list[Any] = []


@mapper.mapped
class JetSki:
    __table__ = Table(
        # One for each process: two runs at once share the database.
        f"web_test_jetski_{os.getpid()}",
        mapper.metadata,
        Column("id", Integer, primary_key=True),
        Column("renter", String(50)),
        Column("out_for_rent", Boolean, nullable=False),
    )


@routine
class JetSkiLateFee:
    trigger_name = "ski-late-fee"

    def __init__(self, jetski_id: int, user: str) -> None:
        session = get_current_request().dbsession
        self.jetski = session.query(JetSki).filter_by(id=jetski_id).one()
        self.user = user

    def check_validity(self) -> bool:
        return bool(self.jetski.out_for_rent and self.jetski.renter == self.user)

    def run(self) -> None:
        calls.append((self.user, 600))


class Noted:
    """What the routines below have in common; fails where it is told to."""

    def __init__(self, who: Any, fails: bool = False) -> None:
        self.who = who
        self.fails = fails

    def run(self) -> None:
        calls.append((type(self).__name__, self.who))
        if self.fails:
            raise ValueError("the run failed")


@routine()
class Useful(Noted):
    trigger_name = "useful-routine"


@routine()
class ScheduleOnce(Noted):
    trigger_name = "schedule-once"
    behavior = TriggerBehavior.SCHEDULE_ONCE


@routine()
class RunOnce(Noted):
    trigger_name = "run-once"
    behavior = TriggerBehavior.RUN_ONCE


@routine()
class RunAndScheduleOnce(Noted):
    trigger_name = "run-and-schedule-once"
    behavior = TriggerBehavior.RUN_AND_SCHEDULE_ONCE


@routine()
class LastOnly(Noted):
    trigger_name = "last-only"
    behavior = TriggerBehavior.LAST_ONLY


@routine(trigger_name="delete-after", behavior=TriggerBehavior.DELETE_AFTER_PROCESSING)
class DeleteAfter(Noted):
    pass


@routine(task_group="mails", behavior=TriggerBehavior.SCHEDULE_ONCE)
class FirstMail(Noted):
    trigger_name = "first-mail"


@routine(task_group="mails", behavior=TriggerBehavior.SCHEDULE_ONCE)
class SecondMail(Noted):
    trigger_name = "second-mail"


@routine(task_group="mails", behavior=TriggerBehavior.LAST_ONLY)
class NewestMail(Noted):
    trigger_name = "newest-mail"


@routine(task_group="welcomes", behavior=TriggerBehavior.RUN_ONCE)
class WelcomeByMail(Noted):
    trigger_name = "welcome-by-mail"


@routine(task_group="welcomes", behavior=TriggerBehavior.RUN_ONCE)
class WelcomeByLetter(Noted):
    trigger_name = "welcome-by-letter"


@routine(trigger_name="retried")
class Retried:
    """Asks for another time until it has been tried often enough."""

    def __init__(self, times: int, date: Any = None) -> None:
        self.times = times
        self.date = date

    def run(self) -> str:
        calls.append("tried")
        if len(calls) < self.times:
            raise Retry(date=self.date)
        return "done"


@job
def take(*values: Any) -> None:
    calls.extend(values)


class CustomSerializer:
    """The one of umeboshi's README."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, 2)

    def loads(self, value: bytes) -> Any:
        return pickle.loads(value, fix_imports=True, encoding="latin1")  # noqa: S301 - as it was there


class EmptySerializer:
    """A serializer without its methods."""

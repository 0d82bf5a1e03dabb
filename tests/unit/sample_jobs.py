"""Decorated definitions for the unit tests; a package that is scanned holds them as well."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pyramid_durable.decorators import cron, interval, job, routine
from pyramid_durable.definitions import TriggerBehavior
from tests.unit.shapes import send as renamed_import
from tests.unit.shapes import wrapping

__all__ = ["os", "renamed_import", "subprocess"]

shell = os.system


@job
def plain(number: int, *, factor: int = 2) -> int:
    """Multiply."""
    return number * factor


@job(queue="mail", max_attempts=5, pass_request=True, pass_job=True, aliases=["old.mail:send"])
def mail(request: Any, running: Any, address: str) -> Any:
    return request, running, address


@job()
def asks(request: Any, number: int) -> Any:
    return request, number


@job(pass_request=False)
def asks_not(request: Any) -> Any:
    return request


@job
async def later(number: int) -> int:
    return number


@wrapping
@job(priority=3)
def wrapped(number: int) -> int:
    return number


class Kinds:
    @classmethod
    @job(priority=1)
    def of_class(cls) -> str:
        return cls.__name__

    @job(priority=2, aliases=["old.kinds:static"])
    @staticmethod
    def static() -> str:
        return "static"

    @staticmethod
    @interval(hours=1, name="of a class")
    def hourly() -> str:
        return "hourly"


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "unit_customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    @job(pass_job=True)
    def greet(self, request: Any, running: Any, word: str, mark: str = "") -> Any:
        return self.name, request, running, word, mark


@routine(
    trigger_name="late-fee",
    task_group="fees",
    behavior=TriggerBehavior.SCHEDULE_ONCE,
    aliases=["old.fees:LateFee"],
    queue="mail",
)
class LateFee:
    def __init__(self, jetski_id: int, user_id: int) -> None:
        self.ids = jetski_id, user_id

    def check_validity(self) -> bool:
        return self.ids[0] > 0

    def run(self) -> tuple[int, int]:
        return self.ids


class VeryLateFee(LateFee):
    """Not decorated itself."""


@routine
class Reminder:
    """As umeboshi had them."""

    trigger_name = "reminder"
    task_group = "reminders"
    behavior = TriggerBehavior.RUN_ONCE

    async def run(self) -> str:
        return "reminded"


class Called:
    trigger_name = "called"

    def run(self) -> None: ...


routine(Called, aliases=["old.fees:Called"])


@cron("0 3 * * *", timezone="Europe/Berlin")
def nightly() -> None: ...


@interval(minutes=10, iterations=3, name="poll")
@cron(hour=4, name="early", queue="mail")
@job(queue="mail")
def poll() -> None: ...


@cron("0 4 * * *", name="reminders")
@routine(trigger_name="remind")
class Remind:
    def run(self) -> None: ...


@interval(minutes=5, lazy=True)
def watch(what: str) -> str:
    return f"watched {what}"


@interval(minutes=5, lazy=True, name="mail watch", iterations=2)
@job(queue="mail")
def watch_mail() -> None: ...

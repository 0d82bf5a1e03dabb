"""sisy's examples in this package's words; what they were called with is in ``calls``."""

from __future__ import annotations

import os
import threading
from typing import Any

from pyramid.threadlocal import get_current_request
from sqlalchemy import Column, Integer, String, Table

from pyramid_durable import cron, current_job, job
from tests.web.site import mapper

calls: list[Any] = []
gates: dict[str, threading.Event] = {}
meeting: dict[str, threading.Barrier] = {}


def daily_maintenance() -> None:
    calls.append("maintained")


def failing() -> None:
    calls.append("failed")
    raise ValueError("no")


@mapper.mapped
class Foo:
    """A model of the application, with each kind of method."""

    __table__ = Table(
        # One for each process: two runs at once share the database.
        f"web_test_foo_{os.getpid()}",
        mapper.metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(50), nullable=False),
    )

    def instance_method(self) -> None:
        calls.append(f"of {self.name}")
        self.name = self.name.upper()

    @classmethod
    def class_method(cls) -> None:
        calls.append(f"of {cls.__name__}")

    @staticmethod
    def static_method() -> None:
        calls.append("static")


class Plain:
    """An object that no daemon could find again."""

    def method(self) -> None: ...


def count() -> int:
    """Read and write the data that are kept from run to run."""
    userdata = current_job().userdata
    userdata["runs"] = userdata.get("runs", 0) + 1
    current_job().set_progress(userdata["runs"], 3)
    if userdata["runs"] == 2:
        raise ValueError("the second run fails, and counts")
    return int(userdata["runs"])


@job(pass_job=True, pass_request=True)
def disable_itself(request: Any, task: Any) -> str:
    """What a sisy task does with ``message['task'].enabled = False``."""
    scheduler = request.registry.scheduler
    info = scheduler.get_job(task.id)
    assert task is current_job()
    scheduler.pause_job(info.schedule_id)
    return str(info.name)


def long_import(rows: list[str]) -> None:
    """Tell others how far it is, in the midst of its own transaction."""
    for row in rows:
        get_current_request().dbsession.add(Foo(name=row))
    get_current_request().dbsession.flush()
    current_job().userdata["rows"] = len(rows)
    current_job().save_userdata()
    current_job().set_progress(1, 2, "half")
    wait("import")


def wait(gate: str) -> None:
    calls.append(gate)
    assert gates[gate].wait(20)


def meet(where: str) -> None:
    """Return when as many are here as belong together."""
    meeting[where].wait(20)
    calls.append(where)


@cron("30 0 * * *", name="Daily data maintenance")
def declared() -> None:
    calls.append("declared")

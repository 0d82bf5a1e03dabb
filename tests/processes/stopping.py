"""The small application with jobs that do not end by themselves, or badly."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid.request import Request
from pyramid.router import Router

from pyramid_durable import current_job, job, processes
from pyramid_durable import stopping as grace
from pyramid_durable.events import JobEvent

from . import application
from .application import ran


def main(global_config: dict[str, str], **settings: Any) -> Router:
    # Tests do not wait as people do.
    grace.CANCEL_GRACE = processes.CANCEL_GRACE = 0.3
    router = application.main(global_config, **settings)
    if "application.story" in settings:
        args = [settings["application.story"]]
        router.registry.scheduler.add_listener(write_event, JobEvent, args=args)
    return router


def write_event(event: JobEvent, path: str) -> None:
    """Add what was told of a job to a file, with the process that told it."""
    reason = getattr(event, "reason", "")
    with Path(path).open("a") as lines:
        lines.write(f"{os.getpid()} {event.job.id} {type(event).__name__} {reason}\n")


def say(path: str, text: str = "") -> None:
    """Tell a test, which shares no transaction with the job: its process's id, and a text."""
    with Path(path).open("a") as lines:
        lines.write(f"{os.getpid()} {text}\n")


def sleep(path: str) -> None:
    say(path)
    time.sleep(300)


def compute(path: str) -> None:
    """Hold Python, in C code that takes years."""
    say(path)
    re.match(r"(a+)+$", "a" * 60 + "b")


@job(pass_request=True)
def write_and_loop(request: Request, number: int, path: str) -> None:
    """Write a row, then do not look whether somebody wants an end."""
    request.dbsession.execute(ran.insert().values(number=number, job=current_job().id))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)
    request.dbsession.flush()
    say(path)
    while True:
        time.sleep(0.01)


def until_asked(path: str) -> str:
    """Look, as a job should."""
    say(path)
    while not current_job().cancel_requested:
        time.sleep(0.01)
    return "stopped by itself"


def die(path: str, how: str) -> None:
    """Take the process along, as a crash in C code does."""
    say(path, how)
    os.kill(os.getpid(), getattr(signal, how))


def die_once(path: str) -> str:
    """Take the process along the first time, in the way that looks like a wanted end."""
    say(path)
    if len(Path(path).read_text().splitlines()) == 1:
        os._exit(0)
    return "the second time"


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = os.scandir


def fail() -> None:
    raise Unpicklable(1, 2)


def unstorable() -> Any:
    return lambda: None


@job(pass_request=True, pass_job=True, executor="process", timeout="60s")
async def everything(request: Request, this: Any, number: int) -> list[Any]:
    """What a job can use, in a process of its own."""
    this.userdata["number"] = number
    this.save_userdata()
    this.set_progress(1, 2, "half")
    request.dbsession.execute(ran.insert().values(number=number, job=this.id))
    zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)
    followed = request.scheduler.add_async_job(application.note, args=[number + 1])
    return [os.getpid(), followed, current_job() is this, request.registry.scheduler.aps]

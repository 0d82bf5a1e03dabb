"""The small application in a process that ends at a chosen step, as if the power had gone.

The step comes as ``crash=STEP:SIDE`` after the ini, as any variable for it does.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import zope.sqlalchemy
from pyramid.paster import bootstrap
from pyramid.router import Router
from sqlalchemy import Connection

from pyramid_durable import runner
from pyramid_durable.store.claims import Claims
from pyramid_durable.store.completions import Completions
from pyramid_durable.store.daemons import Daemons
from pyramid_durable.store.jobs import Jobs
from pyramid_durable.store.schedules import Schedules

from . import application

CRASHED = 77
"""The exit code of a process that reached its step."""

BEFORE, AFTER = "before", "after"


def main(global_config: dict[str, str], **settings: Any) -> Router:
    crash = global_config.get("crash")
    if crash:
        arm(*crash.split(":"))
    return application.main(global_config, **settings)


def die() -> None:
    os._exit(CRASHED)


def arm(step: str, side: str) -> None:
    """End this process at a step: just before, or just after the commit that it belongs to."""
    if step == "run":
        runner.invoke = around(runner.invoke, side)
        return
    reached: set[int] = set()
    owner, verb = {
        "enqueue": (Jobs, "gather"),
        "claim": (Claims, "take"),
        "advance": (Schedules, "fire"),
        "complete": (Completions, "write"),
        "batch": (Completions, "write"),
        "rescue": (Daemons, "rescue"),
    }[step]
    verb_as_it_was = getattr(owner, verb)

    @wraps(verb_as_it_was)
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = verb_as_it_was(*args, **kwargs)
        by_recorder = threading.current_thread().name == "durable-recorder"
        if (result or step == "enqueue") and by_recorder == (step == "batch"):
            reached.add(threading.get_ident())
        return result

    setattr(owner, verb, watched)
    Connection._commit_impl = around(
        Connection._commit_impl, side, lambda: threading.get_ident() in reached
    )


def around(
    function: Callable[..., Any], side: str, is_time: Callable[[], bool] = lambda: True
) -> Callable[..., Any]:
    @wraps(function)
    def dying(*args: Any, **kwargs: Any) -> Any:
        if side == BEFORE and is_time():
            die()
        result = function(*args, **kwargs)
        if side == AFTER and is_time():
            die()
        return result

    return dying


def ask(ini: str, crash: str, number: int, queue: str) -> None:
    """Write a row and ask for a job, in one transaction, as a view does."""
    environment = bootstrap(ini, options={"crash": crash})
    request = environment["request"]
    with request.tm:
        request.dbsession.execute(application.asked.insert().values(number=number))
        zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)
        request.scheduler.add_async_job(application.note, args=[number], queue=queue)


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])

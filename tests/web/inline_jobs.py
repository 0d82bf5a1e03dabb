"""The jobs of test_inline.py; what they are called with is in ``calls``."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import transaction

from pyramid_durable import Retry, current_job, job
from pyramid_durable.current import in_job
from tests.web.site import Rental

calls: list[Any] = []


@job(executor="inline", pass_request=True)
def look(request: Any, ski: str) -> str:
    """Note what an inline job sees: the data that were committed with it, in another thread."""
    seen = request.dbsession.query(Rental).filter_by(ski=ski).count()
    calls.append(
        {
            "seen": seen,
            "thread": threading.current_thread().name,
            "manager": transaction.manager.get() is request.tm.get(),
        }
    )
    request.dbsession.add(Rental(ski=f"{ski} was seen"))
    return ski


@job(executor="inline")
def note(what: Any) -> None:
    calls.append(what)


@job(executor="auto")
def note_auto(what: Any) -> None:
    calls.append(what)


@job(executor="inline", pass_request=True)
def fail(request: Any) -> None:
    request.dbsession.add(Rental(ski="never"))
    request.dbsession.flush()
    raise ValueError("the job fails")


@job(executor="inline")
def try_again() -> None:
    calls.append(current_job().attempt)
    if current_job().attempt == 1:
        raise Retry(delay=0)


@job(executor="inline")
def chain(left: int) -> None:
    """Ask for itself again; the thread shows that the calls are not nested."""
    calls.append((left, threading.current_thread().ident))
    if left:
        chain.enqueue(left - 1)


@job
def ask_for_another() -> None:
    note.enqueue(in_job())
    calls.append("asked")


@job(executor="inline")
async def later() -> str:
    await asyncio.sleep(0)
    return "later"


@job(executor="inline")
def die(path: str) -> None:
    """Take the whole process along, the first time."""
    if not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            os._exit(9)
    calls.append("after the death")

"""uwsgi_tasks' examples in this package's words; what they are called with is in ``calls``."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pyramid_durable import IGNORE, OK, RETRY, Retry, cron, current_job, interval, job

calls: list[Any] = []


@job
def note(what: Any = None) -> Any:
    calls.append(what)
    return what


@job(executor="inline")
def at_once(what: str) -> None:
    calls.append((what, threading.current_thread().name))


@job(executor="auto")
def somewhere(what: str) -> None:
    calls.append((what, threading.current_thread().name.rpartition("-")[0]))


@job
def where_am_i() -> None:
    calls.append(Path.cwd())


@job(working_dir="/")
def at_the_root() -> None:
    calls.append(Path.cwd())


@job
def spool(code: str) -> Any:
    calls.append(code)
    return {"ok": OK, "retry": RETRY, "ignore": IGNORE}[code]


@job(max_attempts=3, backoff="5s")
def spooler_task(text: str) -> None:
    calls.append(text)
    raise ValueError("Sorry, task failed!")


@job
def process_purchase(order_id: int) -> str:
    """Ask for one more attempt, in 10 seconds, whatever the options say."""
    calls.append(current_job().attempt)
    if current_job().attempt == 1:
        raise Retry(delay=10, max_attempts=2)
    return f"order {order_id}"


@job
def never_done() -> None:
    calls.append(current_job().attempt)
    raise Retry(delay=10, max_attempts=2)


@interval(seconds=0.05, iterations=3, queue="mail", name="three times")
def three_times() -> None:
    calls.append("three times")


@interval(seconds=5, iterations=2, lazy=True, queue="mail")
def after_a_call(what: str) -> None:
    calls.append(what)


@cron(minute=-2, name="every two minutes")
def every_two_minutes() -> None:
    calls.append("every two minutes")


@cron(hour=-1, minute=30, second=-20, lazy=True, queue="mail")
def cron_after_a_call(what: str) -> None:
    calls.append(what)


@job
def remove_files(files: list[str]) -> str:
    """Remove one file after the other, each in a run of its own; the results go along."""
    running = current_job()
    first, *rest = files
    calls.append(first)
    removed = running.userdata.setdefault("results", [])
    if first == "locked" and running.attempt == 1:
        running.userdata["errors"] = first
        raise Retry(delay="20s", max_attempts=2)
    removed.append(first)
    if not rest:
        return f"{removed}, errors: {running.userdata.get('errors')}"
    return running.reschedule("10s", args=[rest])


def renamed() -> None:
    calls.append("renamed")

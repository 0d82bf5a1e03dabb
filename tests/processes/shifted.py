"""pscheduler on a host whose clock is wrong: a module's main, like those of the scripts.

``shift=SECONDS,SECONDS,...`` among its arguments says by how much; each SIGUSR1 lets the clock jump
to the next. Only the wall clock is moved: the monotonic one is not set by anybody.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import time
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

REAL_TIME = time.time
REAL_NOW = datetime.now

offset = 0.0


def shift_clock() -> None:
    """Replace what Python code asks for the wall clock, for all that is imported from here on."""
    time.time = lambda: REAL_TIME() + offset
    time.time_ns = lambda: int((REAL_TIME() + offset) * 1e9)

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        if tz is None:
            return REAL_NOW() + timedelta(seconds=offset)
        return (REAL_NOW(timezone.utc) + timedelta(seconds=offset)).astimezone(tz)

    # The type itself, not the name of it: a subclass in its place would not be what drivers expect.
    (attributes,) = gc.get_referents(datetime.__dict__)
    attributes["now"] = classmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


def seen() -> list[int]:
    """By how many seconds the clock is off, as APScheduler, the package and logging see it."""
    import logging

    import apscheduler.schedulers.base

    import pyramid_durable.times

    real = REAL_TIME()
    loop: Any = apscheduler.schedulers.base
    times = (
        loop.datetime.now(timezone.utc).timestamp(),
        pyramid_durable.times.utcnow().timestamp(),
        logging.makeLogRecord({}).created,
    )
    return [round(one - real) for one in times]


def main() -> int:
    global offset
    shifts = next(one for one in sys.argv if one.startswith("shift=")).removeprefix("shift=")
    offset, *later = map(float, shifts.split(","))
    shift_clock()
    from pyramid_durable.scripts.pscheduler import main as pscheduler

    def jump(number: int, frame: Any) -> None:
        global offset
        offset = later.pop(0)
        sys.stderr.write(f"the clock is off by {seen()}\n")

    signal.signal(signal.SIGUSR1, jump)
    sys.stderr.write(f"the clock is off by {seen()}\n")
    return pscheduler()

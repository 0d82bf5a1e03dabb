"""Hosts whose clocks are wrong, and jump: on a server's database nobody notices."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pyramid.paster import bootstrap

from .application import metadata, note, note_and_nap, note_at_second
from .deployment import Deployment, deployed, wait_for
from .outages import APPLICATION, LIMITS

HOUR, YEAR = 3600, 365 * 86400

SHIFTS = {"ahead": (HOUR, -YEAR), "behind": (-YEAR, YEAR), "right": (0, 0)}
"""By how many seconds the clock is off on the host of each queue's daemon, before and after."""

FIRES = 3
LATE = timedelta(seconds=15)
"""What a busy machine may cost; a clock that is off costs an hour."""

ONCE = {"misfire_grace_time": "1m", "expires": "2m"}


RETRIES = {5: {"delay": "1s"}, 8: {"date": "1s"}}


def ask_for_work(app: Deployment) -> None:
    """Give every daemon jobs of each kind that has to do with time."""
    with bootstrap(str(app.ini)) as environment:
        scheduler = environment["registry"].scheduler
        for queue in SHIFTS:
            scheduler.add_async_job(note, args=[1], queue=queue, **ONCE)
            scheduler.add_date_job(note, "1s", args=[2], queue=queue, **ONCE)
            soon = datetime.now(timezone.utc) + timedelta(seconds=1.5)
            scheduler.add_date_job(note, soon, args=[3], queue=queue, **ONCE)
            # Several beats long: a daemon that is taken for dead loses it.
            scheduler.add_async_job(note_and_nap, args=[4, 2], queue=queue)
            for number, retry in RETRIES.items():
                scheduler.add_async_job(note_at_second, args=[number, retry], queue=queue)
            every = {"seconds": 1, "iterations": FIRES, "coalesce": False, "allow_overlap": True}
            scheduler.add_interval_job(note, args=[6], queue=queue, **every)
            for date in ("50m", "300d"):
                scheduler.add_date_job(note, date, args=[7], queue=queue)


DONE = len(SHIFTS) * (6 + FIRES)
"""Jobs that end, of those asked for at a time."""

JOBS = "SELECT id, queue, payload, state, attempt, crashes, run_at, started_at FROM durable_job"


def ended(app: Deployment) -> int:
    (row,) = app.ask("SELECT count(*) FROM durable_job WHERE finished_at IS NOT NULL")
    return int(row[0])


def test_clocks_that_are_wrong_and_jump_disturb_nothing(tmp_path: Path) -> None:
    queues = {"scheduler__queues": " ".join(SHIFTS), "application__yearly": "right"}
    with deployed(tmp_path, APPLICATION, "postgresql", "embedded", **LIMITS, **queues) as app:
        metadata.create_all(app.engine)
        assert app.run("pscheduler", "--migrate") == 0
        # The one that is behind is the first: it brings the declared schedule into the store.
        for queue in ("behind", "ahead", "right"):
            shifts = ",".join(map(str, SHIFTS[queue]))
            app.start("shifted", f"shift={shifts}", "-q", queue, name=queue)
            if queue == "behind":
                wait_for("the first", lambda: "daemon started" in app.log("behind"))
        for queue, (before, _) in SHIFTS.items():
            wait_for(f"{queue} to start", lambda queue=queue: "daemon started" in app.log(queue))
            assert f"the clock is off by {[before] * 3}\n" in app.log(queue)
        ask_for_work(app)
        wait_for("some to end", lambda: ended(app) >= len(SHIFTS))
        for queue, (_, after) in SHIFTS.items():
            app.send(queue, signal.SIGUSR1)
            said = f"the clock is off by {[after] * 3}\n"
            wait_for("the jump", lambda queue=queue, said=said: said in app.log(queue))
        ask_for_work(app)
        wait_for("all to end", lambda: ended(app) >= 2 * DONE)
        alive = app.ask("SELECT incarnation FROM durable_daemon")
        for queue in SHIFTS:
            assert app.stop(queue) == 0
        assert len(alive) == len(SHIFTS)
        check(app)


def check(app: Deployment) -> None:
    jobs = app.ask(JOBS)
    moments: dict[str, list[datetime]] = {}
    for id, at in app.ask("SELECT job, at FROM ran"):
        moments.setdefault(id, []).append(at)
    seen: dict[tuple[str, int], int] = {}
    for id, queue, payload, state, attempt, crashes, run_at, started_at in jobs:
        number = json.loads(payload)[0][0]
        seen[queue, number] = seen.get((queue, number), 0) + 1
        about = f"job {number} of {queue}: {state}, due {run_at}, ran {moments.get(id)}"
        assert crashes == 0, about
        if number == 7:
            assert (state, id in moments) == ("scheduled", False), about
            continue
        second = number in RETRIES
        assert (state, attempt) == ("succeeded", 1 + second), about
        (at,) = moments[id]
        due = run_at + timedelta(seconds=1) * second
        assert due <= at < due + LATE, about
        assert due <= started_at < due + LATE, about
    each = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2 * FIRES, 7: 4, 8: 2}
    assert seen == {(queue, number): times for queue in SHIFTS for number, times in each.items()}
    check_schedules(app)
    for queue in SHIFTS:
        for trouble in ("declared dead", "its daemon is gone", "given back", "Traceback"):
            assert trouble not in app.log(queue)


def check_schedules(app: Deployment) -> None:
    """One job for each fire time, a second apart; and the declared one waits for its day."""
    fires: dict[Any, list[datetime]] = {}
    question = "SELECT schedule_id, fire_at FROM durable_job WHERE fire_at IS NOT NULL"
    for schedule, fire_at in app.ask(f"{question} ORDER BY fire_at"):
        fires.setdefault(schedule, []).append(fire_at)
    for times in fires.values():
        assert [at - times[0] for at in times] == [timedelta(seconds=n) for n in range(FIRES)]
    (yearly,) = app.ask("SELECT next_run_at, now() FROM durable_schedule WHERE id = 'yearly'")
    assert timedelta() < yearly[0] - yearly[1] < timedelta(days=367)

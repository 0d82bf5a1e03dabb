"""A process that ends at any step, before or after its commit, loses nothing and doubles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyramid.paster import bootstrap

from .application import metadata, note, write_line
from .crashing import AFTER, BEFORE, CRASHED
from .deployment import DEADLINE, ROOT, Deployment, deployed, wait_for

APPLICATION = "tests.processes.crashing:main"
SIDES = (BEFORE, AFTER)

STEPS = [f"{step}:{side}" for step in ("claim", "complete", "batch", "advance") for side in SIDES]
"""Where a daemon ends, each on a queue of its own, so that it is its own work that it leaves."""

RUNS = [f"run:{side}" for side in SIDES]
RESCUES = [f"rescue:{side}" for side in SIDES]

FIRES = 3
"""Jobs of each schedule, one a second. Its daemon crashes at the first one."""

LIMITS = {
    "scheduler__heartbeat": "300ms",
    "scheduler__lease": "2s",
    "scheduler__poll_interval": "200ms",
}


def queue_of(step: str) -> str:
    return step.replace(":", "-")


QUEUES = ["default", *map(queue_of, [*STEPS, *RUNS, *RESCUES])]


def number_of(step: str) -> int:
    return QUEUES.index(queue_of(step))


def start_daemon(app: Deployment, step: str) -> str:
    """A daemon that serves its step's queue, and ends at its step."""
    return app.start("pscheduler", f"crash={step}", "--queue", queue_of(step), name=queue_of(step))


def see_it_crash(app: Deployment, names: Iterable[str]) -> None:
    for name in names:
        code = wait_for(f"{name} to crash", lambda name=name: app.processes[name].poll())
        assert code == CRASHED, f"{name} ended with {code}"


def ask_for_work(app: Deployment, lines: Path) -> None:
    """Give every daemon that is to crash the work that brings it to its step."""
    with bootstrap(str(app.ini), options={"crash": ""}) as environment:
        scheduler = environment["registry"].scheduler
        for step in [*STEPS, *RUNS]:
            number, queue = number_of(step), queue_of(step)
            if step.startswith("advance"):
                options = {"iterations": FIRES, "coalesce": False, "allow_overlap": True}
                scheduler.add_interval_job(note, args=[number], queue=queue, seconds=1, **options)
            elif step.startswith("batch"):
                scheduler.add_async_job(write_line, args=[str(lines / queue)], queue=queue)
            else:
                scheduler.add_async_job(note, args=[number], queue=queue)


def wait_for_leases(app: Deployment) -> None:
    """Wait until no daemon counts as living."""
    with bootstrap(str(app.ini), options={"crash": ""}) as environment:
        scheduler = environment["registry"].scheduler
        wait_for("all leases to end", lambda: scheduler.stats().daemons == 0)


def ask_and_crash(app: Deployment, side: str, number: int) -> None:
    """Ask for a job in a process that ends before or after the commit."""
    arguments = [str(app.ini), f"enqueue:{side}", str(number), "default"]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{app.folder}"}
    command = [sys.executable, "-m", "tests.processes.crashing", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, timeout=DEADLINE, capture_output=True, check=False
    )
    assert done.returncode == CRASHED, done.stderr.decode()


@pytest.mark.parametrize(("store", "broker"), [("sqlite", "embedded"), ("postgresql", "redis")])
def test_a_crash_at_any_step_keeps_the_laws(tmp_path: Path, store: str, broker: str) -> None:
    queues = {"scheduler__queues": " ".join(QUEUES)}
    with deployed(
        tmp_path, APPLICATION, store, broker, crash="%(crash)s", **LIMITS, **queues
    ) as app:
        metadata.create_all(app.engine)
        assert app.run("pscheduler", "crash=", "--migrate") == 0
        ask_for_work(app, tmp_path)
        ask_and_crash(app, BEFORE, 101)
        ask_and_crash(app, AFTER, 102)
        see_it_crash(app, [start_daemon(app, step) for step in STEPS])
        for step in [*RUNS, *RESCUES]:
            if step == RESCUES[-1]:
                # It ends with the first rescue, which is to be that of all that is left.
                wait_for_leases(app)
            # The last ones leave work behind for those who are to crash while they rescue it.
            see_it_crash(app, [start_daemon(app, step)])
        left = app.ask("SELECT id FROM durable_job WHERE state = 'running'")
        app.start("pscheduler", "crash=", name="healthy")
        unended = "SELECT count(*) FROM durable_job WHERE state IN ('scheduled', 'running')"
        alive = "SELECT count(*) FROM durable_schedule WHERE next_run_at IS NOT NULL"
        wait_for("all to end", lambda: app.ask(unended) == app.ask(alive) == [(0,)])
        assert app.stop("healthy") == 0
        assert not left, "the last daemon crashed after it had freed all"
        check(app, tmp_path)


def check(app: Deployment, lines: Path) -> None:
    assert app.ask("SELECT number FROM asked") == [(102,)], "data of a transaction not committed"
    jobs = app.ask("SELECT id, queue, state, attempt, crashes, owner, payload FROM durable_job")
    assert {(state, attempt, owner) for _, _, state, attempt, _, owner, _ in jobs} == {
        ("succeeded", 1, None)
    }, "every job ends, and a crash uses up no attempt"
    expected = {queue_of(step): FIRES if "advance" in step else 1 for step in [*STEPS, *RUNS]}
    assert Counter(queue for _, queue, *_ in jobs) == {**expected, "default": 1}
    check_effects(app, jobs, lines)
    for side in SIDES:
        queue = queue_of(f"advance:{side}")
        fires = f"SELECT fire_at FROM durable_job WHERE queue = '{queue}' ORDER BY fire_at"
        times = [datetime.fromisoformat(str(at)) for (at,) in app.ask(fires)]
        assert [at - times[0] for at in times] == [timedelta(seconds=n) for n in range(FIRES)]


def check_effects(app: Deployment, jobs: list[tuple[Any, ...]], lines: Path) -> None:
    """What a job wrote in its transaction is there once; what it wrote to a file, at least once."""
    by_queue = {queue: (id, crashes) for id, queue, _, _, crashes, *_ in jobs}
    noted = [(json.loads(payload)[0][0], id) for id, *_, payload in jobs]
    wanted = Counter((number, id) for number, id in noted if isinstance(number, int))
    assert Counter(app.ask("SELECT number, job FROM ran")) == wanted
    for step, times in ((f"batch:{BEFORE}", 2), (f"batch:{AFTER}", 1)):
        id, _ = by_queue[queue_of(step)]
        assert (lines / queue_of(step)).read_text().split() == [id] * times
    crashes = {queue: crashes for queue, (_, crashes) in by_queue.items()}
    for step in ("claim:before", "complete:after", "batch:after", "advance:before"):
        assert crashes[queue_of(step)] == 0, f"{step}: nothing was being run"
    for step in ("complete:before", "batch:before", "run:before", "run:after"):
        assert crashes[queue_of(step)] == 1, f"{step}: a daemon died under it"

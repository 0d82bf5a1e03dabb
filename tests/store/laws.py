"""The laws of jobs and schedules, checked on the tables before and after each step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from pyramid_durable.records import ENDED, RUNNING, SCHEDULED
from pyramid_durable.store import Store

Row = Mapping[str, Any]

BORN_WITH = (
    *("kind", "func", "payload", "codec", "queue", "priority", "group_name", "run_at"),
    *("created_at", "schedule_id", "fire_at"),
)
"""What a job is born with, and no step changes."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the store's tables hold at one moment; ``jobs`` without the accounts.

    ``paused`` are the ids that the pause table remembers.
    """

    jobs: Mapping[str, Row]
    accounts: Mapping[str, Row]
    schedules: Mapping[str, Row]
    daemons: frozenset[str]
    paused: frozenset[str]


def take_picture(store: Store) -> Picture:
    tables = store.tables
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(select(tables.job)).mappings()]
        schedules = [dict(row) for row in connection.execute(select(tables.schedule)).mappings()]
        daemons = connection.execute(select(tables.daemon.c.incarnation)).scalars()
        return Picture(
            jobs={row["id"]: row for row in rows if _account_of(row) is None},
            accounts={row["id"]: row for row in rows if _account_of(row) is not None},
            schedules={row["id"]: row for row in schedules},
            daemons=frozenset(daemons),
            paused=frozenset(connection.execute(select(tables.pause.c.job_id)).scalars()),
        )


def check_step(
    before: Picture, after: Picture, *, touched: Collection[str], gone: Collection[str]
) -> None:
    """Only what the step was about has changed, nothing disappeared, and no change bends a law."""
    for id, old in before.jobs.items():
        new = after.jobs.get(id)
        if new is None:
            assert id in gone, f"job {id} disappeared, {old['state']}"
        elif new != old:
            assert id in touched, (
                f"a step that was not about job {id} changed it: {_diff(old, new)}"
            )
            if id not in gone:
                check_change(old, new)
    for id, old in before.accounts.items():
        assert id in after.accounts, f"the account {id} disappeared"
        assert _account_of(after.accounts[id])["number"] >= _account_of(old)["number"]
    assert before.schedules.keys() <= after.schedules.keys(), "a schedule disappeared"


def check_change(old: Row, new: Row) -> None:
    what = f"job {old['id']}: {_diff(old, new)}"
    assert old["state"] not in ENDED, f"an ended job changed; {what}"
    assert all(old[name] == new[name] for name in BORN_WITH), what
    assert 0 <= new["claim_no"] - old["claim_no"] <= 1, f"claims are numbered one by one; {what}"
    if new["owner"] is not None and new["owner"] != old["owner"]:
        assert old["owner"] is None, f"a job went from owner to owner; {what}"
        assert new["claim_no"] == old["claim_no"] + 1, f"a claim without a new number; {what}"
    assert 0 <= new["attempt"] - old["attempt"] <= 1, what
    assert 0 <= new["crashes"] - old["crashes"] <= 1, what
    assert new["attempt"] + new["crashes"] <= old["attempt"] + old["crashes"] + 1, what


def check_picture(picture: Picture) -> None:
    """What holds at every moment, whatever happened before."""
    for row in picture.jobs.values():
        _check_row(row, row["id"] in picture.paused)
    assert picture.paused <= picture.jobs.keys(), "a pause was left behind"
    living = [row for row in picture.jobs.values() if row["state"] not in ENDED]
    keys = Counter(row["waiting_key"] for row in living if row["waiting_key"])
    assert not [key for key, number in keys.items() if number > 1], f"waiting twice: {keys}"
    born = Counter((row["schedule_id"], row["fire_at"]) for row in picture.jobs.values())
    twice = [pair for pair, number in born.items() if number > 1 and pair[0] is not None]
    assert not twice, f"two jobs of one schedule for one time: {twice}"


def _check_row(row: Row, paused: bool) -> None:
    said = f"job {dict(row)}"
    assert (row["state"] == RUNNING) == (row["owner"] is not None), f"{said}: state and owner"
    due = row["due_at"] is not None
    assert (row["state"] == SCHEDULED) == (due or paused), f"{said}: state and due_at"
    assert not (due and paused), f"{said}: paused, and due"
    assert (row["state"] in ENDED) == (row["finished_at"] is not None), f"{said}: state and end"
    if row["state"] in ENDED:
        bound = {row[name] for name in ("waiting_key", "equal_key", "overlap_key")}
        assert bound == {None}, f"{said}: an ended job binds"
    else:
        assert row["overlap_key"] == row["schedule_id"], f"{said}: a living job counts as overlap"


def check_schedule(
    picture: Picture,
    id: str,
    *,
    first: datetime,
    every: timedelta,
    iterations: int | None,
    max_instances: int | None,
    deleted: Collection[datetime],
) -> None:
    """Each fire time that is behind made a job, or is accounted for; limits are kept.

    ``deleted`` are the fire times of jobs that were deleted when they ended.
    """
    jobs = [row for row in picture.jobs.values() if row["schedule_id"] == id]
    alive = [row for row in jobs if row["state"] not in ENDED]
    assert max_instances is None or len(alive) <= max_instances, f"{id} overlaps itself: {alive}"
    assert iterations is None or len(jobs) <= iterations, f"{id} made too many jobs"
    done = {row["fire_at"] for row in jobs}.union(deleted)
    accounts = [row for row in picture.accounts.values() if row["schedule_id"] == id]
    for row in accounts:
        account = _account_of(row)
        at, last = (datetime.fromisoformat(account[name]) for name in ("first", "last"))
        while at <= last:
            done.add(at)
            at += every
    schedule = picture.schedules[id]
    assert all((at - first) % every == timedelta(0) for at in done), f"{id} fired off its beat"
    # A schedule that has ended looked at all times up to its last job.
    until = schedule["next_run_at"] or schedule["last_run_at"] or first
    at = first
    while at < until:
        assert at in done, f"{id} skipped {at} without an account"
        at += every


def _account_of(row: Row) -> Any:
    return json.loads(row["options"]).get("passed") if row["options"] else None


def _diff(old: Row, new: Row) -> dict[str, tuple[Any, Any]]:
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}

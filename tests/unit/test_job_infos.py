"""Rows as people see them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from pyramid_durable.job_infos import Infos, upcoming
from pyramid_durable.records import JobSpec, StoredJob, StoredSchedule
from pyramid_durable.serializers import JSONSerializer

UTC = timezone.utc
T = datetime(2030, 5, 17, 8, 0, tzinfo=UTC)
JSON = JSONSerializer()
INFOS = Infos(JSON, ())

JOB = StoredJob(
    id="j", name=None, func="app:f", payload=JSON.dump_call([1], {"b": T}), codec="json",
    queue="default", priority=5, kind="date", state="scheduled", run_at=T, due_at=T, created_at=T,
    started_at=None, finished_at=None, attempt=0, max_attempts=3, claim_no=0, crashes=0, owner=None,
    daemon=None, group=None, schedule_id=None, fire_at=None, options={}, result=None, errors=None,
    userdata=None, progress=None, cancel_requested=False,
)  # fmt: skip

SCHEDULE = StoredSchedule(
    id="s", kind="interval", job=JobSpec(id="s", func="app:f", payload=JOB.payload, queue="mail"),
    trigger={
        "kind": "interval", "timezone": "Europe/Berlin", "start_date": T.isoformat(), "seconds": 600.0
    },
    timezone="Europe/Berlin", next_run_at=T + timedelta(minutes=10), last_run_at=T, paused=False,
    iterations_left=None, start_date=None, end_date=None, coalesce=True, max_instances=1,
    declared=False, generation=0,
)  # fmt: skip


def test_a_job() -> None:
    job = INFOS.job(JOB)
    assert (job.id, job.name, job.func, job.queue) == ("j", "app:f", "app:f", "default")
    assert (job.args, job.kwargs) == ((1,), {"b": T})
    assert (job.error, job.errors, job.result, job.userdata) == (None, (), None, {})
    assert (job.run_at, job.expires_at) == (T, None)
    assert INFOS.job(replace(JOB, name="Charge")).name == "Charge"


def test_a_job_that_waits_for_another_attempt_shows_when() -> None:
    later = T + timedelta(hours=1)
    waits = replace(JOB, due_at=later, attempt=1, errors=json.dumps(["first", "second"]))
    job = INFOS.job(waits)
    assert (job.run_at, job.attempt) == (later, 1)
    assert (job.error, job.errors) == ("second", ("first", "second"))
    ended = INFOS.job(replace(waits, state="failed", due_at=None))
    assert ended.run_at == T


def test_a_job_that_has_ended() -> None:
    job = INFOS.job(
        replace(JOB, state="succeeded", result=JSON.dumps({"t": T}), userdata=JSON.dumps({"n": 1}))
    )
    assert (job.result, job.userdata) == ({"t": T}, {"n": 1})


def test_when_a_job_expires() -> None:
    assert INFOS.job(replace(JOB, options={"expires": 60})).expires_at == T + timedelta(minutes=1)
    absolute = replace(JOB, options={"expires": "2031-01-01T00:00:00+00:00"})
    assert INFOS.job(absolute).expires_at == datetime(2031, 1, 1, tzinfo=UTC)
    assert INFOS.job(replace(JOB, options={"expires": 1e12})).expires_at is None


def test_what_cannot_be_read_does_not_spoil_a_list() -> None:
    job = INFOS.job(replace(JOB, payload="{", result="{", userdata="{"))
    assert (job.args, job.kwargs, job.result, job.userdata) == ((), {}, None, {})
    assert "arguments cannot be read" in (job.error or "")
    failed = INFOS.job(replace(JOB, payload="{", errors=json.dumps(["traceback"])))
    assert failed.error == "traceback"
    gone = INFOS.job(replace(JOB, codec="no.such.serializer"))
    assert gone.args == ()
    assert "no.such.serializer" in (gone.error or "")


def test_a_row_names_no_module_to_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyramid_durable.serializers.import_name", {}.popitem)
    assert "written by the serializer 'json'" not in (INFOS.job(JOB).error or "")
    shown = INFOS.job(replace(JOB, codec="antigravity.module"))
    assert "written by the serializer 'antigravity.module'" in (shown.error or "")


def test_a_schedule() -> None:
    schedule = INFOS.schedule(SCHEDULE)
    assert (schedule.id, schedule.name, schedule.func) == ("s", "s", "app:f")
    assert (schedule.args, schedule.kwargs, schedule.queue) == ((1,), {"b": T}, "mail")
    assert (schedule.next_run_at, schedule.last_run_at) == (T + timedelta(minutes=10), T)


def test_the_next_times_of_a_schedule() -> None:
    def minutes(schedule: StoredSchedule, after: int, count: int = 3) -> list[float]:
        times = upcoming(schedule, T + timedelta(minutes=after), count)
        assert all(time.utcoffset() == timedelta(hours=2) for time in times)
        return [(time - T).total_seconds() / 60 for time in times]

    assert minutes(SCHEDULE, 0) == [10, 20, 30]
    assert minutes(SCHEDULE, 10) == [20, 30, 40]
    assert minutes(SCHEDULE, 0, count=1) == [10]
    assert minutes(SCHEDULE, 0, count=0) == []
    # The next one may be out of step: run_immediately.
    assert minutes(replace(SCHEDULE, next_run_at=T + timedelta(minutes=3)), 0) == [3, 10, 20]
    twice = replace(SCHEDULE, iterations_left=2)
    assert [minutes(twice, after) for after in (0, 10, 20)] == [[10, 20], [20], []]
    assert minutes(twice, 0, count=1) == [10]
    assert minutes(replace(SCHEDULE, next_run_at=None), 0) == []

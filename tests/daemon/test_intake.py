"""Commands become jobs: each once, only with a signature, and nothing disappears silently."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from pyramid_durable.calls import Call
from pyramid_durable.changes import (
    CANCEL,
    CHANGE_VERBS,
    MODIFY,
    PAUSE,
    PAUSE_QUEUE,
    RESCHEDULE,
    RESUME,
    RESUME_QUEUE,
    Change,
)
from pyramid_durable.command_items import STORE, Item, items_to_json
from pyramid_durable.commands import encode
from pyramid_durable.exceptions import StoreUnavailable
from pyramid_durable.intake import Intake
from pyramid_durable.records import BROKEN, CANCELLED, SCHEDULED, JobSpec, StoredJob
from pyramid_durable.serializers import PickleSerializer
from pyramid_durable.store import Store
from pyramid_durable.store.deliveries import Deliveries
from pyramid_durable.times import new_id, utcnow
from tests.web.registered_jobs import remind, send

from .conftest import Bench

SETTINGS = {
    "scheduler.producer": "broker",
    "scheduler.broker.url": "amqp://guest@127.0.0.1:1//",
    "scheduler.secret": "the-secret an-old-one",
    "scheduler.unknown_grace": "0s",
}


def command(*items: Item, secret: str = "the-secret", verb: str = STORE, **body: Any) -> bytes:
    body = {"queue": "default", "ids": [item.id for item in items], **body}
    return encode(verb, {"items": items_to_json(items), **body}, secret)


@dataclass
class Desk:
    """An intake, and what is stored by it."""

    bench: Bench
    intake: Intake
    woken: list[bool] = field(default_factory=list)
    announced: list[set[str]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.bench.store

    def spec(self, func: Any = remind, *args: Any, **options: Any) -> JobSpec:
        call = Call("add_async_job", func, args, None, None, options)
        spec: JobSpec = self.bench.scheduler.specs.async_job(call)
        return spec

    def schedule(self, **options: Any) -> Any:
        call = Call("add_interval_job", remind, None, None, None, options)
        return self.bench.scheduler.specs.schedule(
            call, "interval", None, {"minutes": 5}, now=utcnow()
        )

    def take(self, *items: Item, **options: Any) -> bytes:
        body = command(*items, **options)
        self.intake.take(body)
        return body

    def jobs(self) -> list[StoredJob]:
        with self.store.read() as connection:
            return self.store.jobs.list(connection)

    def ids(self) -> list[str]:
        return sorted(job.id for job in self.jobs())


@pytest.fixture
def desk(bench: Callable[..., Bench], tmp_path: Path) -> Callable[..., Desk]:
    def make(**settings: str) -> Desk:
        made = bench(where="other", settings={**SETTINGS, **settings})
        woken: list[bool] = []
        intake = Intake(made.scheduler, wake=lambda: woken.append(True))
        desk = Desk(made, intake, woken)
        made.scheduler.broker.announce = lambda queues: desk.announced.append(set(queues))
        return desk

    return make


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.action
        for record in caplog.records
        if record.name == "pyramid_durable.intake" and record.levelno >= logging.INFO
    ]


def test_a_command_is_stored_in_full_and_the_daemons_hear_of_it(desk: Callable[..., Desk]) -> None:
    here = desk()
    one, two = here.spec(remind, 1), here.spec(send)
    later = here.spec(remind)._replace(run_at=utcnow() + timedelta(days=1))
    here.take(one, two, here.schedule(id="often"), later)
    assert here.ids() == sorted([one.id, two.id, later.id])
    assert {job.state for job in here.jobs()} == {SCHEDULED}
    with here.store.read() as connection:
        assert [one.id for one in here.store.schedules.list(connection)] == ["often"]
        now = here.store.now(connection)
    by_id = {job.id: job for job in here.jobs()}
    # By the store's clock, since no other knows when it is stored.
    assert now - timedelta(seconds=30) < by_id[one.id].run_at <= now + timedelta(seconds=1)
    assert by_id[later.id].run_at == later.run_at
    assert here.woken == [True]
    assert here.announced == [{"default", "mail"}]


def test_a_command_that_comes_again_changes_nothing(desk: Callable[..., Desk]) -> None:
    here = desk()
    plain, deleted = here.spec(), here.spec(delete_after=True)
    chosen = here.spec(id="chosen", replace_existing=True)
    body = here.take(plain, deleted, chosen)
    with here.store.begin() as connection:
        table = here.store.tables.job
        connection.execute(table.delete().where(table.c.id == deleted.id))
        connection.execute(
            table.update().where(table.c.id == "chosen").values(state="succeeded", due_at=None)
        )
    for _ in range(2):
        here.intake.take(body)
    assert here.ids() == sorted([plain.id, "chosen"])
    assert {job.id: job.state for job in here.jobs()}["chosen"] == "succeeded"
    assert here.woken == [True]


def test_two_daemons_that_get_the_same_command_store_it_once(desk: Callable[..., Desk]) -> None:
    here = desk()
    other = Intake(here.bench.scheduler, wake=lambda: None)
    bodies = [command(here.spec(), here.spec(send)) for _ in range(10)]
    at_once = threading.Barrier(2)
    errors: list[BaseException] = []

    def take(intake: Intake) -> None:
        try:
            for body in bodies:
                at_once.wait(20)
                intake.take(body)
        except BaseException as error:
            errors.append(error)
            at_once.abort()

    threads = [threading.Thread(target=take, args=(each,)) for each in (here.intake, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(here.jobs()) == 20


def test_a_store_that_is_away_leaves_the_command_to_be_delivered_again(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = desk()
    body = command(here.spec())

    @contextmanager
    def away() -> Iterator[Connection]:
        raise StoreUnavailable("away")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(here.bench.scheduler.store, "begin", away)
        with pytest.raises(StoreUnavailable):
            here.intake.take(body)
    here.intake.take(body)
    assert len(here.jobs()) == 1


def test_all_of_a_command_is_stored_or_nothing(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = desk()
    body = command(here.spec(), Change(verb=CANCEL, id="any"))
    jobs = here.bench.scheduler.store.jobs

    def lost(*args: Any) -> bool:
        raise StoreUnavailable("cut in between")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "cancel", lost)
        with pytest.raises(StoreUnavailable):
            here.intake.take(body)
    assert here.jobs() == []
    here.intake.take(body)
    assert len(here.jobs()) == 1


def _garbage() -> list[Any]:
    good = json.loads(command(secret="the-secret"))
    unsigned = {**good, "sig": "0" * 64}
    return [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[]", id="a list"),
        pytest.param(json.dumps(unsigned).encode(), id="a wrong signature"),
        pytest.param(command(secret="guessed"), id="another secret"),
        pytest.param(command(verb="drop"), id="another verb"),
        pytest.param(command(items={"job": {}}), id="no list"),
        pytest.param(command(items=[{"job": {"id": "x"}}]), id="half a job"),
        pytest.param(command(items=[{"table": "durable_job"}]), id="another item"),
        pytest.param(command(pickle="x"), id="a pickle"),
    ]


@pytest.mark.parametrize("body", _garbage())
def test_what_is_no_command_is_refused_and_logged(
    desk: Callable[..., Desk], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    here.intake.take(body)
    assert here.jobs() == []
    assert actions(caplog) == ["command_refused"]
    assert here.woken == []
    job = here.spec()
    here.take(job)
    assert here.ids() == [job.id]


def test_a_refused_command_is_logged_with_its_jobs_and_without_their_arguments(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    job = here.spec(remind, "private")._replace(codec="evil.module")
    here.take(job)
    (record,) = [one for one in caplog.records if one.name == "pyramid_durable.intake"]
    assert (record.action, record.queue, record.jobs) == ("command_refused", "default", [job.id])
    assert "evil.module" in record.getMessage()
    assert "private" not in record.getMessage()
    assert here.jobs() == []
    assert "evil" not in sys.modules


def test_the_database_may_refuse_a_value(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    if "postgresql" not in here.store.dialect.names:
        pytest.skip("SQLite takes texts of any length, and MariaDB's JSON_TABLE cuts them")
    here.take(here.spec(remind, "private"), here.spec()._replace(func="f" * 300))
    assert actions(caplog) == ["command_refused"]
    assert "private" not in caplog.text
    assert here.jobs() == []


def test_secrets_rotate(desk: Callable[..., Desk]) -> None:
    here = desk()
    here.take(here.spec(), secret="an-old-one")
    here.take(here.spec(), secret="the-secret")
    assert len(here.jobs()) == 2


def test_a_duplicate_is_dropped_with_a_word_and_takes_nothing_with_it(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    here.take(here.spec(id="mine"), here.schedule(id="often"))
    once = {"behavior": "SCHEDULE_ONCE"}
    waiting = here.spec(remind, 1, **once)
    here.take(waiting)
    plain = here.spec()
    here.take(here.spec(id="mine"), plain, here.schedule(id="often"), here.spec(remind, 1, **once))
    assert here.ids() == sorted(["mine", waiting.id, plain.id])
    assert actions(caplog) == ["duplicate_dropped"] * 3


def test_behaviors_hold_for_what_comes_over_the_broker(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    """In the order of the calls, also beside jobs of the group that have none."""
    here = desk()
    last, once = {"behavior": "LAST_ONLY"}, {"behavior": "RUN_ONCE"}
    grouped = here.spec(send, 1, group="g")
    first, second = (here.spec(remind, 1, group="g", **last) for _ in range(2))
    after = here.spec(send, 1, group="g")
    here.take(grouped, first)
    here.take(second, after)
    states = {job.id: job.state for job in here.jobs()}
    assert [states[job.id] for job in (grouped, first, second, after)] == [
        CANCELLED,
        CANCELLED,
        SCHEDULED,
        SCHEDULED,
    ]
    here.take(Change(verb=CANCEL, id=second.id), Change(verb=CANCEL, id=after.id))
    here.take(here.spec(remind, 2, **once), here.spec(remind, 3, **once))
    for _ in range(2):
        here.bench.scheduler.run_due()
    here.take(here.spec(remind, 2, **once), here.spec(remind, 4, **once))
    assert actions(caplog) == ["duplicate_dropped"]
    assert len(here.jobs()) == 7


def test_cancelling(desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture) -> None:
    here = desk()
    caplog.set_level(logging.INFO)
    job = here.spec()
    here.take(job, here.schedule(id="often"), Change(verb=CANCEL, id=job.id))
    assert [one.state for one in here.jobs()] == [CANCELLED]
    here.take(Change(verb=CANCEL, id="often", queue="default"), Change(verb=CANCEL, id="unknown"))
    with here.store.read() as connection:
        often = here.store.schedules.get(connection, "often")
    assert often is not None
    assert often.next_run_at is None
    assert actions(caplog) == ["nothing_to_cancel"]


def test_changes(desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture) -> None:
    here = desk()
    caplog.set_level(logging.INFO)
    maker = here.bench.scheduler.change_maker
    far = utcnow() + timedelta(days=9)
    waits, moved = here.spec(id="waits"), here.spec(id="moved")._replace(run_at=far)
    here.take(
        waits,
        here.schedule(id="often"),
        maker.modify("waits", {"args": [7], "queue": "mail"}, now=utcnow()),
        Change(verb=PAUSE, id="waits"),
        Change(verb=PAUSE, id="often"),
        moved,
        maker.reschedule("moved", "2031-01-01", {}, now=utcnow()),
        Change(verb=PAUSE_QUEUE, id="default", queue="default"),
    )
    jobs = {job.id: job for job in here.jobs()}
    assert here.bench.scheduler.infos.job(jobs["waits"]).args == (7,)
    assert (jobs["waits"].paused, jobs["waits"].queue) == (True, "mail")
    assert jobs["moved"].run_at == datetime(2031, 1, 1, tzinfo=timezone.utc)
    with here.store.read() as connection:
        often = here.store.schedules.get(connection, "often")
        assert here.store.queues.paused(connection) == {"default"}
    assert often is not None
    assert often.paused
    # Where something was moved to, too.
    assert here.announced == [{"default", "mail"}]
    here.announced.clear()
    here.take(
        Change(verb=RESUME, id="waits"),
        maker.reschedule("often", None, {"crontab": "0 3 * * *"}, now=utcnow()),
        Change(verb=RESUME_QUEUE, id="default", queue="default"),
    )
    assert not {job.id: job for job in here.jobs()}["waits"].paused
    assert here.announced == [{"mail", "default"}]
    assert actions(caplog) == []


def test_a_change_that_cannot_be_made_is_dropped_with_a_word_and_takes_nothing_with_it(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    caplog.set_level(logging.INFO)
    maker = here.bench.scheduler.change_maker
    once = {"behavior": "SCHEDULE_ONCE"}
    here.take(here.spec(remind, 1, id="one", **once), here.spec(remind, 2, id="two", **once))
    plain = here.spec()
    here.take(
        maker.modify("two", {"args": [1]}, now=utcnow()),
        maker.modify("two", {"coalesce": True}, now=utcnow()),
        maker.reschedule("two", None, {"minutes": 5}, now=utcnow()),
        Change(verb=RESCHEDULE, id="two", changes={"from": "a newer version"}),
        Change(verb=MODIFY, id="two", changes={"colour": "red"}),
        Change(verb=MODIFY, id="two", changes={"priority": "high"}),
        plain,
    )
    assert here.ids() == sorted(["one", "two", plain.id])
    assert actions(caplog) == ["change_dropped"] * 6
    caplog.clear()
    here.take(*(Change(verb=verb, id="unknown") for verb in CHANGE_VERBS if "queue" not in verb))
    assert len(actions(caplog)) == 8
    assert {action.rpartition("_")[0] for action in actions(caplog)} == {"nothing_to"}


def test_a_verb_or_serializer_that_is_not_known_is_refused(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    here.take(here.spec(), Change(verb="explode", id="x"))
    here.take(here.spec(), Change(verb=MODIFY, id="x", changes={"args": "s"}, codec="evil.module"))
    assert actions(caplog) == ["command_refused"] * 2
    assert here.jobs() == []
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "func", ["tests.web.jobs:charge", "antigravity:webbrowser.open", "os:abort"]
)
def test_what_is_not_registered_is_kept_and_never_runs(
    desk: Callable[..., Desk], func: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = desk()
    here.take(here.spec()._replace(func=func))
    assert actions(caplog) == ["job_not_allowed"]
    assert here.bench.run_claimed().state == BROKEN
    (job,) = here.jobs()
    assert job.state == BROKEN
    assert "not registered" in str(job.errors)
    assert "antigravity" not in sys.modules


def test_what_is_registered_runs(desk: Callable[..., Desk]) -> None:
    here = desk()
    here.take(here.spec(remind, 1))
    assert here.bench.run_claimed().state == "succeeded"


def test_allow_takes_the_place_of_registering(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    here = desk(**{"scheduler.allow": "tests.web.jobs"})
    allowed = here.spec("tests.web.jobs.charge")._replace(run_at=None)
    here.take(allowed)
    assert here.bench.run_claimed().state == "succeeded"
    here.take(allowed._replace(id=new_id(), func="tests.web.registered_jobs:remind"))
    assert here.bench.run_claimed().state == BROKEN


def test_a_pickled_body_only_where_the_settings_say_so(desk: Callable[..., Desk]) -> None:
    here = desk(**{"scheduler.broker.serializer": "pickle"})
    job = here.spec()
    text = PickleSerializer(["the-secret"]).dumps(items_to_json([job]))
    here.intake.take(encode(STORE, {"pickle": text}, "the-secret"))
    assert here.ids() == [job.id]
    forged = PickleSerializer(["guessed"]).dumps(items_to_json([here.spec()]))
    here.intake.take(encode(STORE, {"pickle": forged}, "the-secret"))
    assert here.ids() == [job.id]


def test_a_running_job_writes_into_the_store_and_not_to_the_broker(
    desk: Callable[..., Desk],
) -> None:
    # The broker is not there at all, so what was published would fail.
    here = desk(**{"scheduler.allow": "tests.daemon.jobs"})
    here.take(here.spec("tests.daemon.jobs.follow_up"))
    assert here.bench.run_claimed().state == "succeeded"
    assert sorted(job.func for job in here.jobs()) == [
        "tests.daemon.jobs:follow_up",
        "tests.daemon.jobs:nothing",
    ]


def test_a_daemon_whose_clock_runs_ahead_forgets_no_more_than_others(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year ahead it would forget all, and store again what is delivered again."""
    here = desk()
    body = here.take(here.spec())
    monkeypatch.setattr(
        "pyramid_durable.store.deliveries.utcnow", lambda: utcnow() + timedelta(days=365)
    )
    Deliveries(here.store).forget()
    with here.store.begin() as connection:
        connection.execute(here.store.tables.job.delete())
    here.intake.take(body)
    assert here.ids() == []

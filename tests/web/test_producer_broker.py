"""Law 1 where the web process does not reach the store: commands are published with the commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationExecutionError
from sqlalchemy.exc import IntegrityError

from pyramid_durable.changes import (
    CANCEL,
    MODIFY,
    PAUSE,
    PAUSE_QUEUE,
    REMOVE,
    RESCHEDULE,
    RESUME,
    RESUME_QUEUE,
    RETRY,
    RUN,
    Change,
)
from pyramid_durable.command_items import Item, items_from_json
from pyramid_durable.commanding import MESSAGE_LIMIT
from pyramid_durable.commands import decode
from pyramid_durable.exceptions import (
    BrokerUnavailable,
    DurableError,
    InvalidCommand,
    InvalidJob,
    InvalidSetting,
)
from pyramid_durable.records import JobSpec, ScheduleSpec
from pyramid_durable.serializers import PickleSerializer
from pyramid_durable.store import Store
from tests.web import registered_jobs
from tests.web.jobs import charge
from tests.web.registered_jobs import Fee, remind, send
from tests.web.site import Rental, Site, make_site

OUT_OF_REACH = "postgresql+psycopg://nobody@127.0.0.1:1/none"
"""The store's URL: whatever tried to reach it would fail."""

NOWHERE = "amqp://guest:pencil@127.0.0.1:1//"

SECRET = "new-secret old-secret"

APPLICATIONS = [
    pytest.param({"tm": tm, "session": session}, id=f"{tm}-{session}")
    for tm in ("explicit", "thread")
    for session in ("zope", None)
]
"""All of these leave the commit to pyramid_tm."""


class ViewError(Exception):
    """What a view raises."""


@dataclass
class FakeBroker:
    """Remembers what is published, and how many rows others saw at that moment."""

    rows: Callable[[], int] = lambda: 0
    dead: bool = False
    dies_after: int | None = None
    probed: int = 0
    published: list[tuple[str, bytes]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def probe(self) -> None:
        self.probed += 1
        self._answer()

    def publish_command(self, body: bytes, queue: str) -> None:
        if self.dies_after == len(self.published):
            self.dead = True
        self._answer()
        self.seen.append(self.rows())
        self.published.append((queue, body))

    def _answer(self) -> None:
        if self.dead:
            raise BrokerUnavailable("the broker is dead")

    def commands(self, queue: str | None = None) -> list[list[Item]]:
        return [
            items_from_json(decode(body, ["new-secret"]).body["items"])
            for name, body in self.published
            if queue in (None, name)
        ]

    def items(self) -> list[Item]:
        return [item for command in self.commands() for item in command]

    def funcs(self) -> list[str]:
        return [item.func.rpartition(":")[2] for item in self.items() if isinstance(item, JobSpec)]


@dataclass
class Far:
    """An application that does not reach its store, and the broker it has instead."""

    site: Site
    broker: FakeBroker

    def get(self, body: Callable[[Any], Any]) -> Any:
        return self.site.get(body)

    @property
    def scheduler(self) -> Any:
        return self.site.scheduler


MakeFar = Callable[..., Far]


@pytest.fixture
def far(tmp_path: Path) -> Iterator[MakeFar]:
    made: list[Far] = []

    def make(*, settings: dict[str, Any] | None = None, real: bool = False, **options: Any) -> Far:
        site = make_site(
            store=Store(OUT_OF_REACH),
            app_url=f"sqlite:///{tmp_path / 'own.db'}",
            settings={
                "scheduler.producer": "broker",
                "scheduler.secret": SECRET,
                "scheduler.broker.url": NOWHERE,
                **(settings or {}),
            },
            **options,
        )
        broker = FakeBroker(rows=site.rentals)
        if not real:
            site.scheduler._process.broker = broker  # type: ignore[assignment]
        made.append(Far(site, broker))
        return made[-1]

    yield make
    transaction.abort()
    for one in made:
        one.site.engine.dispose()


def rent(request: Any, ski: str = "blue") -> None:
    if hasattr(request, "dbsession"):
        request.dbsession.add(Rental(ski=ski))


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_view_that_commits_publishes_after_its_data_are_there(
    far: MakeFar, options: dict[str, Any]
) -> None:
    here = far(**options)

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(remind, [1])
        request.registry.scheduler.add_interval_job(remind, minutes=5, id="often")
        assert here.broker.published == []
        assert here.broker.probed == 0

    here.get(view)
    rows = int(options["session"] is not None)
    assert here.broker.seen == [rows]
    ((job, schedule),) = here.broker.commands("default")
    assert isinstance(job, JobSpec)
    assert (job.func, job.run_at) == ("tests.web.registered_jobs:remind", None)
    assert isinstance(schedule, ScheduleSpec)
    assert schedule.id == "often"


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_view_that_fails_publishes_nothing(far: MakeFar, options: dict[str, Any]) -> None:
    here = far(**options)

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(remind)
        raise ViewError

    with pytest.raises(ViewError):
        here.get(view)
    assert (here.site.rentals(), here.broker.published, here.broker.probed) == (0, [], 0)


@pytest.mark.parametrize("options", APPLICATIONS)
def test_a_dead_broker_fails_the_request_before_anything_is_committed(
    far: MakeFar, options: dict[str, Any]
) -> None:
    here = far(**options)
    here.broker.dead = True

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(remind)

    with pytest.raises(BrokerUnavailable):
        here.get(view)
    assert here.site.rentals() == 0
    here.broker.dead = False
    here.get(lambda request: rent(request, "red"))
    assert here.broker.published == []


def test_a_request_without_jobs_does_not_need_the_broker(far: MakeFar) -> None:
    here = far()
    here.broker.dead = True
    here.get(rent)
    assert (here.site.rentals(), here.broker.probed) == (1, 0)


def test_a_real_broker_that_is_not_there_is_named_without_its_password(far: MakeFar) -> None:
    here = far(real=True)

    def view(request: Any) -> None:
        rent(request)
        request.scheduler.add_async_job(remind)

    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1") as caught:
        here.get(view)
    assert "pencil" not in str(caught.value)
    assert here.site.rentals() == 0


def test_a_broker_that_dies_during_the_vote_leaves_the_data_and_an_account(
    far: MakeFar, caplog: pytest.LogCaptureFixture
) -> None:
    here = far()
    here.broker.dies_after = 1
    ids: list[str] = []

    def view(request: Any) -> None:
        rent(request)
        ids.append(request.scheduler.add_async_job(remind))
        ids.append(request.scheduler.add_async_job(send))

    with pytest.raises(BrokerUnavailable):
        here.get(view)
    assert here.site.rentals() == 1
    (record,) = [r for r in caplog.records if getattr(r, "action", "") == "command_unconfirmed"]
    assert (record.levelno, record.jobs, record.queue) == (logging.ERROR, (ids[1],), "mail")


@pytest.mark.parametrize("tm", ["explicit", "thread"])
def test_a_savepoint_that_is_rolled_back_takes_its_commands_with_it(far: MakeFar, tm: str) -> None:
    here = far(tm=tm, session=None)

    def first_after(request: Any) -> None:
        savepoint = request.tm.savepoint()
        request.scheduler.add_async_job(send)
        savepoint.rollback()
        request.scheduler.add_async_job(remind)

    def first_before(request: Any) -> None:
        request.scheduler.add_async_job(remind)
        savepoint = request.tm.savepoint()
        request.scheduler.add_async_job(send)
        request.scheduler.cancel_job("any")
        savepoint.rollback()

    for view in (first_after, first_before):
        here.broker.published.clear()
        here.get(view)
        assert here.broker.funcs() == ["remind"]
        assert len(here.broker.items()) == 1

    def nothing_left(request: Any) -> None:
        savepoint = request.tm.savepoint()
        request.scheduler.add_async_job(send)
        savepoint.rollback()

    here.broker.published.clear()
    here.broker.dead = True
    here.get(nothing_left)
    assert here.broker.published == []


def test_without_pyramid_tm_a_session_that_has_begun_decides(far: MakeFar) -> None:
    here = far(tm=None, session="plain")

    def view(request: Any) -> None:
        rent(request)
        request.dbsession.flush()
        request.scheduler.add_async_job(remind)
        assert here.broker.published == []
        request.dbsession.commit()
        assert here.broker.funcs() == ["remind"]
        # Before the commit, where an error can still stop it.
        assert here.broker.seen == [0]
        request.dbsession.add(Rental(ski="red"))
        request.dbsession.commit()
        assert len(here.broker.published) == 1

    here.get(view)
    assert here.site.rentals() == 2


@pytest.mark.parametrize("end", ["rollback", "close", "nothing"])
def test_a_session_that_does_not_commit_publishes_nothing(far: MakeFar, end: str) -> None:
    here = far(tm=None, session="plain")

    def view(request: Any) -> None:
        rent(request)
        request.dbsession.flush()
        request.scheduler.add_async_job(remind)
        getattr(request.dbsession, end, lambda: None)()
        if end != "nothing":
            request.dbsession.add(Rental(ski="red"))
            request.dbsession.commit()

    here.get(view)
    assert here.broker.published == []


def test_a_dead_broker_stops_the_commit_of_a_session(far: MakeFar) -> None:
    here = far(tm=None, session="plain")
    here.broker.dead = True

    def view(request: Any) -> None:
        rent(request)
        request.dbsession.flush()
        request.scheduler.add_async_job(remind)
        request.dbsession.commit()

    with pytest.raises(BrokerUnavailable):
        here.get(view)
    assert here.site.rentals() == 0


def test_data_that_a_session_cannot_write_are_tried_before_the_publishing(far: MakeFar) -> None:
    here = far(tm=None, session="plain")
    here.get(lambda request: (rent(request), request.dbsession.commit()))

    def view(request: Any) -> None:
        request.dbsession.connection()
        request.scheduler.add_async_job(remind)
        rent(request)
        request.dbsession.commit()

    with pytest.raises(IntegrityError):
        here.get(view)
    assert here.broker.published == []


def test_savepoints_of_a_session(far: MakeFar) -> None:
    here = far(tm=None, session="plain")

    def view(request: Any) -> None:
        session, scheduler = request.dbsession, request.scheduler
        rent(request)
        with session.begin_nested() as early:
            scheduler.add_async_job(send)
            early.rollback()
        scheduler.add_async_job(remind)
        with session.begin_nested():
            scheduler.add_async_job(Fee)
            with session.begin_nested() as inner:
                scheduler.add_async_job(send)
                inner.rollback()
        assert here.broker.published == []
        session.commit()

    here.get(view)
    assert here.broker.funcs() == ["remind", "Fee"]


def test_outside_of_a_transaction_it_is_published_at_once(far: MakeFar) -> None:
    here = far(tm=None, session=None)
    here.scheduler.add_async_job(remind)
    assert here.broker.funcs() == ["remind"]
    here.get(lambda request: request.scheduler.add_async_job(Fee))
    assert here.broker.funcs() == ["remind", "Fee"]
    here.broker.dead = True
    with pytest.raises(BrokerUnavailable):
        here.scheduler.add_async_job(remind)


def test_an_after_commit_hook_publishes_at_once(far: MakeFar) -> None:
    here = far()

    def view(request: Any) -> None:
        request.tm.get().addAfterCommitHook(
            lambda committed: request.scheduler.add_async_job(remind)
        )

    here.get(view)
    assert here.broker.funcs() == ["remind"]


def test_each_queue_has_a_message_of_its_own_in_the_order_of_the_calls(far: MakeFar) -> None:
    here = far()
    ids: list[str] = []

    def view(request: Any) -> None:
        scheduler = request.scheduler
        ids.append(scheduler.add_async_job(remind, [1]))
        ids.append(scheduler.add_async_job(send))
        ids.extend(scheduler.add_jobs([{"func": remind, "args": [2]}, {"func": send}]))
        assert scheduler.cancel_job(ids[1]) is True
        assert scheduler.cancel_job("elsewhere") is True
        assert scheduler.cancel_job("known", queue="mail") is True

    here.get(view)
    assert [queue for queue, _ in here.broker.published] == ["default", "mail"]
    ((*jobs, unknown),) = here.broker.commands("default")
    assert [job.id for job in jobs] == [ids[0], ids[2]]
    assert unknown == Change(verb=CANCEL, id="elsewhere")
    (mail,) = here.broker.commands("mail")
    assert [item.id for item in mail] == [ids[1], ids[3], ids[1], "known"]
    assert mail[2] == Change(verb=CANCEL, id=ids[1])


def test_changes_travel_as_commands_in_the_order_of_the_calls(far: MakeFar) -> None:
    here = far()
    before = datetime.now(timezone.utc)

    def view(request: Any) -> None:
        scheduler = request.scheduler
        id = scheduler.add_async_job(remind, [1])
        for verb in (PAUSE, RESUME, RUN, RETRY, REMOVE):
            assert getattr(scheduler, f"{verb}_job")(id) is True
        assert scheduler.modify_job(id, args=[{1, 2}], timezone="UTC", queue="mail") is True
        assert scheduler.reschedule_job(id, "5d") is True
        assert scheduler.reschedule_job(id, minutes=5, start_date="2031-01-01T00:00") is True
        assert scheduler.pause_queue("mail") is True
        assert scheduler.resume_queue("mail") is True
        with pytest.raises(InvalidJob, match="priority"):
            scheduler.modify_job(id, priority=77)

    here.get(view)
    after = datetime.now(timezone.utc)
    ((job, *changes),) = here.broker.commands("default")
    assert [change.verb for change in changes] == [
        *(PAUSE, RESUME, RUN, RETRY, REMOVE, MODIFY, RESCHEDULE, RESCHEDULE)
    ]
    assert {change.id for change in changes} == {job.id}
    modify, date, trigger = changes[-3:]
    assert modify.codec == "json"
    assert modify.changes.keys() == {"args", "timezone", "queue"}
    # A relative date counts from the call.
    run_at = datetime.fromisoformat(date.changes["run_at"])
    assert before <= run_at - timedelta(days=5) <= after
    assert trigger.changes == {
        "kind": "interval",
        "fields": {"minutes": 5},
        "start_date": "2031-01-01T00:00:00",
    }
    (queues,) = here.broker.commands("mail")
    assert [(change.verb, change.id) for change in queues] == [
        (PAUSE_QUEUE, "mail"),
        (RESUME_QUEUE, "mail"),
    ]


def test_a_view_that_fails_asks_for_no_change(far: MakeFar) -> None:
    here = far()

    def view(request: Any) -> None:
        assert request.scheduler.pause_job("any")
        raise ViewError

    with pytest.raises(ViewError):
        here.get(view)
    assert here.broker.published == []


def test_a_message_does_not_grow_without_bound(far: MakeFar) -> None:
    here = far()
    large = "x" * (MESSAGE_LIMIT // 3)
    ids = here.scheduler.add_jobs([{"func": remind, "args": [large]} for _ in range(7)])
    assert [len(command) for command in here.broker.commands()] == [2, 2, 2, 1]
    assert [item.id for item in here.broker.items()] == ids
    here.broker.published.clear()
    here.scheduler.add_async_job(remind, ["x" * 3 * MESSAGE_LIMIT])
    assert len(here.broker.published) == 1


def test_relative_dates_count_from_the_call_and_async_jobs_from_the_store(far: MakeFar) -> None:
    here = far()
    before = datetime.now(timezone.utc)
    here.scheduler.add_date_job(remind, "5d")
    here.scheduler.add_date_job(remind, "2030-01-01T00:00:00Z")
    here.scheduler.add_async_job(remind)
    after = datetime.now(timezone.utc)
    relative, absolute, at_once = here.broker.items()
    assert isinstance(relative, JobSpec)
    assert before <= relative.run_at - timedelta(days=5) <= after  # type: ignore[operator]
    assert absolute.run_at == datetime(2030, 1, 1, tzinfo=timezone.utc)  # type: ignore[union-attr]
    assert at_once.run_at is None  # type: ignore[union-attr]


def test_the_first_secret_signs(far: MakeFar) -> None:
    here = far()
    here.scheduler.add_async_job(remind, ["argument"])
    ((_, body),) = here.broker.published
    with pytest.raises(InvalidCommand):
        decode(body, ["old-secret"])
    with pytest.raises(InvalidCommand):
        decode(body.replace(b"argument", b"arrangem"), ["new-secret"])


def test_a_body_may_be_pickled_inside_of_its_signed_envelope(far: MakeFar) -> None:
    here = far(settings={"scheduler.broker.serializer": "pickle"})
    id = here.scheduler.add_async_job(remind)
    ((_, body),) = here.broker.published
    found = decode(body, ["new-secret"]).body
    assert "items" not in found
    (job,) = items_from_json(PickleSerializer(["new-secret"]).loads(found["pickle"]))
    assert job.id == id


@pytest.mark.parametrize(
    "look",
    [
        lambda scheduler: scheduler.get_job("any"),
        lambda scheduler: scheduler.get_jobs(),
        lambda scheduler: scheduler.get_schedules(),
        lambda scheduler: scheduler.get_schedule("any"),
        lambda scheduler: scheduler.next_run_times("any"),
        lambda scheduler: scheduler.stats(),
    ],
)
def test_looking_says_that_the_store_is_out_of_reach(
    far: MakeFar, look: Callable[[Any], Any]
) -> None:
    with pytest.raises(DurableError, match=r"scheduler\.producer = broker"):
        look(far().scheduler)


def test_a_trigger_needs_no_store(far: MakeFar) -> None:
    assert len(far().scheduler.next_run_times("cron", crontab="0 3 * * *", count=2)) == 2


@pytest.mark.parametrize(
    "func",
    [
        remind,
        "tests.web.registered_jobs.remind",
        Fee,
        registered_jobs.begun,
        registered_jobs.Desk.open,
        registered_jobs.renamed,
        "old.place:renamed",
        registered_jobs.declared,
    ],
)
def test_what_is_registered_may_run(far: MakeFar, func: Any) -> None:
    def configure(config: Configurator) -> None:
        config.add_job_alias("old.place:renamed", registered_jobs.renamed)
        config.add_interval_job("often", registered_jobs.declared, minutes=5)

    here = far(configure=configure)
    here.scheduler.add_async_job(func)
    assert len(here.broker.published) == 1


@pytest.mark.parametrize("func", [charge, "os.system"])
def test_what_is_not_registered_is_refused_at_the_call(far: MakeFar, func: Any) -> None:
    here = far()
    with pytest.raises(InvalidJob, match="not registered"):
        here.scheduler.add_async_job(func)
    with pytest.raises(InvalidJob, match="not registered"):
        here.scheduler.add_interval_job(func, minutes=1)
    assert here.broker.published == []


def test_allow_takes_the_place_of_registering(far: MakeFar) -> None:
    here = far(settings={"scheduler.allow": "tests.web.jobs"})
    here.scheduler.add_async_job(charge)
    with pytest.raises(InvalidJob, match=r"scheduler\.allow"):
        here.scheduler.add_async_job(remind)
    assert here.broker.funcs() == ["charge"]


@pytest.mark.parametrize(
    "url", ["memory://", "filesystem:///some/folder", "sqla+sqlite:///b.db", "mongodb://host"]
)
def test_transports_that_lose_commands_are_refused_at_start(far: MakeFar, url: str) -> None:
    with pytest.raises(ConfigurationExecutionError) as caught:
        far(settings={"scheduler.broker.url": url})
    assert caught.value.etype is InvalidSetting
    assert "scheduler.broker.url" in str(caught.value)


def test_a_secret_is_required_at_start(far: MakeFar) -> None:
    with pytest.raises(ConfigurationExecutionError, match=r"scheduler\.secret is missing"):
        far(settings={"scheduler.secret": ""})


def test_a_command_has_more_time_than_an_announcement(far: MakeFar) -> None:
    assert far().scheduler.settings.broker_deadline == 2.0
    here = far(settings={"scheduler.broker.deadline": "100ms"})
    assert here.scheduler.settings.broker_deadline == 0.1


def test_the_first_request_makes_no_tables_in_the_applications_own_database(
    far: MakeFar, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'untouched.db'}"
    here = far(settings={"scheduler.jobstore.default.url": url})
    here.get(lambda request: request.scheduler.add_async_job(remind))
    assert not (tmp_path / "untouched.db").exists()

"""Including the package: settings read late, directives, and what is opened when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationExecutionError
from pyramid.scripting import prepare
from zope.interface.verify import verifyObject

from pyramid_durable import includeme
from pyramid_durable.exceptions import InvalidSetting
from pyramid_durable.interfaces import IDaemonFactory, IRunDue, IScheduler
from tests.web.jobs import charge

QUIET = {"scheduler.combined": "true"}


@pytest.fixture
def config(tmp_path: Path) -> Configurator:
    url = f"sqlite:///{tmp_path / 'scheduler.sqlite'}"
    return Configurator(
        settings={"scheduler.jobstore.default.url": url, "scheduler.broker.url": "memory://"}
    )


def test_it_provides_the_scheduler(config: Configurator) -> None:
    config.include("pyramid_durable")
    registry = config.make_wsgi_app().registry
    assert verifyObject(IScheduler, registry.scheduler)
    assert registry.getUtility(IScheduler) is registry.scheduler
    with prepare(registry=registry) as env:
        scheduler = env["request"].scheduler
        assert scheduler is env["request"].scheduler
        assert scheduler.aps is None
        id = scheduler.add_async_job(charge)
        assert registry.scheduler.get_job(id).func == "tests.web.jobs:charge"
    assert callable(registry.getUtility(IDaemonFactory))
    assert callable(registry.getUtility(IRunDue))


def test_it_opens_nothing(config: Configurator, tmp_path: Path) -> None:
    config.registry.settings.pop("scheduler.broker.url")
    before = set(threading.enumerate())  # of other tests some may still end
    config.include("pyramid_durable")
    config.add_cron_job("nightly", charge, hour=3)
    app = config.make_wsgi_app()
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= before
    # It would show: the first use does open.
    app.registry.scheduler.add_async_job(charge)
    assert list(tmp_path.iterdir()) != []


def test_a_daemon_says_at_its_start_where_the_store_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As PasteDeploy calls an application: what it says of the ini's folder is not in the settings.
    monkeypatch.chdir(tmp_path)
    config = Configurator(settings={"scheduler.combined": "true"})
    config.include("pyramid_durable")
    scheduler = config.make_wsgi_app().registry.scheduler
    with caplog.at_level("INFO", logger="pyramid_durable.daemon"):
        scheduler.start()
        scheduler.shutdown()
    assert f"store sqlite:///{tmp_path}/scheduler.sqlite" in caplog.text


def test_it_may_be_included_by_name_in_the_settings_and_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    config = Configurator(
        settings={
            "pyramid.includes": "pyramid_durable",
            "scheduler.jobstore.default.url": url,
            "scheduler.broker.url": "memory://",
        }
    )
    config.include("pyramid_durable")
    config.add_interval_job("often", charge, minutes=5)
    scheduler = config.make_wsgi_app().registry.scheduler
    assert [schedule.id for schedule in scheduler.declared] == ["often"]


def test_includeme_is_the_manual() -> None:
    manual = includeme.__doc__ or ""
    for word in (
        "registry.scheduler",
        "request.scheduler",
        "add_cron_job",
        "pscheduler",
        "combined",
    ):
        assert word in manual


def test_settings_may_change_until_the_commit(config: Configurator) -> None:
    config.registry.settings["scheduler.queues"] = "typo//"
    config.include("pyramid_durable")
    config.registry.settings["scheduler.queues"] = "late default"
    scheduler = config.make_wsgi_app().registry.scheduler
    assert scheduler.settings.default_queue == "late"


def test_settings_may_change_where_each_directive_commits_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    config = Configurator(
        autocommit=True,
        settings={"scheduler.jobstore.default.url": url, "scheduler.broker.url": "memory://"},
    )
    config.include("pyramid_durable")
    config.registry.settings["scheduler.queues"] = "late default"
    assert config.registry.scheduler.settings.default_queue == "late"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler.poll_intervall": "1s"}, "scheduler.poll_interval?"),
        ({"scheduler.lease": "soon"}, "scheduler.lease: 'soon'"),
        ({"scheduler.broker.url": "carrier-pigeon://loft"}, "carrier-pigeon"),
        ({"scheduler.jobstore.default.url": "oracle://db/x"}, "oracle"),
        ({"scheduler.jobstore.default.url": "postgresql+nodriver://db/x"}, "nodriver"),
        ({"scheduler.jobstore.default.url": "jobs.sqlite"}, "scheduler.jobstore.default.url"),
        ({"scheduler.jobstore.default.url": "sqlite://"}, "a database in memory"),
        ({"scheduler.jobstore.default.url": "sqlite:///:memory:"}, "a database in memory"),
        ({"scheduler.backoff": "slowly"}, "scheduler.backoff: 'slowly' cannot be read; expected"),
        ({"scheduler.backoff": '{"bass": 1}'}, "scheduler.backoff: {'bass': 1} is no backoff"),
        (
            {"scheduler.jobstore.default.class": "tests.web.jobs.charge"},
            "scheduler.jobstore.default.class: tests.web.jobs.charge is no subclass of",
        ),
        ({"scheduler.serializer": "no.such.thing"}, "no.such.thing"),
        ({"scheduler.producer": "broker", "scheduler.secret": "s"}, "scheduler.producer"),
    ],
)
def test_a_bad_setting_is_an_error_at_start(
    config: Configurator, settings: dict[str, str], message: str
) -> None:
    config.registry.settings.update(settings)
    config.include("pyramid_durable")
    with pytest.raises(ConfigurationExecutionError) as caught:
        config.make_wsgi_app()
    assert message in str(caught.value)
    assert caught.value.etype is InvalidSetting
    assert isinstance(caught.value.evalue, InvalidSetting)


def test_declared_schedules(config: Configurator) -> None:
    config.include("pyramid_durable")
    config.add_cron_job(
        "nightly", charge, crontab="0 3 * * *", timezone="Europe/Berlin", args=[1], priority=2
    )
    config.add_interval_job("often", "tests.web.jobs.report", minutes=10, iterations=3)
    scheduler = config.make_wsgi_app().registry.scheduler
    nightly, often = scheduler.declared
    assert (nightly.id, nightly.kind, nightly.timezone) == ("nightly", "cron", "Europe/Berlin")
    assert (nightly.job.func, nightly.job.name) == ("tests.web.jobs:charge", "nightly")
    assert nightly.job.priority == 2
    assert nightly.declared is True
    assert (often.id, often.kind, often.job.func) == ("often", "interval", "tests.web.jobs:report")
    assert often.iterations == 3
    assert often.next_run_at.minute % 10 == often.next_run_at.second == 0
    # A start says the same as the one before: nothing in the store has to change.
    assert [schedule.trigger for schedule in scheduler.declared] == [nightly.trigger, often.trigger]


def test_declared_schedules_are_brought_into_the_store(config: Configurator) -> None:
    config.include("pyramid_durable")
    config.add_cron_job("nightly", charge, hour=3)
    scheduler = config.make_wsgi_app().registry.scheduler
    for _ in range(2):
        with scheduler.store.begin() as connection:
            scheduler.store.generations.settle(connection, scheduler.declared, lease=15.0)
    (schedule,) = scheduler.get_schedules()
    assert (schedule.id, schedule.name, schedule.func) == (
        "nightly",
        "nightly",
        "tests.web.jobs:charge",
    )
    assert scheduler.next_run_times("nightly", 2)[0] == schedule.next_run_at


def test_declared_schedules_begin_by_the_clock_that_is_given(config: Configurator) -> None:
    """The store's, in a daemon: one whose own clock is behind would fire at once what is past."""
    config.include("pyramid_durable")
    config.add_cron_job("nightly", charge, hour=3)
    scheduler = config.make_wsgi_app().registry.scheduler
    now = datetime(2031, 5, 17, 2, 0, tzinfo=timezone.utc)
    (nightly,) = scheduler.declared_at(now)
    assert now < nightly.next_run_at <= now + timedelta(days=1)


def test_directives_conflict_like_others(config: Configurator) -> None:
    config.include("pyramid_durable")
    config.add_cron_job("nightly", charge, hour=3)
    config.add_interval_job("nightly", charge, hours=3)
    with pytest.raises(ConfigurationConflictError):
        config.make_wsgi_app()


@pytest.mark.parametrize("option", [{"id": "other"}, {"replace_existing": True}])
def test_a_directive_takes_no_other_id_than_its_name(
    config: Configurator, option: dict[str, Any]
) -> None:
    config.include("pyramid_durable")
    with pytest.raises(TypeError, match=f"'nightly'.*'{next(iter(option))}'"):
        config.add_cron_job("nightly", charge, hour=3, **option)


def test_an_application_overrides_what_it_includes(config: Configurator) -> None:
    config.include("pyramid_durable")
    config.include(lambda config: config.add_cron_job("nightly", charge, hour=3))
    config.add_cron_job("nightly", charge, hour=4)
    (schedule,) = config.make_wsgi_app().registry.scheduler.declared
    assert schedule.trigger["fields"]["hour"] == "4"


def test_directives_are_introspectable(config: Configurator) -> None:
    config.include("pyramid_durable")
    config.add_cron_job("nightly", charge, hour=0, queue="default")
    config.add_job_alias("old.module:send", charge)
    config.commit()
    introspector = config.registry.introspector
    nightly = introspector.get("pyramid_durable schedules", "nightly")
    assert (nightly["kind"], nightly["func"], nightly["trigger"]) == ("cron", charge, {"hour": 0})
    assert introspector.get("pyramid_durable job aliases", "old.module:send")["new"] is charge


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda config: config.add_cron_job("nightly", charge, hour=25), "hour"),
        (lambda config: config.add_cron_job("nightly", charge, hour=2, queue="post"), "'post'"),
        (lambda config: config.add_cron_job("nightly", charge, hour=2, prio=1), "'prio'"),
        (lambda config: config.add_cron_job("nightly", lambda: None, hour=2), "lambda"),
        (lambda config: config.add_interval_job("often", charge), "interval.*weeks"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_an_error_at_start(
    config: Configurator, declare: Callable[[Any], None], message: str
) -> None:
    config.include("pyramid_durable")
    declare(config)
    with pytest.raises(ConfigurationExecutionError, match=message):
        config.make_wsgi_app()


def test_an_alias_stands_for_the_new_name(config: Configurator) -> None:
    config.include("pyramid_durable")
    config.add_job_alias("old.module:send", "tests.web.jobs.charge")
    scheduler = config.make_wsgi_app().registry.scheduler
    assert scheduler.aliases == {"old.module:send": "tests.web.jobs:charge"}
    id = scheduler.add_async_job("old.module:send")
    assert scheduler.get_job(id).func == "tests.web.jobs:charge"

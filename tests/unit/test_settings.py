"""Settings: every key, its default, its forms, and what is said of a bad one."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pyramid_durable.exceptions import InvalidQueue, InvalidSetting
from pyramid_durable.setting_names import import_setting
from pyramid_durable.settings import Settings, checked_queues, read_settings

NEEDS_NOTHING = {"scheduler.combined": "true"}


def read(**values: object) -> Settings:
    """Settings from keyword arguments; ``__`` stands for a dot."""
    return read_settings(
        {f"scheduler.{key.replace('__', '.')}": value for key, value in values.items()}
    )


def test_defaults(tmp_path: Path) -> None:
    settings = read_settings({"pyramid.reload_templates": "true"}, here=str(tmp_path))
    assert settings.store_url == f"sqlite:///{tmp_path}/scheduler.sqlite"
    assert settings.broker_url == f"filesystem://{tmp_path}/scheduler.sqlite.broker"
    assert settings.create is True
    assert settings.combined is False
    assert settings.queues == ("default",)
    assert settings.default_queue == "default"
    assert settings.prefix == "durable_"
    assert settings.producer == "store"
    assert settings.dbsession == "dbsession"
    assert settings.broker_deadline == 0.1
    assert (settings.serializer, settings.broker_serializer) == ("json", "json")
    assert settings.secrets == ()
    assert settings.allow is None
    assert settings.misfire_grace_time is None
    assert (settings.executor, settings.threads, settings.processes) == ("thread", 10, 1)
    assert (settings.poll_interval, settings.heartbeat, settings.lease) == (1, 2, 15)
    assert settings.shutdown_timeout == 30
    assert (settings.max_attempts, settings.backoff, settings.poison_limit) == (1, None, 3)
    assert settings.unknown_grace == 300
    assert settings.max_args_size == 16 * 1024 * 1024
    assert settings.retention == 7 * 86400
    assert (settings.housekeeping, settings.housekeeping_append) == (3600, None)
    assert settings.delegator is None
    assert settings.id is None


def test_every_value_as_an_ini_has_it() -> None:
    settings = read(
        combined="yes",
        queues=" mail  default\n reports ",
        jobstore__default__url="postgresql+psycopg://app:pw@db/app",
        jobstore__default__prefix="jobs.durable_",
        jobstore__default__create="on",
        jobstore__default__class="app.jobs.Store",
        producer="broker",
        dbsession="db",
        broker__url="amqp://guest@mq//",
        broker__options__heartbeat="30",
        broker__options__ssl="true",
        broker__options__name="web",
        broker__compressor="zlib",
        broker__deadline="250ms",
        secret="new old",
        allow="app.jobs app.mail",
        timezone="Europe/Berlin",
        misfire_grace_time="1h30m",
        executor="auto",
        threads="4",
        processes="2",
        poll_interval="500ms",
        heartbeat="1",
        lease="10s",
        shutdown_timeout="1m",
        max_attempts="3",
        backoff="[1, 10]",
        poison_limit="5",
        unknown_grace="1h",
        max_args_size="64 kb",
        retention="2w",
        housekeeping="5h",
        housekeeping__append="app.jobs.sweep",
        delegator="app.jobs.delegate",
        id="night shift",
    )
    assert settings.combined is True
    assert settings.queues == ("mail", "default", "reports")
    assert settings.default_queue == "mail"
    assert settings.store_url == "postgresql+psycopg://app:pw@db/app"
    assert settings.prefix == "jobs.durable_"
    assert settings.create is True
    assert settings.store_class == "app.jobs.Store"
    assert settings.producer == "broker"
    assert settings.dbsession == "db"
    assert settings.broker_url == "amqp://guest@mq//"
    assert settings.broker_options == {"heartbeat": 30, "ssl": True, "name": "web"}
    assert settings.broker_compressor == "zlib"
    assert settings.broker_deadline == 0.25
    assert settings.secrets == ("new", "old")
    assert settings.allow == ("app.jobs", "app.mail")
    assert settings.zone == ZoneInfo("Europe/Berlin")
    assert settings.misfire_grace_time == 5400
    assert (settings.executor, settings.threads, settings.processes) == ("auto", 4, 2)
    assert (settings.poll_interval, settings.heartbeat, settings.lease) == (0.5, 1, 10)
    assert settings.shutdown_timeout == 60
    assert (settings.max_attempts, settings.backoff, settings.poison_limit) == (3, [1, 10], 5)
    assert settings.unknown_grace == 3600
    assert settings.max_args_size == 64 * 1024
    assert settings.retention == 14 * 86400
    assert (settings.housekeeping, settings.housekeeping_append) == (5 * 3600, "app.jobs.sweep")
    assert settings.delegator == "app.jobs.delegate"
    assert settings.id == "night shift"


def test_values_as_python_has_them() -> None:
    settings = read(
        combined=True,
        queues=["mail", "default"],
        threads=3,
        lease=timedelta(minutes=1),
        timezone=ZoneInfo("Asia/Kathmandu"),
        max_args_size=1024,
        broker__options__ssl={"ca": "x"},
    )
    assert settings.combined is True
    assert settings.queues == ("mail", "default")
    assert settings.threads == 3
    assert settings.lease == 60
    assert settings.zone == ZoneInfo("Asia/Kathmandu")
    assert settings.max_args_size == 1024
    assert settings.broker_options == {"ssl": {"ca": "x"}}


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_value_is_none(empty: object) -> None:
    assert read(lease=empty, broker__compressor=empty) == read()


def test_secrets_are_not_shown() -> None:
    settings = read(secret="hush", jobstore__default__url="postgresql://a:pw@h/d", combined="1")
    assert "hush" not in repr(settings)
    assert "pw" not in repr(settings)


def test_the_application_database_is_the_default_store() -> None:
    settings = read_settings({"sqlalchemy.url": "postgresql+psycopg://h/d", **NEEDS_NOTHING})
    assert settings.store_url == "postgresql+psycopg://h/d"
    assert settings.create is False


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("30", 30),
        ("5m", "5m"),
        ("30s 5m, 1h", ["30s", "5m", "1h"]),
        ("1, 10", ["1", "10"]),
        ("[1, 10]", [1, 10]),
        ("exponential", "exponential"),
    ],
)
def test_a_backoff_is_one_wait_or_several(text: str, read: object) -> None:
    assert read_settings({"scheduler.backoff": text, **NEEDS_NOTHING}).backoff == read
    with pytest.raises(InvalidSetting, match=r"scheduler\.backoff: .* expected a duration"):
        read_settings({"scheduler.backoff": f"{text} slowly", **NEEDS_NOTHING})


def test_the_default_store_is_beside_the_ini(tmp_path: Path) -> None:
    assert read_settings({"here": str(tmp_path)}).store_url == (
        f"sqlite:///{tmp_path}/scheduler.sqlite"
    )


def test_the_default_store_without_an_ini_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings({}).store_url == f"sqlite:///{tmp_path}/scheduler.sqlite"


@pytest.mark.parametrize(
    ("url", "combined", "broker"),
    [
        ("sqlite:////var/app/jobs.db", "false", "filesystem:///var/app/jobs.db.broker"),
        ("sqlite:////var/app/jobs.db", "true", "memory://"),
        ("sqlite://", "false", "memory://"),
        ("sqlite:///:memory:", "false", "memory://"),
        ("postgresql+psycopg://h/d", "true", "memory://"),
    ],
)
def test_the_default_broker(url: str, combined: str, broker: str) -> None:
    assert read(jobstore__default__url=url, combined=combined).broker_url == broker


def test_a_broker_is_required_where_the_daemon_is_a_process_on_a_server() -> None:
    with pytest.raises(InvalidSetting, match=r"scheduler\.broker\.url is missing.*amqp://"):
        read(jobstore__default__url="postgresql+psycopg://h/d")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("combined", "ja", "true or false"),
        ("queues", "a a", "none of them twice"),
        ("queues", "a/b", "letters, digits"),
        ("queues", "x" * 81, "80 characters"),
        ("jobstore.default.prefix", "durable-", "letters, digits and underscores"),
        ("jobstore.default.prefix", "a.b.c", "letters, digits and underscores"),
        ("producer", "web", "store or broker"),
        ("broker.deadline", "soon", "a duration such as"),
        ("broker.serializer", "yaml", "json or pickle"),
        ("timezone", "Europe/Berlino", "IANA name"),
        ("misfire_grace_time", "-1", "a duration such as"),
        ("executor", "greenlet", "thread, process, inline, auto"),
        ("threads", "0", "a number from 1"),
        ("threads", "1.5", "a number from 1"),
        ("threads", 2.0, "a number from 1"),
        ("processes", True, "a number from 1"),
        ("poll_interval", "0", "a duration such as"),
        ("heartbeat", "nan", "a duration such as"),
        ("lease", "15 parsecs", "a duration such as"),
        ("max_attempts", "0", "a number from 1"),
        ("max_args_size", "16 sacks", "a size such as 16MB"),
        ("max_args_size", "0", "a size such as 16MB"),
        ("max_args_size", 1.5, "a size such as 16MB"),
        ("retention", "7 days", "a duration such as"),
        ("dbsession", 7, "request attribute"),
        ("queues", 7, "names of"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(
    key: str, value: object, expected: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({**NEEDS_NOTHING, f"scheduler.{key}": value})
    message = str(caught.value)
    assert f"scheduler.{key}" in message
    assert repr(value) in message
    assert expected in message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("scheduler.qeues", "did you mean scheduler.queues?"),
        ("scheduler.broker.uri", "did you mean scheduler.broker.url?"),
        ("scheduler.zzz", "there are: "),
        ("scheduler.jobstore.mail.url", "a store for each queue is not supported yet"),
        ("scheduler.broker.options", "is no setting"),
    ],
)
@pytest.mark.parametrize("value", ["x", ""])
def test_an_unknown_key_is_named_with_its_neighbour(key: str, hint: str, value: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({**NEEDS_NOTHING, key: value})
    assert key in str(caught.value)
    assert hint in str(caught.value)


def test_another_prefix_is_none_of_our_business() -> None:
    assert read_settings({"schedulers.x": "1", "scheduler": "1", **NEEDS_NOTHING})


def test_a_lease_needs_room_for_two_heartbeats() -> None:
    assert read(heartbeat="5s", lease="10s").lease == 10
    with pytest.raises(InvalidSetting, match=r"scheduler\.lease: 9s is too short"):
        read(heartbeat="5s", lease="9s")


@pytest.mark.parametrize(
    "setting", [{"producer": "broker"}, {"serializer": "pickle"}, {"broker__serializer": "pickle"}]
)
def test_what_must_be_signed_needs_a_secret(setting: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting, match=r"scheduler\.secret is missing"):
        read(**setting)
    assert read(secret="s", **setting).secrets == ("s",)


@pytest.mark.parametrize("key", ["sqlalchemy.url", "scheduler.jobstore.default.url"])
def test_a_bad_store_url_is_an_error_that_shows_no_password(key: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({**NEEDS_NOTHING, key: "postgresql:/app:hush@db"})
    assert key in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_bad_secret_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as caught:
        read(secret=["hush", 7])
    assert "scheduler.secret" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_name_in_the_settings_is_imported_or_refused() -> None:
    assert import_setting("delegator", "os.path.join") is os.path.join
    with pytest.raises(InvalidSetting, match=r"scheduler\.delegator.*no\.such.*dotted name"):
        import_setting("delegator", "no.such")


def test_queues_to_serve_are_among_the_configured_ones() -> None:
    assert checked_queues(None, ["default", "mail"]) == ("default", "mail")
    assert checked_queues(["mail"], ["default", "mail"]) == ("mail",)
    with pytest.raises(InvalidQueue, match=r"'post'.*scheduler.queues = default mail"):
        checked_queues(["post"], ["default", "mail"])

"""URLs, options and names: what cannot work is said at once, and no password with it."""

from __future__ import annotations

import sys
from traceback import format_exception

import pytest

from pyramid_durable.broker import Broker
from pyramid_durable.broker.address import Address, mask_url, plain
from pyramid_durable.exceptions import InvalidSetting


def make(url: str, **arguments: object) -> Broker:
    return Broker(url, namespace="t", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rabbit://guest:hidden@host//", "'rabbit'.*expected one of amqp"),
        ("guest:hidden@host", "scheme None"),
        ("", "scheme None"),
        ("amqp://guest:hidden/x@host:5672//", "port that is no number"),
        ("redis://:hidden@host:6379a/0", "port that is no number"),
        ("amqp://a:hidden@one//;amqp://b:hidden@two:x//", "port that is no number"),
        ("sqlalchemy+sqlite:///x", "cannot broadcast"),
        ("filesystem://", "names no folder"),
    ],
)
def test_urls_that_cannot_work(url: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said) as caught:
        make(url)
    assert "scheduler.broker.url" in str(caught.value)
    assert "hidden" not in "".join(format_exception(caught.value))


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pymongo", "kombu.transport.mongodb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidSetting, match=r"cannot be imported.*pip install"):
        make("mongodb://host/")


def test_a_compressor_that_is_unknown() -> None:
    with pytest.raises(InvalidSetting, match=r"scheduler\.broker\.compressor is 'zap'.*gzip"):
        make("memory://", compressor="zap")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("amqp://user:pass@host:5672//", "amqp://user:**@host:5672//"),
        ("redis://:pass@host/0", "redis://:**@host/0"),
        ("amqp://user:p/a#s?s@host//", "amqp://user:**"),
        ("amqp://user:p@a/s@host//", "amqp://user:**"),
        ("amqp://user:p@ss@host//", "amqp://user:**@host//"),
        ("amqp://a:one@x//;amqp://b:t;wo@y//", "amqp://a:**@x//;amqp://b:**@y//"),
        ("redis://host/0?password=pass", "redis://host/0?**"),
        ("redis://host:6379/0?password=p@ss", "redis://host:**"),
        ("amqp://user@host//", "amqp://user@host//"),
        ("memory://", "memory://"),
    ],
)
def test_masks(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_errors_are_redacted() -> None:
    address = Address("amqp://u:p%40ss@h//", namespace="t", options={"sentinel_password": "deep"})
    error = ConnectionError("login as u with p@ss, p%40ss or deep failed")
    assert address.redact(error) == "ConnectionError: login as u with **, ** or ** failed"


def test_names_are_safe_and_apart() -> None:
    names = ["mail", "Mail", "a b", "a-b", "a/b", "../x", "*", "a.b", "a" * 300, "a" * 301, ""]
    found = [plain(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzM0123456789-_") for name in found)
    assert max(map(len, found)) <= 64
    assert plain("mail") == "mail"


def test_options_are_read_as_an_ini_has_them() -> None:
    options = {"heartbeat": "7", "socket_keepalive": "false", "client_name": "web", "ssl": "{}"}
    connection_options = Address("amqp://h//", namespace="t", options=options)._options
    assert connection_options == {
        "heartbeat": 7,
        "socket_keepalive": False,
        "client_name": "web",
        "ssl": {},
    }


def test_a_password_is_never_read_as_a_number() -> None:
    options = {"sentinel_password": "0123"}
    assert Address("redis://h", namespace="t", options=options)._options == options

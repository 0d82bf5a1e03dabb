"""A broker that is away, silent or restarted costs a caller next to nothing, and comes back."""

from __future__ import annotations

import errno
import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from traceback import format_exception

import pytest
from kombu import Connection

from pyramid_durable.broker import Broker
from pyramid_durable.exceptions import BrokerUnavailable
from tests.broker.listening import Ear, listening, wait_for
from tests.broker.proxy import Proxy
from tests.broker.servers import Server

PASSWORD = "s3cret-w%40rd"
DEADLINE = 0.15


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def black_hole() -> Iterator[socket.socket]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        yield hole


@pytest.fixture(params=["closed port", "black hole"])
def dead_port(request: pytest.FixtureRequest, closed_port: int, black_hole: socket.socket) -> int:
    return closed_port if request.param == "closed port" else int(black_hole.getsockname()[1])


def dead_broker(scheme: str, port: int, clock: Callable[[], float] = time.monotonic) -> Broker:
    path = "/" if scheme == "amqp" else "0"
    url = f"{scheme}://someone:{PASSWORD}@127.0.0.1:{port}/{path}"
    return Broker(url, namespace="t", deadline=DEADLINE, clock=clock)


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_announcing_to_a_dead_broker_never_waits(scheme: str, dead_port: int) -> None:
    broker = dead_broker(scheme, dead_port)
    slowest = 0.0
    for _ in range(200):
        started = time.monotonic()
        broker.announce(["default"])
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 0.05
    started = time.monotonic()
    broker.close()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("what", ["probe", "send_message", "publish_command"])
@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_dead_broker_is_said_within_the_deadline_and_without_its_password(
    scheme: str, what: str, dead_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = dead_broker(scheme, dead_port)
    calls: dict[str, Callable[[], None]] = {
        "probe": broker.probe,
        "send_message": lambda: broker.send_message("hello", "default"),
        "publish_command": lambda: broker.publish_command(b"{}", "default"),
    }
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            calls[what]()
        assert time.monotonic() - started < DEADLINE + 0.15
        assert f"{scheme}://someone:**@127.0.0.1:{dead_port}" in str(caught.value)
    broker.flush(DEADLINE)
    said = f"{''.join(format_exception(caught.value))} {broker!r} {caplog.text}"
    for secret in (PASSWORD, "s3cret"):
        assert secret not in said
    broker.close()


def test_without_a_thread_a_hint_is_lost_and_a_call_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    broker = server.broker()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        broker.announce(["default"])
        with pytest.raises(BrokerUnavailable, match="can't start new thread"):
            broker.probe()
    assert "cannot announce" in caplog.text
    broker.probe()


def test_of_several_urls_the_next_is_tried(keeping_server: Server, closed_port: int) -> None:
    scheme = keeping_server.url.partition(":")[0]
    both = f"{scheme}://someone:{PASSWORD}@127.0.0.1:{closed_port}/;{keeping_server.url}"
    broker = keeping_server.broker(both)
    with listening(broker) as ear:
        broker.announce(["default"])
        ear.wait("announced", "default")


def test_a_folder_that_cannot_be_made_is_said(folder_server: Server) -> None:
    folder_server.folder.parent.joinpath("queues").write_text("a file in its place")
    broker = folder_server.broker()
    with pytest.raises(BrokerUnavailable, match="FileExistsError"):
        broker.probe()
    broker.announce(["default"])
    assert broker.flush(5)


def test_the_breaker_opens_and_closes(keeping_server: Server) -> None:
    """An open one lets no announcement try; the clock is the test's."""
    now = [1000.0]
    with Proxy(keeping_server.url) as proxy:
        broker = keeping_server.broker(proxy.url, clock=lambda: now[0])
        with listening(keeping_server.broker()) as ear:
            proxy.refuse(True)
            broker.announce(["default"])
            assert broker.flush(5)
            tried = proxy.accepted
            assert tried > 0
            now[0] += 0.9
            broker.announce(["default"])
            assert broker.flush(5)
            assert proxy.accepted == tried, "it tried although the breaker was open"

            proxy.refuse(False)
            now[0] += 0.2
            broker.announce(["default"])
            ear.wait("announced", "default")
            assert proxy.accepted > tried
            broker.announce(["default"])
            ear.wait("announced", "default", times=2)


def test_a_call_tries_although_the_breaker_is_open_and_closes_it(keeping_server: Server) -> None:
    with Proxy(keeping_server.url) as proxy:
        broker = keeping_server.broker(proxy.url, clock=lambda: 1000.0)
        proxy.refuse(True)
        broker.announce(["default"])
        assert broker.flush(5)
        proxy.refuse(False)
        broker.probe()
        with listening(keeping_server.broker()) as ear:
            broker.announce(["default"])
            ear.wait("announced", "default")


def test_what_its_caller_has_given_up_is_not_sent_later(keeping_server: Server) -> None:
    """The transaction was rolled back; a connection that comes late must not bring the job."""
    with Proxy(keeping_server.url) as proxy:
        proxy.hold()
        broker = keeping_server.broker(proxy.url, deadline=0.1)
        with pytest.raises(BrokerUnavailable, match=r"no answer within 0\.1 s\. Check"):
            broker.publish_command(b"given up", "default")
        with pytest.raises(BrokerUnavailable):
            broker.publish_command(b"given up in line", "default")
        proxy.let_go()
        assert broker.flush(5)
        broker.probe()
        keeping_server.broker().publish_command(b"end", "default")
        with listening(keeping_server.broker(), commands=True) as ear:
            ear.wait("command", b"end")
            assert ear.all("command") == [(b"end",)]


def test_a_publisher_survives_a_restart_of_the_broker(keeping_server: Server) -> None:
    with Proxy(keeping_server.url) as proxy, listening(keeping_server.broker()) as ear:
        broker = keeping_server.broker(proxy.url)
        for times in (1, 2, 3):
            broker.send_message("hello", "default")
            ear.wait("message", "hello", "default", times=times)
            proxy.cut()


def test_a_listener_survives_a_restart_of_the_broker(keeping_server: Server) -> None:
    broker = keeping_server.broker()
    with Proxy(keeping_server.url) as proxy:
        away = keeping_server.broker(proxy.url)
        with listening(away, "default", "mail", commands=True) as ear:
            proxy.refuse(True)
            proxy.cut()
            ear.wait("disconnected")
            tried = proxy.accepted
            wait_for("an attempt to come back", lambda: proxy.accepted > tried)
            proxy.refuse(False)
            ear.wait("connected", times=2)
            broker.announce(["default"])
            ear.wait("announced", "default")
            broker.publish_command(b"stored", "mail")
            ear.wait("command", b"stored")
            assert len(ear.all("disconnected")) == 1, "an outage is said once"


def test_a_listener_notices_a_connection_that_is_half_open(keeping_server: Server) -> None:
    options = {"amqp": {"heartbeat": 1}, "redis": {"health_check_interval": 1}}
    with Proxy(keeping_server.url) as proxy:
        broker = keeping_server.broker(proxy.url, options=options[keeping_server.kind])
        with listening(broker) as ear:
            proxy.stick()
            started = time.monotonic()
            ear.wait("disconnected")
            assert time.monotonic() - started < 5
            proxy.come_loose()
            ear.wait("connected", times=2, deadline=20)


def test_a_network_that_times_out_is_not_a_quiet_broker(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To Python both are a TimeoutError."""
    broker = server.broker()
    with listening(broker) as ear:
        with monkeypatch.context() as patched:

            def time_out(*args: object, **kwargs: object) -> None:
                raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

            patched.setattr(Connection, "drain_events", time_out)
            ear.wait("disconnected")
        ear.wait("connected", times=2)


def test_a_listener_waits_for_a_broker_that_is_not_there_yet(keeping_server: Server) -> None:
    class Patient(Ear):
        def disconnected(self, exc: BaseException) -> None:
            super().disconnected(exc)
            proxy.refuse(False)

    with Proxy(keeping_server.url) as proxy:
        proxy.refuse(True)
        with listening(keeping_server.broker(proxy.url), ear=Patient()) as ear:
            assert ear.heard == [("disconnected",), ("connected",)]


def test_a_folder_that_was_deleted_is_made_again(folder_server: Server) -> None:
    broker = folder_server.broker()
    with listening(broker) as ear:
        inbox = next(path for path in folder_server.folder.glob("*/*") if path.is_dir())
        shutil.rmtree(folder_server.folder, ignore_errors=True)

        def is_heard() -> bool:
            broker.announce(["default"])
            return bool(ear.all("announced"))

        # Several, because the removal itself may take the first one with it.
        wait_for("an announcement", is_heard)
        assert inbox.is_dir()


def test_flush_says_whether_it_was_in_time(black_hole: socket.socket) -> None:
    broker = dead_broker("amqp", int(black_hole.getsockname()[1]))
    assert broker.flush(0), "nothing was announced"
    broker.announce(["default"])
    assert not broker.flush(0.05)
    broker.close()

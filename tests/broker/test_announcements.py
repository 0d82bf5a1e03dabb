"""What is announced reaches the living daemons of a queue, as few messages; nobody else."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from pyramid_durable.broker.inboxes import INBOX_LIMIT
from pyramid_durable.broker.wire import Wire
from tests.broker.listening import Ear, listening, wait_for
from tests.broker.servers import Server


def test_construction_opens_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a socket was connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    threads = threading.active_count()
    server.broker(options={"polling_interval": "0.05"}, compressor="gzip")
    assert threading.active_count() == threads
    assert not server.folder.exists()


def test_an_announcement_reaches_every_daemon_of_its_queue_and_no_other(server: Server) -> None:
    broker = server.broker()
    with (
        listening(broker, "default", "mail", incarnation="one") as one,
        listening(broker, "default", incarnation="two") as two,
        listening(broker, "mail", incarnation="three") as three,
    ):
        broker.announce(["default"])
        one.wait("announced", "default")
        two.wait("announced", "default")
        # What comes after it is what an announcement for `three` would have come before.
        broker.send_message("end", "mail")
        three.wait("message", "end", "mail")
        one.wait("message", "end", "mail")
        assert three.all("announced") == []
        assert two.all("message") == []


def test_several_queues_are_announced_together(server: Server) -> None:
    broker = server.broker()
    with listening(broker, "default", "mail") as ear:
        broker.announce({"default", "mail"})
        wait_for(
            "both queues",
            lambda: (
                {name for event in ear.all("announced") for name in event} == {"default", "mail"}
            ),
        )


@pytest.mark.parametrize("name", ["späte Gebühren/*?[x]#.", "amq.direct", "a" * 300])
def test_any_queue_name_will_do(server: Server, name: str) -> None:
    server.queues.append(name)
    broker = server.broker()
    with listening(broker, name, "default") as ear:
        broker.announce([name])
        ear.wait("announced", name)
        broker.send_message("hello", name)
        ear.wait("message", "hello", name)


def test_messages_keep_their_text(server: Server) -> None:
    broker = server.broker(compressor="gzip")
    text = 'Grüße an "alle"\n\0\U0001f6a4' * 100
    with listening(broker) as ear:
        broker.send_message(text, "default")
        broker.send_message(text, "default")
        ear.wait("message", text, "default", times=2)


def test_namespaces_are_apart(server: Server, tmp_path: Path) -> None:
    broker = server.broker()
    neighbour = Server(server.kind, tmp_path)
    other = neighbour.broker()
    with listening(broker) as ear, listening(other) as other_ear:
        other.send_message("not for you", "default")
        other_ear.wait("message", "not for you", "default")
        broker.send_message("for you", "default")
        ear.wait("message", "for you", "default")
        assert len(ear.all("message")) == 1
        assert len(other_ear.all("message")) == 1
    neighbour.close()


def test_a_flood_is_heard_as_a_few(server: Server) -> None:
    broker = server.broker()
    with listening(broker) as ear:
        started = time.monotonic()
        for _ in range(5_000):
            broker.announce(["default"])
        took = time.monotonic() - started
        assert broker.flush(5)
        ear.wait("announced", "default")
        last = len(ear.all("announced"))
        broker.announce(["default"])
        ear.wait("announced", "default", times=last + 1)
        assert took < 2, "announcing made the caller wait"
        assert last < 200


def test_without_a_daemon_nothing_stays(server: Server) -> None:
    broker = server.broker()
    for _ in range(20_000):
        broker.announce(["default", "mail"])
    assert broker.flush(5)
    assert server.leftovers() == []
    with listening(broker) as ear:
        broker.send_message("end", "default")
        ear.wait("message", "end", "default")
        assert ear.all("announced") == []
    assert server.leftovers() == []


def test_a_daemon_that_hangs_is_sent_a_bounded_number(server: Server) -> None:
    """5,000 publications past the coalescing, with an inbox that nobody empties."""
    address = server.address()
    hanging = address.connect()
    inbox = address.inbox("default", "hanging")(hanging.default_channel)
    inbox.declare()
    wire = Wire(address, None)
    started = time.monotonic()
    for _ in range(20_000):
        wire.announce("default")
    took = time.monotonic() - started
    if server.kind in ("memory", "filesystem"):
        assert _count(inbox) == 1
    elif server.kind == "amqp":
        assert 1 <= _count(inbox) <= INBOX_LIMIT
    else:
        # Redis hands them to subscribers and keeps none.
        with server.redis() as client:
            kept = [client.type(key) for key in server.leftovers()]
            assert kept == [b"set"] * 2, "more than the inbox's bindings"
    assert took < 60
    hanging.release()
    wire.close()


@pytest.mark.parametrize("server", ["memory", "filesystem", "amqp"], indirect=True)
def test_messages_nobody_reads_are_bounded_too(server: Server) -> None:
    """Redis keeps none for a subscriber, and drops slow subscribers by itself."""
    address = server.address()
    hanging = address.connect()
    inbox = address.inbox("default", "hanging")(hanging.default_channel)
    inbox.declare()
    wire = Wire(address, None)
    for number in range(INBOX_LIMIT + 200):
        wire.send_message(f"{number}", "default")
    assert _count(inbox) == INBOX_LIMIT
    oldest = inbox.get(no_ack=True)
    assert oldest.payload["text"] == "200", "the newest were dropped, not the oldest"
    inbox.delete()
    hanging.release()
    wire.close()


def test_stopping_leaves_nothing_and_takes_no_time(server: Server) -> None:
    broker = server.broker()
    with listening(broker, "default", "mail"):
        assert server.leftovers()[:1] or server.kind == "amqp"
        started = time.monotonic()
    assert time.monotonic() - started < 3
    assert server.leftovers() == []


def test_a_handler_that_fails_is_not_the_brokers_affair(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Ear):
        def announced(self, queues: set[str]) -> None:
            super().announced(queues)
            raise RuntimeError("no store")

        def connected(self) -> None:
            super().connected()
            raise RuntimeError("no store either")

    broker = server.broker()
    with listening(broker, ear=Failing()) as ear:
        for times in (1, 2):
            broker.announce(["default"])
            ear.wait("announced", "default", times=times)
        assert ear.all("connected") == [()]
        assert ear.all("disconnected") == []
    assert "no store either" in caplog.text


def test_announcements_are_quick(server: Server, record_property: pytest.RecordProperty) -> None:
    """What it takes from the call to the handler; the figures are in the report."""
    broker = server.broker()
    latencies = []
    with listening(broker) as ear:
        for times in range(1, 51):
            started = time.perf_counter()
            broker.announce(["default"])
            ear.wait("announced", "default", times=times)
            latencies.append(time.perf_counter() - started)
    latencies.sort()
    record_property("p50_ms", round(latencies[25] * 1e3, 2))
    record_property("p99_ms", round(latencies[49] * 1e3, 2))
    assert latencies[25] < 0.1


def _count(inbox: object) -> int:
    return inbox.queue_declare(passive=True).message_count  # type: ignore[attr-defined]

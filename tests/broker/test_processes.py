"""Processes on one broker: killed, forked, ended in the middle of it."""

from __future__ import annotations

import os
import socket
import time

import pytest

from pyramid_durable.broker.inboxes import DEAD_AFTER, INBOX_LIMIT
from tests.broker.listening import listening, wait_for
from tests.broker.servers import Server


@pytest.fixture
def dead(shared_server: Server) -> Server:
    """A broker whose one listener was killed."""
    with shared_server.peer("listen") as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "connected\n"
    return shared_server


def test_a_killed_daemon_leaves_little_which_goes(dead: Server) -> None:
    broker = dead.broker()
    for number in range(100):
        broker.announce(["default"])
        if number % 10 == 0:
            broker.send_message(f"{number}", "default")
    assert broker.flush(5)
    if dead.kind == "amqp":
        wait_for("RabbitMQ to drop its inbox", lambda: dead.leftovers() == [])
    elif dead.kind == "redis":
        # kombu's two sets of bindings with one member each, however many daemons die.
        assert len(dead.leftovers()) == 2
        with dead.redis() as client:
            assert [client.scard(key) for key in dead.leftovers()] == [1, 1]
    else:
        # Its inbox and sign of life, one announcement, ten messages.
        inbox = next(path for path in dead.folder.glob("*/*") if path.is_dir())
        assert len(list(inbox.iterdir())) == 11 < INBOX_LIMIT
        long_ago = time.time() - DEAD_AFTER - 1
        os.utime(f"{inbox}.alive", (long_ago, long_ago))
        broker.send_message("to nobody", "default")
        assert dead.leftovers() == []


def test_a_daemon_after_a_killed_one_hears_and_cleans_up(dead: Server) -> None:
    broker = dead.broker()
    broker.announce(["default"])
    assert broker.flush(5)
    if dead.kind == "filesystem":
        sign = next(dead.folder.glob("*/*.alive"))
        os.utime(sign, (1, 1))
    with listening(broker) as ear:
        broker.announce(["default"])
        ear.wait("announced", "default")
    assert dead.leftovers() == []


def test_publishing_goes_on_in_forked_processes(shared_server: Server) -> None:
    with listening(shared_server.broker()) as ear, shared_server.peer("fork") as peer:
        said = peer.communicate(timeout=30)[0]
        assert said.splitlines() == ["child 0", "child 0"]
        for text, times in (("before", 1), ("child", 2), ("parent", 1)):
            ear.wait("message", text, "default", times=times)
        assert len(ear.all("message")) == 4


def test_the_last_announcement_of_a_script_goes_out(shared_server: Server) -> None:
    with listening(shared_server.broker()) as ear, shared_server.peer("announce") as peer:
        assert peer.wait(30) == 0
        ear.wait("announced", "default")


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_script_ends_although_its_broker_is_silent(folder_server: Server, scheme: str) -> None:
    def seconds_with(url: str) -> float:
        started = time.monotonic()
        with folder_server.peer("announce", "0.3", url=url) as peer:
            assert peer.wait(30) == 0
        return time.monotonic() - started

    with socket.create_server(("127.0.0.1", 0)) as hole:
        silent = seconds_with(f"{scheme}://127.0.0.1:{hole.getsockname()[1]}/")
    # Connecting is given five seconds; the process must not wait for that.
    assert silent < seconds_with("memory://") + 4


def test_a_listener_told_to_stop_ends_with_its_process(shared_server: Server) -> None:
    with shared_server.peer("listen") as peer:
        assert peer.stdout is not None
        assert peer.stdin is not None
        assert peer.stdout.readline() == "connected\n"
        peer.stdin.close()
        assert peer.wait(10) == 0
    assert shared_server.leftovers() == []

"""Commands lie on the broker until a daemon has stored them: confirmed, durable, given back."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from kombu import Connection

from pyramid_durable.exceptions import InvalidSetting, StoreUnavailable
from tests.broker.listening import Ear, listening, wait_for
from tests.broker.servers import Server


def test_commands_wait_for_a_daemon_and_are_acknowledged(keeping_server: Server) -> None:
    broker = keeping_server.broker(compressor="gzip")
    bodies = [b'{"v": 1}', b"\x00\xff not text", b"x" * 200_000]
    assert broker.carries_commands
    for body in bodies:
        broker.publish_command(body, "default")
    assert keeping_server.leftovers()
    with listening(broker, commands=True) as ear:
        ear.wait("command", bodies[-1])
        assert [body for (body,) in ear.all("command")] == bodies
    assert keeping_server.leftovers() == []


def test_a_listener_without_commands_leaves_them(keeping_server: Server) -> None:
    broker = keeping_server.broker()
    broker.publish_command(b"later", "default")
    with listening(broker) as ear:
        broker.send_message("end", "default")
        ear.wait("message", "end", "default")
        assert ear.all("command") == []
    assert keeping_server.leftovers()


def test_daemons_share_the_commands(keeping_server: Server) -> None:
    broker = keeping_server.broker()
    sent = {f"{number}".encode() for number in range(100)}
    with (
        listening(broker, commands=True, incarnation="one") as one,
        listening(broker, commands=True, incarnation="two") as two,
    ):
        for body in sent:
            broker.publish_command(body, "default")
        wait_for(
            "all commands",
            lambda: len(one.all("command")) + len(two.all("command")) >= len(sent),
        )
        heard = one.all("command") + two.all("command")
        assert sorted(body for (body,) in heard) == sorted(sent)
        assert one.all("command")
        assert two.all("command")


def test_a_command_that_could_not_be_stored_comes_again_and_blocks_no_other(
    keeping_server: Server,
) -> None:
    broker = keeping_server.broker()
    ear = Ear(fails=lambda body: body == b"bad" and ear.all("command").count((body,)) < 2)
    with listening(broker, commands=True, ear=ear):
        broker.publish_command(b"bad", "default")
        broker.publish_command(b"good", "default")
        ear.wait("command", b"bad", times=2)
        assert ear.all("command")[:2] == [(b"bad",), (b"good",)]
        broker.send_message("end", "default")
        ear.wait("message", "end", "default")
        assert ear.all("disconnected") == []
    assert keeping_server.leftovers() == []


def test_what_a_daemon_could_not_store_goes_to_another_when_it_stops(
    keeping_server: Server,
) -> None:
    broker = keeping_server.broker()
    with listening(broker, commands=True, ear=Ear(fails=lambda body: True)) as failing:
        broker.publish_command(b"kept", "default")
        failing.wait("command", b"kept")
    with listening(broker, commands=True) as ear:
        ear.wait("command", b"kept")


def test_daemons_that_come_and_go_lose_no_command(keeping_server: Server) -> None:
    """Commands arrive all the while, also in the moment in which a daemon leaves."""
    broker = keeping_server.broker()
    sent = [f"{number}".encode() for number in range(150)]
    ears = [Ear() for _ in range(4)]

    def send() -> None:
        for body in sent:
            broker.publish_command(body, "default")
            time.sleep(0.008)

    sending = threading.Thread(target=send)
    sending.start()
    for ear in ears[:-1]:
        with listening(broker, commands=True, ear=ear):
            wait_for("a few commands", lambda heard=ear: len(heard.all("command")) > 10)
    sending.join()
    with listening(broker, commands=True, ear=ears[-1]):
        wait_for("all of them", lambda: {c for e in ears for (c,) in e.all("command")} == {*sent})
    assert sum(len(ear.all("command")) for ear in ears) == len(sent)


def test_a_daemon_killed_with_a_command_in_hand_gives_it_back(keeping_server: Server) -> None:
    # AMQP sees the connection go; Redis has to wait for the visibility timeout.
    options = {"visibility_timeout": 1} if keeping_server.kind == "redis" else {}
    broker = keeping_server.broker(options=options)
    with keeping_server.peer("hold") as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "connected\n"
        broker.publish_command(b"held", "default")
        assert peer.stdout.readline() == "command held\n"
        with listening(broker, commands=True) as ear:
            peer.kill()
            ear.wait("command", b"held")
    assert keeping_server.leftovers() == [] or keeping_server.kind == "redis"


@pytest.mark.parametrize("keeping_server", ["redis"], indirect=True)
def test_what_others_hold_in_redis_is_theirs(keeping_server: Server) -> None:
    """Our visibility timeout gives back our commands, and no task of a Celery beside us."""
    broker = keeping_server.broker(options={"visibility_timeout": 1})
    with Connection(keeping_server.url) as connection:
        name = f"celery-{keeping_server.namespace}"
        theirs = connection.SimpleQueue(name)
        theirs.put("a long task")
        task = theirs.get()
        with keeping_server.peer("hold") as peer:
            assert peer.stdout is not None
            assert peer.stdout.readline() == "connected\n"
            broker.publish_command(b"held", "default")
            assert peer.stdout.readline() == "command held\n"
        with listening(broker, commands=True) as ear:
            ear.wait("command", b"held")
        with keeping_server.redis() as client:
            assert client.llen(name) == 0, "it was given back over its holder's head"
        task.ack()


def test_a_queue_deleted_behind_our_back_is_made_again(keeping_server: Server) -> None:
    """AMQP would confirm a command for a queue that is not there, and forget it."""
    broker = keeping_server.broker()
    broker.publish_command(b"lost with the queue", "default")
    with Connection(keeping_server.url) as connection:
        keeping_server.address().commands("default")(connection.default_channel).delete()
    broker.publish_command(b"kept", "default")
    with listening(broker, commands=True) as ear:
        ear.wait("command", b"kept")


@pytest.mark.parametrize("keeping_server", ["amqp"], indirect=True)
def test_commands_outlive_a_restart_of_the_broker(keeping_server: Server) -> None:
    """Whether Redis writes to disk is its own configuration."""
    keeping_server.broker().publish_command(b"kept", "default")
    with Connection(keeping_server.url) as connection:
        queue = keeping_server.address().commands("default")(connection.default_channel)
        queue.queue_declare()  # refused where it is not durable
        message = queue.get(no_ack=True)
    assert message is not None
    assert message.properties["delivery_mode"] == 2


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
def test_transports_that_would_lose_commands_refuse_them(kind: str, tmp_path: object) -> None:
    server = Server(kind, tmp_path)  # type: ignore[arg-type]
    broker = server.broker()
    assert not broker.carries_commands
    with pytest.raises(InvalidSetting, match="cannot carry commands"):
        broker.publish_command(b"{}", "default")
    with listening(broker, commands=True) as ear:
        broker.announce(["default"])
        ear.wait("announced", "default")


def test_a_store_that_is_away_is_said_when_it_goes_and_when_it_is_back(
    keeping_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not once for each command and each try, and without a traceback."""
    caplog.set_level(logging.INFO, "pyramid_durable")
    monkeypatch.setattr("pyramid_durable.broker.listener.COMMAND_PAUSE", 0.02)
    away = threading.Event()
    away.set()

    class Storing(Ear):
        def command(self, body: bytes) -> None:
            super().command(body)
            if away.is_set():
                raise StoreUnavailable("the database of the store x: gone")

    broker = keeping_server.broker()
    with listening(broker, commands=True, ear=Storing()) as ear:
        for body in (b"one", b"two"):
            broker.publish_command(body, "default")
        ear.wait("command", b"one", times=3)
        ear.wait("command", b"two", times=3)
        away.clear()
        wait_for("the end of it", lambda: "commands are stored again" in caplog.text)
    said = [record for record in caplog.records if record.name.endswith("listener")]
    actions = [record.__dict__["action"] for record in said]
    assert actions.count("commands_wait") == actions.count("commands_go_on") == 1
    assert not any(record.exc_info for record in said)
    assert "the database of the store x: gone" in caplog.text

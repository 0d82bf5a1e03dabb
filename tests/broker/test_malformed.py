"""What is none of ours on the broker is dropped and logged; the listener goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from kombu import Connection, Producer

from tests.broker.listening import Ear, listening, wait_for
from tests.broker.servers import Server

BODIES = (b"", b"{", b"\xff\xfe", b"[]", b'"text"', b"{}", b'{"kind": "message", "text": 7}')


def check_alive(server: Server, ear: Ear) -> None:
    server.broker().send_message("still here", "default")
    ear.wait("message", "still here", "default")
    assert ear.all("disconnected") == []
    assert len(ear.all("message")) == 1
    assert ear.all("announced") == []


def test_bodies_that_say_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with listening(server.broker()) as ear:
        address = server.address()
        connection = address.connect()
        exchange = address.exchange("default")
        producer = Producer(connection.default_channel, exchange)
        for body in BODIES:
            producer.publish(body, content_type="text/plain", content_encoding="binary")
        producer.publish(b"not gzip", headers={"compression": "application/x-gzip"})
        producer.publish(b"no such thing", headers={"compression": "application/x-nothing"})
        connection.release()
        check_alive(server, ear)
    assert caplog.text.count("dropped a malformed message") >= len(BODIES)


def test_commands_that_cannot_be_read(
    keeping_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    broker = keeping_server.broker()
    with Connection(keeping_server.url) as connection:
        commands = keeping_server.address().commands("default")
        Producer(connection.default_channel).publish(
            b"not gzip",
            exchange="",
            routing_key=commands.routing_key,
            declare=[commands],
            headers={"compression": "application/x-gzip"},
        )
    with listening(broker, commands=True) as ear:
        broker.publish_command(b"readable", "default")
        ear.wait("command", b"readable")
        assert len(ear.all("command")) == 1
        assert ear.all("disconnected") == []
    assert "dropped a malformed message" in caplog.text
    assert keeping_server.leftovers() == []


@pytest.fixture
def redis_server(tmp_path: object) -> Server:
    return Server("redis", tmp_path)  # type: ignore[arg-type]


def test_what_others_write_to_redis(redis_server: Server) -> None:
    address = redis_server.address()
    topic = f"/0.{address.exchange('default').name}"
    foreign = (
        b"",
        b"junk",
        b"[]",
        b"{}",
        b"7",
        json.dumps({"body": "&", "properties": 1}).encode(),
    )
    with listening(redis_server.broker(), commands=True) as ear, redis_server.redis() as client:
        for payload in foreign:
            client.publish(topic, payload)
            client.lpush(address.commands("default").name, payload)
        check_alive(redis_server, ear)
        redis_server.broker().publish_command(b"readable", "default")
        ear.wait("command", b"readable")
    redis_server.close()


def test_files_that_are_half_written_or_none_of_ours(folder_server: Server) -> None:
    def inbox_is_empty() -> bool:
        return not [path for path in inbox.iterdir() if not path.name.startswith((".", "folder"))]

    with listening(folder_server.broker()) as ear:
        inbox = next(path for path in folder_server.folder.glob("*/*") if path.is_dir())
        # A folder where a file should be stays; it must not be all that is ever looked at.
        inbox.joinpath("folder.json").mkdir()
        inbox.joinpath(".draft").write_bytes(b'{"body": "half')
        files: dict[str, bytes] = {
            "0.json": b"",
            "1.json": b'{"body": "half',
            "2.json": b"[]",
            "3.json": b"{}",
            "4.json": b"\xff\xfe",
            "5.json": b'{"body": "&", "properties": {}, "headers": {}}',
        }
        for name, content in files.items():
            inbox.joinpath(name).write_bytes(content)
        wait_for("the files to be read", inbox_is_empty)
        check_alive(folder_server, ear)
        assert inbox.joinpath(".draft").exists(), "it may be on its way"


def test_a_flood_of_junk_does_not_stop_the_listener(folder_server: Server) -> None:
    """After so much of it the connection is made anew; it is not the end."""
    ear: Ear
    write: Callable[[int], object]
    with listening(folder_server.broker()) as ear:
        inbox = next(path for path in folder_server.folder.glob("*/*") if path.is_dir())
        write = lambda number: inbox.joinpath(f"{number}.json").write_bytes(b"{}")  # noqa: E731
        for number in range(150):
            write(number)
        ear.wait("connected", times=2)
        folder_server.broker().announce(["default"])
        ear.wait("announced", "default")

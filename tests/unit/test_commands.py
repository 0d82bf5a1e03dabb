"""Signed commands: read by who has the secret, and as they were written; nothing else is."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable import commands
from pyramid_durable.commands import decode, encode
from pyramid_durable.exceptions import InvalidCommand

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.text('\0\udcff"\\é'),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


def sign(secret: str, command: str) -> str:
    text = f"pyramid_durable command 1\0{command}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def envelope(command: Any, /, secret: str = "s", **changes: Any) -> bytes:
    text = command if isinstance(command, str) else json.dumps(command)
    message = {"v": 1, "sig": sign(secret, text), "command": text, **changes}
    return json.dumps(message).encode()


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4), st.text(min_size=1))
def test_a_command_comes_out_as_it_went_in(verb: str, body: dict[str, Any], secret: str) -> None:
    message = encode(verb, body, secret)
    command = decode(message, [secret])
    assert (command.verb, command.body) == (verb, body)
    assert decode(message.decode(), ["other", secret]) == command


def test_the_envelope_is_json() -> None:
    found = json.loads(encode("add", {"jobs": []}, "s"))
    assert sorted(found) == ["command", "sig", "v"]
    assert found["v"] == 1
    command = json.loads(found["command"])
    assert (command["verb"], command["body"]) == ("add", {"jobs": []})


def test_each_command_has_an_id_that_stays() -> None:
    message = encode("add", {}, "s")
    assert decode(message, ["s"]).id == decode(message, ["s"]).id
    assert decode(encode("add", {}, "s"), ["s"]).id > decode(message, ["s"]).id


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.data())
def test_a_changed_message_is_refused_or_says_the_same(data: st.DataObject) -> None:
    message = bytearray(encode("add", {"jobs": [{"func": "a:b"}], "n": 12}, "s"))
    before = decode(bytes(message), ["s"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidCommand):
        assert decode(bytes(message), ["s"]) == before


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.one_of(st.binary(), json_values.map(lambda value: json.dumps(value).encode())))
def test_junk_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidCommand):
        decode(message, ["s"])


GOOD = {"id": "1", "verb": "add", "body": {}}

REFUSED: list[tuple[Any, str]] = [
    (b"", "is not JSON"),
    (b"\xff", "is not JSON"),
    (b"[" * 100_000, "is not JSON"),
    (None, "is not JSON"),
    (b"[]", "is a list, expected an object"),
    (b"{}", "has no signature"),
    (envelope(GOOD, sig=None), "has no signature"),
    (envelope(GOOD, command=GOOD), "nothing signed"),
    (envelope(GOOD, sig=""), "not signed with one of"),
    (envelope(GOOD, sig="\udcff\u00e9"), "not signed with one of"),
    (envelope(GOOD, sig="0" * 64), "not signed with one of"),
    (envelope(GOOD, secret="other"), "not signed with one of scheduler.secret: is the web"),
    (envelope(GOOD, secret=""), "not signed with one of"),
    (envelope(GOOD, v=2), "has version 2, expected 1: is the daemon older"),
    (envelope(GOOD, v=None), "has version None"),
    (envelope("not json"), "the command is not JSON"),
    (envelope("[" * 100_000), "the command is not JSON"),
    (envelope([GOOD]), "the command is a list"),
    (envelope({}), "not the form of one"),
    (envelope({**GOOD, "id": 1}), "not the form of one"),
    (envelope({**GOOD, "verb": None}), "not the form of one"),
    (envelope({**GOOD, "body": []}), "not the form of one"),
]


@pytest.mark.parametrize(("message", "error"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_no_command(message: Any, error: str) -> None:
    with pytest.raises(InvalidCommand, match=error):
        decode(message, ["s", ""])


def test_what_this_test_signs_is_good() -> None:
    assert decode(envelope(GOOD), ["s"]).id == "1"


@pytest.mark.parametrize("secrets", [[], [""], ["wrong"]])
def test_without_the_secret_nothing_is_read(
    secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = encode("add", {}, "s")
    monkeypatch.setattr(commands, "_read_command", lambda found: pytest.fail("it was read"))
    with pytest.raises(InvalidCommand, match="not signed"):
        decode(message, secrets)


def test_a_signature_for_something_else_does_not_count() -> None:
    text = json.dumps(GOOD)
    plainly = hmac.new(b"s", text.encode(), hashlib.sha256).hexdigest()
    with pytest.raises(InvalidCommand, match="not signed"):
        decode(envelope(GOOD, sig=plainly), ["s"])


def test_no_secret_is_ever_shown() -> None:
    for message in (envelope(GOOD), envelope(GOOD, v=2)):
        with pytest.raises(InvalidCommand) as caught:
            decode(message, ["hush-hush"])
        assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}, {("a",): 1}, {"a": b"b"}]
)
def test_a_body_that_is_no_json(body: Any) -> None:
    with pytest.raises(InvalidCommand, match="'add': its body is not JSON"):
        encode("add", body, "s")


def test_a_command_is_never_unsigned() -> None:
    with pytest.raises(InvalidCommand, match=r"cannot be signed without scheduler.secret"):
        encode("add", {}, "")

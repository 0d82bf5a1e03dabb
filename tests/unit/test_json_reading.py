"""Texts that nobody wrote with dumps(): read as something harmless, or a BrokenJob."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable.exceptions import BrokenJob
from pyramid_durable.serializers import JSONSerializer
from tests.unit import shapes
from tests.unit.shapes import Doubled, Point, Square

HERE = "tests.unit.shapes"

serializer = JSONSerializer()

HOSTILE: list[Any] = [
    "", "{", "nul", "[1", "\0", '"\\ud8"', "[" * 100_000, '{"!":"tuple","v":' * 5_000,
    {"!": "tuple"}, {"!": "tuple", "v": 5}, {"!": "nothing", "v": 1}, {"!": None}, {"!": []},
    {"!": {}}, {"!": "entity"}, {"!": "entity", "c": "os:system", "v": [1]},
    {"!": "entity", "c": f"{HERE}:Point", "v": [1]}, {"!": "entity", "c": 7, "v": [1]},
    {"!": "entity", "c": f"{HERE}:Rental", "v": 7}, {"!": "entity", "c": f"{HERE}:send", "v": []},
    {"!": "enum", "c": "os:system", "n": "x"}, {"!": "enum", "c": "os:environ", "n": "PATH"},
    {"!": "enum", "c": f"{HERE}:Color", "n": "BLUE"}, {"!": "enum", "c": f"{HERE}:Color", "v": 1},
    {"!": "enum", "c": f"{HERE}:Color", "n": "mro"}, {"!": "enum", "c": f"{HERE}:Color"},
    {"!": "enum", "c": f"{HERE}:Rights", "v": "x"}, {"!": "enum", "c": f"{HERE}:Color", "n": []},
    {"!": "dataclass", "c": "subprocess:Popen", "v": {"args": ["true"]}},
    {"!": "dataclass", "c": f"{HERE}:Point", "v": 7}, {"!": "dataclass", "c": f"{HERE}:Point"},
    {"!": "dataclass", "c": f"{HERE}:Desk", "v": {}},
    {"!": "dataclass", "c": f"{HERE}:Named", "v": {"name": "x"}},
    {"!": "dataclass", "c": f"{HERE}:Price", "v": {"amount": 1}, "x": {"other": 1}},
    {"!": "dataclass", "c": f"{HERE}:Point", "v": {"x": 1}, "x": 7},
    {"!": "dataclass", "c": "no.such:thing", "v": {}},
    {"!": "datetime", "v": "soon"}, {"!": "datetime", "v": 7}, {"!": "datetime", "v": "2024-13-01"},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": "../../etc/passwd"},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": "/etc/passwd"},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": "Europe"},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": "a\0b"},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": ""},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": []},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": [1e9]},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": [1, 2]},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "z": {}},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "f": 2},
    {"!": "datetime", "v": "2024-01-01T00:00:00", "f": "x"},
    {"!": "date", "v": "x"}, {"!": "date", "v": None}, {"!": "time", "v": "25:00"},
    {"!": "timedelta", "v": [1e300, 0, 0]}, {"!": "timedelta", "v": ["x"]},
    {"!": "timedelta", "v": [1, 2, 3, 4, 5, 6, 7, 8]}, {"!": "decimal", "v": "x"},
    {"!": "decimal", "v": {}}, {"!": "uuid", "v": "x"}, {"!": "uuid", "v": 5},
    {"!": "bytes", "v": "%%%"}, {"!": "bytes", "v": 7}, {"!": "bytes", "v": "é"},
    {"!": "str", "v": "/w=="}, {"!": "int", "v": "x"}, {"!": "int", "v": 7},
    {"!": "float", "v": "x"}, {"!": "float", "v": []}, {"!": "dict", "v": [1]},
    {"!": "dict", "v": [[[], 1]]}, {"!": "dict", "v": [[1, 2, 3]]}, {"!": "dict", "v": 7},
    {"!": "set", "v": [[]]}, {"!": "set", "v": 7}, {"!": "frozenset", "v": [{}]},
]  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda value: str(value)[:60])
def test_a_hostile_text_is_a_broken_job(payload: Any) -> None:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    with pytest.raises(BrokenJob):
        serializer.loads(text)
    with pytest.raises(BrokenJob):
        serializer.load_call(f'[[1,{text}],{{"a":{{"!":"tuple","v":[]}}}}]')


def test_numbers_that_take_for_ever_to_read() -> None:
    with pytest.raises(BrokenJob):
        serializer.loads("9" * 5000 + "e")
    assert serializer.loads(json.dumps({"!": "decimal", "v": "1E999999"})).is_finite()


KINDS = (
    "int float str dict tuple set frozenset bytes bytearray datetime date time timedelta decimal "
    "uuid enum dataclass entity other"
)
CLASSES = "Color Rights Point Price Doubled Named Rental Ski Square Shape Sender send Plain Desk"

junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.fixed_dictionaries(
            {"!": st.sampled_from(KINDS.split())},
            optional={
                "v": inner,
                "c": st.one_of(inner, st.sampled_from([f"{HERE}:{n}" for n in CLASSES.split()])),
                "x": inner,
                "z": inner,
                "f": inner,
                "n": inner,
            },
        ),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(junk)
def test_junk_is_read_or_broken(found: Any) -> None:
    with contextlib.suppress(BrokenJob):
        serializer.loads(json.dumps(found), load_entity=lambda ref: ref)


def test_reading_calls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for cls in (Point, Square, Doubled, shapes.Sender, shapes.Desk):
        monkeypatch.setattr(cls, "__init__", lambda self, *args, **kwargs: called.append(self))
    for name in ("Point", "Square", "Doubled", "Sender", "Desk", "send"):
        for kind in ("dataclass", "enum", "entity"):
            text = json.dumps({"!": kind, "c": f"{HERE}:{name}", "v": {"side": 1}, "n": "x"})
            with contextlib.suppress(BrokenJob):
                serializer.loads(text)
    assert called == []


def test_what_stands_beside_fields_runs_no_property() -> None:
    text = json.dumps(
        {"!": "dataclass", "c": f"{HERE}:Point", "v": {"x": 1}, "x": {"__class__": 7}}
    )
    assert type(serializer.loads(text)) is Point

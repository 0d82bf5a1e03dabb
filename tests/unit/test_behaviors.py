"""Equal jobs have equal keys, whatever the serializer, the order of sets and dicts, or identity."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from pyramid_durable.behaviors import uniqueness_key
from pyramid_durable.serializers import JSONSerializer, PickleSerializer, Serializer
from tests.unit import shapes

JSON, PICKLE = JSONSerializer(), PickleSerializer(["a secret"])
ROTATED = PickleSerializer(["another secret", "a secret"])
BOTH = pytest.mark.parametrize("serializer", [JSON, PICKLE], ids=["json", "pickle"])


def key(
    args: Any,
    kwargs: Any,
    ref: str = "a:b",
    group: str | None = None,
    serializer: Serializer = JSON,
) -> str:
    return uniqueness_key(ref, args, kwargs, serializer, group)


@BOTH
def test_equal_jobs_have_equal_keys(serializer: Serializer) -> None:
    one = key([1, {"a": 1, "b": {3, 1, 2}}], {"x": 1, "y": {2: "b", 1: "a"}}, serializer=serializer)
    assert one == key([1, {"b": {2, 3, 1}, "a": 1}], {"y": {1: "a", 2: "b"}, "x": 1})
    assert len(one) == 64
    assert int(one, 16)
    assert key([1], {}, ref="a:b", group="g") == key([1], {}, ref="c:d", group="g")


@BOTH
def test_other_jobs_have_other_keys(serializer: Serializer) -> None:
    keys = [
        key(args, kwargs, serializer=serializer)
        for args, kwargs in [
            ([1], {}),
            (["1"], {}),
            ([True], {}),
            ([1.0], {}),
            ([(1,)], {}),
            ([[1]], {}),
            ([{1}], {}),
            ([frozenset({1})], {}),
            ([1, 2], {}),
            ([2, 1], {}),
            ([], {"x": 1}),
            ([], {}),
            ([{"a": 1}], {}),
            ([{1: "a"}], {}),
            ([{"!": "set", "v": [1]}], {}),
        ]
    ]
    keys += [
        key([1], {}, ref="c:d"),
        key([1], {}, group="g"),
        key([1], {}, group="a:b"),
        key([1], {}, group=""),
    ]
    assert len(set(keys)) == len(keys)


class Plain:
    """Has no form as JSON; two with the same state are stored as the same pickle."""

    def __init__(self, *values: Any) -> None:
        self.values = values


def test_what_only_a_pickle_can_hold_is_compared_by_it() -> None:
    text = "ab"
    same = Plain(text, text, [1], {"x": text})
    other = Plain("".join(["a", "b"]), "".join(["a", "b"]), [1], {"x": "".join(["a", "b"])})
    mine = key([{1, 2}, same], {"y": same}, serializer=PICKLE)
    assert mine == key([{2, 1}, other], {"y": copy.deepcopy(other)}, serializer=PICKLE)
    assert mine == key([{2, 1}, other], {"y": other}, serializer=ROTATED)
    assert mine != key(
        [{2, 1}, Plain("ab", "ac", [1], {"x": "ab"})], {"y": same}, serializer=PICKLE
    )


def test_what_contains_itself_has_a_key_too() -> None:
    def ring() -> Plain:
        one = Plain()
        one.values = (one,)
        return one

    assert key([ring()], {}, serializer=PICKLE) == key([ring()], {}, serializer=ROTATED)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=2))])),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
hashable = st.one_of(scalars, st.frozensets(scalars, max_size=4), st.tuples(scalars, scalars))
values = st.recursive(
    st.one_of(scalars, st.sets(hashable, max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(hashable, inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
    ),
    max_leaves=8,
)


def shuffled(value: Any) -> Any:
    """An equal value, with nothing of it the same object, and every order turned around."""
    if isinstance(value, (set, frozenset)):
        return type(value)([shuffled(item) for item in reversed(list(value))])
    if isinstance(value, dict):
        return {shuffled(name): shuffled(item) for name, item in reversed(value.items())}
    if isinstance(value, (list, tuple)):
        return type(value)(shuffled(item) for item in value)
    return copy.deepcopy(value)


@settings(max_examples=60, deadline=None)
@given(args=st.lists(values, max_size=3), kwargs=st.dictionaries(st.text(max_size=3), values))
def test_equal_values_have_equal_keys(args: list[Any], kwargs: dict[str, Any]) -> None:
    mine = key(args, kwargs)
    assert mine == key(tuple(shuffled(args)), shuffled(kwargs), serializer=PICKLE)
    assert mine == key(*JSON.load_call(JSON.dump_call(args, kwargs)))
    assert mine == key(*PICKLE.load_call(PICKLE.dump_call(args, kwargs)), serializer=ROTATED)
    assert mine != key([*args, 1], kwargs)


@dataclasses.dataclass(frozen=True)
class Order:
    lines: Any


@pytest.mark.parametrize("serializer", [JSON, PICKLE], ids=["json", "pickle"])
def test_sets_of_what_holds_sets_are_in_one_order(serializer: Serializer) -> None:
    here, there = (
        {Order(frozenset(names)) for names in order}
        for order in ([("a", "b"), ("c", "d")], [("d", "c"), ("b", "a")])
    )
    assert key([here], {}) == key([there], {}, serializer=serializer)


def test_keys_are_the_same_in_every_process() -> None:
    """The order of a set of texts differs from process to process."""
    code = (
        "from pyramid_durable.behaviors import uniqueness_key\n"
        "from pyramid_durable.serializers import PickleSerializer\n"
        "names = {f'name {n}' for n in range(20)}\n"
        "print(uniqueness_key('a:b', [names], {}, PickleSerializer(['s'])))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert keys == {key([{f"name {n}" for n in range(20)}], {}) + "\n"}


@BOTH
def test_a_mapped_object_is_compared_by_its_key(serializer: Serializer) -> None:
    engine = create_engine("sqlite://")
    shapes.Base.metadata.create_all(engine)
    keys = []
    with Session(engine) as session:
        session.add_all([shapes.Rental(id=1, ski="a"), shapes.Rental(id=2, ski="a")])
        session.commit()
    for id in (1, 1, 2):
        with Session(engine) as session:
            rental = session.get(shapes.Rental, id)
            keys.append(key([rental, Decimal("1.5")], {}, serializer=serializer))
    engine.dispose()
    assert keys[0] == keys[1] != keys[2]


def test_every_kind_of_value_has_a_key_that_does_not_depend_on_the_serializer() -> None:
    args = [
        datetime(2030, 1, 2, 3, tzinfo=timezone.utc),
        date(2030, 1, 2),
        UUID(int=7),
        b"x",
        Decimal("2.50"),
        10**400,
        "\ud800",
    ]
    assert key(args, {}) == key(args, {}, serializer=PICKLE)

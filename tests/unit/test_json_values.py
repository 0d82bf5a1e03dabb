"""Values as JSON: what goes in comes out, of the same type; what cannot is refused."""

from __future__ import annotations

import collections
import json
import math
import string
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_durable.exceptions import BrokenJob, InvalidJob
from pyramid_durable.serializers import EntityRef, JSONSerializer
from tests.unit import shapes
from tests.unit.shapes import Bits, Color, Doubled, Level, Point, Price, Rights, Square, Word

HERE = "tests.unit.shapes"
BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")

serializer = JSONSerializer()


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, of equal types, all the way down, and in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, (Point, Price, Doubled, Square)):
        return same(_state(one), _state(other))
    return bool(_compared(one) == _compared(other))


def _compared(one: Any) -> Any:
    if isinstance(one, float):
        return one.hex()
    if isinstance(one, Decimal):
        return one.as_tuple()
    if isinstance(one, (datetime, time)):
        return one.replace(tzinfo=None), one.fold, repr(one.tzinfo), one.utcoffset()
    return one


def _state(value: Any) -> Any:
    if isinstance(value, Price):
        return [value.amount, value.currency]
    return {name: item for name, item in vars(value).items() if name != "square"}


def is_key(value: Any) -> bool:
    """Whether a dict or a set holds this as one of its keys: not NaN, and no signal of one."""
    try:
        return hash(value) is not None and value == value
    except (TypeError, ArithmeticError):
        return False


texts = st.one_of(
    st.text(),
    st.text(st.characters(codec=None, categories=("Cs", "Cc", "Lu"))),
    st.text('!"\\\0\ud83d\ude00é', max_size=6),
)
zones = st.one_of(
    st.none(),
    st.sampled_from([timezone.utc, BERLIN, NEW_YORK, ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")]),
    st.builds(
        timezone,
        st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)),
        st.text(string.ascii_letters, max_size=5),
    ),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
)
atoms: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    st.binary(),
    st.datetimes(timezones=zones),
    st.times(),
    st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.times(),
        zones,
        st.integers(0, 1),
    ),
    st.dates(),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.sampled_from(
        [
            *Color,
            *Level,
            *Word,
            *Rights,
            *Bits,
            Rights(0),
            Rights(3),
            Bits.A | Bits.B,
            Bits(0),
            shapes.Outer.Kind.ONE,
        ]
    ),
    st.builds(Price, st.decimals(), texts),
    st.builds(shapes.Outer.Inner, st.integers()),
)
hashable = st.recursive(
    atoms.filter(is_key),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
    ),
    max_leaves=5,
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(texts, inner, max_size=5),
        st.dictionaries(hashable, inner, max_size=5),
        st.dictionaries(st.sampled_from(["!", "v", "c", "x", "n", "z"]), inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.binary().map(bytearray),
        st.builds(Point, st.integers(), inner, st.lists(texts, max_size=2)),
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(values)
def test_what_goes_in_comes_out(value: Any) -> None:
    text = serializer.dumps(value)
    assert same(serializer.loads(text), value)
    # Every database takes it, and every JSON reader.
    assert text.isascii()
    assert text.isprintable()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert serializer.dumps(serializer.loads(text)) == text


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(values, max_size=4), st.dictionaries(texts, values, max_size=4))
def test_calls(args: list[Any], kwargs: dict[str, Any]) -> None:
    again_args, again_kwargs = serializer.load_call(serializer.dump_call(args, kwargs))
    assert same(list(again_args), args)
    assert type(again_args) is tuple
    assert same(again_kwargs, kwargs)


ONES = [
    {True: "a", 2: "b"},
    {0: "a", True: "b", 2.0: "c"},
    {"1": "a", 1: "b"},
    {None: 1, "null": 2, "None": 3},
    {1.5: 1, Decimal("1.5"): 2},
    {(1, (2,)): {"!": "tuple"}},
    {"!": "tuple", "v": [1]},
    {"!": {"!": {"!": None}}},
    [{"!": "entity", "c": "os:system", "v": [1]}],
    [],
    {},
    (),
    set(),
    frozenset(),
    frozenset({frozenset(), frozenset({frozenset()})}),
    "\ud83d\ude00",
    {"\ud83d\ude00": "\ude00\ud83d"},
    "\0",
    "NaN",
    -0.0,
    5e-324,
    1.7976931348623157e308,
    2**53 + 1,
    2**64,
    -(2**1024),
    2**1024 - 1,
    10**5000,
    -(10**5000),
    Decimal("-0.00"),
    Decimal("1E+999999"),
    Decimal("sNaN12"),
    Decimal("-Infinity"),
    datetime.min,
    datetime.max,
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=0, tzinfo=BERLIN),
    datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN),
    datetime(1850, 1, 1, tzinfo=BERLIN),
    datetime(2024, 1, 1, fold=1),
    time(1, 2, 3, 4, tzinfo=BERLIN, fold=1),
    timedelta.min,
    timedelta.max,
    timedelta(microseconds=-1),
    timezone.utc.utcoffset(None),
    UUID(int=0),
    date.min,
    bytearray(b"\xff\0"),
    Rights.READ | Rights.WRITE,
    Bits(0),
    Color.CRIMSON,
    Point(1, Point(2, {Price(Decimal(1)): [Point(3)]}), ["a"]),
    Square(3),
]


@pytest.mark.parametrize("value", ONES, ids=lambda value: type(value).__name__)
def test_the_odd_ones(value: Any) -> None:
    assert same(serializer.loads(serializer.dumps(value)), value)


def test_plain_values_stay_plain_json() -> None:
    value = {"a": [1, 2.5, "é", None, True, {"b": "!"}]}
    assert serializer.dumps(value) == json.dumps(value, separators=(",", ":"))
    assert serializer.dump_call([1, "a"], {"x": None}) == '[[1,"a"],{"x":null}]'


def test_a_list_is_a_copy() -> None:
    value = {"a": [1]}
    text = serializer.dumps(value)
    value["a"].append(2)
    assert text == '{"a":[1]}'


def test_equal_sets_have_equal_texts() -> None:
    """Whatever the order in which this process's hashes put them."""
    words = [f"word {number}" for number in range(50)]
    for kind in (set, frozenset):
        assert json.loads(serializer.dumps(kind(words)))["v"] == sorted(words)
    assert json.loads(serializer.dumps({(2,), (1,)}))["v"] == [
        {"!": "tuple", "v": [1]},
        {"!": "tuple", "v": [2]},
    ]


def test_nan_is_written_as_json() -> None:
    text = serializer.dumps([math.nan])
    assert "NaN" not in text
    assert math.isnan(serializer.loads(text)[0])


def test_a_dataclass_is_restored_without_its_constructor() -> None:
    doubled = Doubled(4, factor=10)
    assert doubled.square() == 16
    made = Doubled.made
    again = serializer.loads(serializer.dumps(doubled))
    assert Doubled.made == made
    assert (again.value, again.product, again.square()) == (4, 40, 16)
    again.product = {"!": 1}
    assert serializer.loads(serializer.dumps(again)).product == {"!": 1}


def test_a_dataclass_that_has_grown_or_shrunk() -> None:
    text = serializer.dumps(Point(1, 2, ["a"]))
    older = json.loads(text)
    del older["v"]["y"], older["v"]["tags"]
    older["v"]["gone"] = 3
    assert serializer.loads(json.dumps(older)) == Point(1)
    one, other = (serializer.loads(json.dumps(older)) for _ in range(2))
    assert one.tags is not other.tags
    del older["v"]["x"]
    with pytest.raises(BrokenJob, match="Point has a field 'x' now that was not stored"):
        serializer.loads(json.dumps(older))


class Fixed(tzinfo):
    """As dateutil makes them."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=1 if moment.month < 6 else 2)

    def dst(self, moment: datetime | None) -> None:
        return None


class Pytz(Fixed):
    """As pytz names them."""

    zone = "Europe/Berlin"


def test_other_zones_keep_the_instant() -> None:
    for month, hours in ((1, 1), (7, 2)):
        moment = datetime(2024, month, 1, 12, tzinfo=Fixed())
        again = serializer.loads(serializer.dumps(moment))
        assert again == moment
        assert again.tzinfo == timezone(timedelta(hours=hours))
    named = datetime(2024, 7, 1, 12, tzinfo=Pytz())
    assert serializer.loads(serializer.dumps(named)).tzinfo is BERLIN
    # Says that it is Berlin, and is wrong about October.
    wrong = datetime(2024, 11, 1, 12, tzinfo=Pytz())
    assert serializer.loads(serializer.dumps(wrong)).utcoffset() == timedelta(hours=2)
    with pytest.raises(InvalidJob, match=r"tells no offset; expected a zoneinfo.ZoneInfo"):
        serializer.dumps(time(12, tzinfo=Fixed()))


class Hidden:
    class Inner(Price):
        __slots__ = ()


def local() -> Any:
    class Local(shapes.enum.Enum):
        A = 1

    return Local.A


Pair = collections.namedtuple("Pair", "a b")


class Moment(datetime):
    pass


REFUSED = [
    (object(), "a builtins.object cannot be stored; expected JSON values, datetime, "),
    (shapes.send, "a builtins.function cannot be stored"),
    (Point, "a builtins.type cannot be stored"),
    (Color, "cannot be stored"),
    (1j, "a builtins.complex cannot be stored"),
    (iter([]), "list_iterator cannot be stored"),
    (range(3), "range cannot be stored"),
    (memoryview(b""), "memoryview cannot be stored"),
    (shapes.Text("a"), "a mere str; pass str"),
    (Pair(1, 2), "a mere tuple; pass tuple"),
    (collections.OrderedDict(a=1), "a mere dict; pass dict"),
    (collections.Counter("aa"), "a mere dict"),
    (collections.deque([1]), "deque cannot be stored"),
    (Moment(2024, 1, 1), "a mere datetime; pass datetime"),
    (local(), "cannot be imported by the daemon"),
    (shapes.Named("x"), "Named cannot be made from its fields"),
    (ValueError("x"), "ValueError cannot be stored"),
    (shapes.NUMBER.__class__, "cannot be stored"),
    (shapes.Rental(ski="x"), "Rental that is not in the database yet .*flush the session"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_what_has_no_form(value: Any, message: str) -> None:
    with pytest.raises(InvalidJob, match=f"^: .*{message}"):
        serializer.dumps(value)


def test_a_class_under_another_ones_name() -> None:
    class Replaced(shapes.enum.Enum):
        RED = 1

    Replaced.__module__, Replaced.__qualname__ = HERE, "Color"
    with pytest.raises(InvalidJob, match="Color names something else"):
        serializer.dumps(Replaced.RED)


def test_a_field_without_a_value() -> None:
    point = Point(1)
    del point.tags
    with pytest.raises(InvalidJob, match="Point without a value for its field 'tags'"):
        serializer.dumps(point)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([0, object()], "[1]"),
        ({"a": [1, {"b": object()}]}, "['a'][1]['b']"),
        ({1: {2: object()}}, "[1][2]"),
        ((1, (object(),)), "[1][0]"),
        (Point(1, [object()]), ".y[0]"),
        ({"a": {Pair(1, 2): 1}}, "['a']'s key Pair(a=1, b=2)"),
        ([{shapes.Text("a"): 1}], "[0]'s key 'a'"),
        ({"a": {("x", shapes.Text("b"))}}, "['a']{('x', 'b')}[1]"),
        ({10**5000: object()}, "[a int]"),
        ({"x" * 500: object()}, f"['{'x' * 59}]"),
    ],
)
def test_the_error_names_the_place(value: Any, path: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        serializer.dumps(value)
    assert str(caught.value).partition(": ")[0] == path


def test_circles_and_depths() -> None:
    circle: list[Any] = []
    circle.append({"circle": circle})
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep, {10**5000: circle}):
        with pytest.raises(InvalidJob, match="contains itself, or is nested too deeply"):
            serializer.dumps(value)
    shared = [1]
    assert serializer.loads(serializer.dumps([shared, shared])) == [[1], [1]]


def test_a_deep_error_costs_no_more_than_its_depth() -> None:
    deep: Any = object()
    for _ in range(100):
        deep = [deep, 1]
    with pytest.raises(InvalidJob, match=r"^(\[0\]){100}: a builtins.object"):
        serializer.dumps(deep)


def test_references_to_mapped_objects() -> None:
    text = json.dumps(
        [{"!": "entity", "c": f"{HERE}:Part", "v": ["Kiel", {"!": "decimal", "v": "7"}]}]
    )
    ref = EntityRef(f"{HERE}:Part", ("Kiel", Decimal(7)))
    assert serializer.loads(text) == [ref]
    assert serializer.loads(text, load_entity=lambda found: {"found": found}) == [{"found": ref}]
    assert serializer.loads(json.dumps({"!": "entity", "c": f"{HERE}:Plain", "v": [1]})).pk == (1,)

"""Calls as text: sizes, errors that name the argument, pickles that are signed, mapped objects."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import pickle
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from pyramid_durable.exceptions import BrokenJob, DurableError, InvalidJob, InvalidSetting
from pyramid_durable.serializers import (
    CustomSerializer,
    EntityRef,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    resolve_serializer,
    stored_serializer,
)
from tests.unit import shapes
from tests.unit.shapes import LongRental, Part, Plain, Point, Rental, Ski

HERE = "tests.unit.shapes"

plain = JSONSerializer()
pickled = PickleSerializer(["new", "old"])


class Reversed:
    """An application's own serializer, of bytes."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value).encode()[::-1]

    def loads(self, text: bytes) -> Any:
        return json.loads(text[::-1])


class Texts:
    dumps, loads = staticmethod(json.dumps), staticmethod(json.loads)


class Wrong:
    """Has the methods, and nothing else to show for it."""

    def dumps(self, value: Any) -> Any:
        return 7

    def loads(self, text: str) -> Any:
        raise ZeroDivisionError("as applications do")


class Halves:
    def dumps(self, value: Any) -> str:
        return ""


class Needy:
    def __init__(self, key: str) -> None: ...

    dumps = loads = None


texts = Texts()
everyone = pytest.mark.parametrize(
    "serializer",
    [plain, pickled, CustomSerializer("a:b", Reversed()), CustomSerializer("a:b", Texts())],
    ids=["json", "pickle", "bytes", "text"],
)


@everyone
def test_a_call_comes_out_as_it_went_in(serializer: Serializer) -> None:
    payload = serializer.dump_call((1, "é", None), {"x": [1.5, {"a": True}]}, max_size=1000)
    assert serializer.load_call(payload) == ((1, "é", None), {"x": [1.5, {"a": True}]})
    assert serializer.load_call(serializer.dump_call([], {})) == ((), {})


@everyone
def test_the_argument_that_cannot_be_written_is_named(serializer: Serializer) -> None:
    def local() -> None: ...

    with pytest.raises(InvalidJob, match=r"^argument 2: "):
        serializer.dump_call([1, local], {"user": 2})
    with pytest.raises(InvalidJob, match=r"^argument 'user': "):
        serializer.dump_call([1], {"date": 1, "user": local})


def test_the_way_inside_of_an_argument_is_named() -> None:
    with pytest.raises(InvalidJob) as caught:
        plain.dump_call([1, {"a": [0, object()]}], {})
    assert str(caught.value).startswith("argument 2['a'][1]: a builtins.object cannot be stored")


@everyone
def test_the_size_is_limited(serializer: Serializer) -> None:
    size = len(serializer.dump_call(["x" * 100], {}).encode())
    assert serializer.dump_call(["x" * 100], {}, max_size=size)
    with pytest.raises(InvalidJob, match=rf"{size:,} bytes.*max_args_size \({size - 1:,}\).*key"):
        serializer.dump_call(["x" * 100], {}, max_size=size - 1)


def test_the_size_is_counted_in_bytes() -> None:
    class Raw:
        def dumps(self, value: Any) -> str:
            return "é" * 10

        loads = None

    with pytest.raises(InvalidJob, match="21 bytes"):
        CustomSerializer("a:b", Raw()).dump_call([], {}, max_size=20)


@pytest.mark.parametrize(
    "payload",
    ["", "7", "null", "[]", "[[]]", "[[],{},1]", "[{},[]]", '["ab",{}]', "{}", '{"a":1,"b":2}',
     '[{"!":"tuple","v":[]},{"!":"set","v":[]}]', "not json", "[[1],{]", "[[],{}]]", "[[],{}] 1", "\0"],
)  # fmt: skip
def test_a_payload_that_is_no_call(payload: str) -> None:
    with pytest.raises(BrokenJob):
        plain.load_call(payload)


@pytest.mark.parametrize("payload", [" [[1],{}]", "[[1],{}]\n", " [ [1] , {} ] "])
def test_blanks_around_a_payload_are_no_matter(payload: str) -> None:
    assert plain.load_call(payload) == ((1,), {})


@pytest.mark.parametrize("serializer", [plain, pickled])
def test_every_error_is_one_of_ours(serializer: Serializer) -> None:
    for text in ("nonsense", "", "a.b", "[" * 5000, "\0"):
        with pytest.raises(BrokenJob, match="the stored") as caught:
            serializer.loads(text)
        assert isinstance(caught.value, DurableError)


def sign(secret: str, body: bytes) -> str:
    key, said = secret.encode(), b"pyramid_durable pickle\0" + body
    signature = hmac.new(key, said, hashlib.sha256).hexdigest()
    return f"{signature}.{base64.b64encode(body).decode()}"


def test_pickles_are_signed() -> None:
    assert pickled.loads(sign("new", pickle.dumps([1]))) == [1]
    assert pickled.dumps([1]) == sign("new", pickle.dumps([1], pickle.HIGHEST_PROTOCOL))


def test_secrets_rotate() -> None:
    text = PickleSerializer(["old"]).dumps([1])
    assert pickled.loads(text) == [1]
    with pytest.raises(BrokenJob, match="not signed"):
        PickleSerializer(["old"]).loads(pickled.dumps([1]))


class Bomb:
    went_off = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "went_off", True)


def test_an_unsigned_pickle_is_not_read() -> None:
    body = pickle.dumps(Bomb())
    encoded = base64.b64encode(body).decode()
    plainly = hmac.new(b"new", body, hashlib.sha256).hexdigest()
    for text in (
        encoded,
        f".{encoded}",
        f"{'0' * 64}.{encoded}",
        f"é.{encoded}",
        f"\udcff.{encoded}",
        f"{plainly}.{encoded}",  # as another use of the same secret would sign it
        sign("other", body),
        sign("", body),
        sign("new", b"") + encoded,
        sign("new", body)[:-5],
        sign("new", body) + "%",
        "",
        ".",
    ):
        with pytest.raises(BrokenJob):
            pickled.loads(text)
    assert not Bomb.went_off
    pickled.loads(sign("new", body))
    assert Bomb.went_off


@pytest.mark.parametrize("secrets", [[], [""], ["good", ""]])
def test_a_pickle_needs_a_secret(secrets: list[str]) -> None:
    with pytest.raises(InvalidSetting, match=r"pickle needs scheduler.secret"):
        PickleSerializer(secrets)
    with pytest.raises(InvalidSetting, match=r"needs scheduler.secret"):
        resolve_serializer("pickle", secrets)


class Failing:
    def __init__(self) -> None:
        self.a = 1

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("of another version")


def test_a_pickle_that_cannot_be_read() -> None:
    with pytest.raises(BrokenJob, match="of another version"):
        pickled.loads(pickled.dumps(Failing()))
    with pytest.raises(BrokenJob, match="cannot be read"):
        pickled.loads(sign("new", b"no pickle"))


def test_pickles_take_what_json_does_not() -> None:
    assert pickled.loads(pickled.dumps({1j: range(3)})) == {1j: range(3)}


class Found:
    """What a job's session would find."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, ref: EntityRef) -> Any:
        cls = getattr(shapes, ref.cls.partition(":")[2])
        return self.session.get(cls, ref.pk)


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    shapes.Base.metadata.create_all(engine)
    shapes.DataBase.metadata.create_all(engine)
    Plain.__table__.create(engine)  # type: ignore[attr-defined]
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def entities(session: Session) -> list[Any]:
    found = [
        Rental(ski="Rusty"),
        LongRental(ski="Bolt"),
        Part(shop="Kiel", number=Decimal(7)),
        Ski(id=1, name="Rusty"),
        Plain(),
    ]
    session.add_all(found)
    session.flush()
    return found


@pytest.mark.parametrize("serializer", [plain, pickled])
def test_mapped_objects_are_references(
    serializer: Serializer, session: Session, entities: list[Any]
) -> None:
    payload = serializer.dump_call([*entities, {"in": [entities]}], {"of": entities[0]})
    assert "Rusty" not in payload
    args, kwargs = serializer.load_call(payload)
    names = ["Rental", "LongRental", "Part", "Ski", "Plain"]
    assert [ref.cls for ref in args[:5]] == [f"{HERE}:{name}" for name in names]
    assert args[2].pk == ("Kiel", Decimal(7))
    assert kwargs == {"of": args[0]}
    args, kwargs = serializer.load_call(payload, Found(session))
    assert [*args[:5]] == entities
    assert args[5] == {"in": [entities]}
    assert kwargs == {"of": entities[0]}


@pytest.mark.parametrize("serializer", [plain, pickled])
def test_a_mapped_object_of_no_database(serializer: Serializer, session: Session) -> None:
    rental = Rental(ski="Rusty")
    with pytest.raises(InvalidJob, match=r"argument 1.*not in the database yet.*flush"):
        serializer.dump_call([rental], {})
    session.add(rental)
    with pytest.raises(InvalidJob, match="not in the database yet"):
        serializer.dump_call([{"a": rental}], {})
    session.flush()
    assert serializer.dump_call([rental], {})
    session.delete(rental)
    session.flush()
    with pytest.raises(InvalidJob, match="has been deleted"):
        serializer.dump_call([rental], {})


@pytest.mark.parametrize("serializer", [plain, pickled])
def test_a_mapped_object_whose_session_is_closed(
    serializer: Serializer, session: Session, entities: list[Any]
) -> None:
    session.commit()
    session.close()
    assert serializer.load_call(serializer.dump_call(entities[:1], {}))[0][0].pk == (1,)


@pytest.mark.parametrize("serializer", [plain, pickled])
@pytest.mark.parametrize(
    "error",
    [ValueError("v"), LookupError("l"), OperationalError("s", {}, Exception()), BrokenJob("b")],
    ids=lambda error: type(error).__name__,
)
def test_what_the_loader_raises_is_not_about_the_text(
    serializer: Serializer, entities: list[Any], error: Exception
) -> None:
    """A database that is away does not break the job."""

    def load_entity(ref: EntityRef) -> Any:
        raise error

    payload = serializer.dump_call(entities[:1], {})
    with pytest.raises(type(error)) as caught:
        serializer.load_call(payload, load_entity)
    assert caught.value is error


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt])
def test_a_timeout_goes_through(kind: type[BaseException], entities: list[Any]) -> None:
    def load_entity(ref: EntityRef) -> Any:
        raise kind

    with pytest.raises(kind):
        plain.load_call(plain.dump_call(entities[:1], {}), load_entity)


def test_a_dataclass_that_is_mapped_is_a_reference(entities: list[Any]) -> None:
    assert dataclasses.is_dataclass(entities[3])
    assert plain.loads(plain.dumps(entities[3])) == EntityRef(f"{HERE}:Ski", (1,))


def test_serializers_have_names() -> None:
    assert resolve_serializer("json", ()).name == "json"
    assert resolve_serializer("pickle", ("s",)).name == "pickle"
    for name in (f"{__name__}:Reversed", f"{__name__}.texts", "tests.unit.test_serializers:json"):
        serializer = resolve_serializer(name, ())
        assert serializer.name == name
        assert serializer.loads(serializer.dumps({"a": [1]})) == {"a": [1]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.thing", "there is no module 'no'; expected json, pickle, or the dotted name"),
        ("jsn", "there is no module 'jsn'; expected json, pickle"),
        ("", "''; expected|'':"),
        (f"{__name__}:Halves", r"has no dumps\(\) and loads\(\)"),
        (f"{__name__}:Needy", "making one failed: TypeError"),
        (f"{__name__}:HERE", r"has no dumps\(\) and loads\(\)"),
        ("pickle:Pickler", "TypeError"),
        ("_pickle", "would read unsigned pickles; 'pickle' signs them"),
        ("marshal", "would read unsigned pickles"),
        (f"{__name__}:pickle", "would read unsigned pickles"),
    ],
)
def test_a_serializer_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message) as caught:
        resolve_serializer(name, ("secret",))
    assert f"scheduler.serializer = {name!r}" in str(caught.value)


def test_a_serializer_that_fails() -> None:
    wrong = CustomSerializer("app:wrong", Wrong())
    with pytest.raises(InvalidJob, match=r"argument 1: app:wrong.dumps\(\) returned int, expected"):
        wrong.dump_call([1], {})
    with pytest.raises(BrokenJob, match=r"ZeroDivisionError.*as applications do"):
        wrong.loads("s1")
    for text in ("", "x", "{}"):
        with pytest.raises(BrokenJob, match="was not written by app:wrong"):
            wrong.loads(text)


def test_a_point_is_no_call() -> None:
    with pytest.raises(BrokenJob):
        plain.load_call(plain.dumps(Point(1)))


def test_a_stored_job_may_name_the_configured_serializer_json_and_pickle() -> None:
    own = resolve_serializer("json", ())
    assert stored_serializer("json", own, ()) is own
    assert stored_serializer("pickle", own, ("secret",)).name == "pickle"
    with pytest.raises(InvalidSetting, match=r"needs scheduler\.secret"):
        stored_serializer("pickle", own, ())
    other = resolve_serializer("pickle", ("secret",))
    assert stored_serializer("json", other, ()).name == "json"


@pytest.mark.parametrize("name", ["tests.unit.no_such_module:loads", "os.system", ""])
def test_a_stored_job_may_name_no_other_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyramid_durable.serializers.import_name", {}.popitem)
    with pytest.raises(
        InvalidSetting, match=f"serializer {name!r}, and scheduler.serializer = json"
    ):
        stored_serializer(name, resolve_serializer("json", ()), ("secret",))

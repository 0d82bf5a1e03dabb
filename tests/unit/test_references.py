"""Names that lead to objects, and names that do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pyramid_durable.exceptions import DurableError, InvalidJob
from pyramid_durable.references import UnknownName, import_name, locate, locate_callable, name_of
from tests.unit import shapes


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tests.unit.shapes:send", shapes.send),
        ("tests.unit.shapes.send", shapes.send),
        ("tests.unit.shapes:Outer.Inner", shapes.Outer.Inner),
        ("tests.unit.shapes.Outer.Inner", shapes.Outer.Inner),
        ("tests.unit.shapes:Sender.static", shapes.Sender.static),
        ("tests.unit.shapes", shapes),
        ("os.path:join", sys.modules["os.path"].join),
    ],
)
def test_what_a_name_leads_to(name: str, found: object) -> None:
    assert import_name(name) is found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "''"),
        (":", "':' is no name"),
        ("tests:", "'tests:' is no name"),
        (":send", "':send' is no name"),
        ("tests.unit.shapes:a:b", "is no name"),
        (".send", "'.send'"),
        ("tests..send", "'tests..send'"),
        ("no.such.module:func", "there is no module 'no'"),
        ("no.such.module.func", "there is no module 'no'"),
        ("tests.unit.nothing:func", "there is no module 'tests.unit.nothing'"),
        ("tests.unit.shapes:nothing", "'tests.unit.shapes' has no attribute 'nothing'"),
        ("tests.unit.shapes.nothing", "'tests.unit.shapes' has no attribute 'nothing'"),
        ("tests.unit.shapes:Outer.nothing", "has no attribute 'nothing'"),
        ("tests.unit.shapes.send.<locals>.f", "has no attribute '<locals>'"),
        ("a\0b", "a\\x00b"),
        ("a\udcffb:c", "a\\udcffb"),
        ("x" * 300, "xxx"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        import_name(name)
    assert message in str(caught.value)
    assert isinstance(caught.value, (DurableError, LookupError))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("made_for_references")]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "made_for_references"
    folder.mkdir()
    (folder / "__init__.py").write_text("from made_for_references.send import send\n")
    (folder / "send.py").write_text("def send(): ...\n")
    (folder / "needy.py").write_text("import made\ndef func(): ...\n")
    (folder / "failing.py").write_text("raise KeyError('settings')\n")
    (folder / "script.py").write_text("import sys\nsys.exit('usage')\n")
    (folder / "late.py").write_text("def func(): ...\n")
    return folder


@pytest.mark.parametrize("separator", [":", "."])
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("needy", "there is no module 'made'"),
        ("failing", "failed: KeyError('settings')"),
        ("script", "failed: SystemExit('usage')"),
    ],
)
def test_a_module_that_fails_is_told_from_one_that_is_missing(
    package: Path, module: str, message: str, separator: str
) -> None:
    with pytest.raises(UnknownName) as caught:
        import_name(f"made_for_references.{module}{separator}func")
    assert message in str(caught.value)
    assert isinstance(caught.value.__cause__, (ImportError, KeyError, SystemExit))


def test_dotted_names_import_modules_on_the_way(package: Path) -> None:
    import_name("made_for_references")
    assert "made_for_references.late" not in sys.modules
    place = locate("made_for_references.late.func")
    assert place.name == "made_for_references.late:func"
    # The function has hidden the module of the same name in the package.
    assert locate("made_for_references.send.send").name == "made_for_references.send:send"


def test_places_tell_methods() -> None:
    assert locate("tests.unit.shapes:Sender.send").is_plain_method
    for name in ("Sender.static", "Sender.of_class", "send", "sender.send", "sender"):
        assert not locate(f"tests.unit.shapes:{name}").is_plain_method


def test_a_place_tells_when_it_has_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [locate(f"tests.unit.shapes:{name}") for name in ("send", "Sender.of_class")]
    assert all(place.is_current() for place in places)
    monkeypatch.setattr(shapes, "send", lambda: None)
    monkeypatch.delattr(shapes.Sender, "of_class")
    assert not any(place.is_current() for place in places)


def test_a_callable_that_is_found_again() -> None:
    assert name_of(shapes.Outer.Inner) == "tests.unit.shapes:Outer.Inner"
    place = locate_callable(shapes.send)
    assert (place.name, place.found) == ("tests.unit.shapes:send", shapes.send)
    assert locate_callable(shapes.sender, "tests.unit.shapes:sender").owner is shapes


def test_a_name_that_the_store_cannot_hold(package: Path) -> None:
    (package / "long.py").write_text(f"def {'x' * 300}(): ...\n")
    func = getattr(import_name("made_for_references.long"), "x" * 300)
    with pytest.raises(InvalidJob, match=r"has 325 characters; expected 255 at most"):
        locate_callable(func)

"""Plain values as text: the same as the standard library's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyramid_durable.plain_json import make_writer, read


@pytest.mark.parametrize("with_c", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        *(
            [],
            {},
            "",
            None,
            True,
            0,
            -1,
            2**70,
            0.1,
            -0.0,
            1e300,
            5e-324,
            "é\u2028\0\U0001f600",
            '"\\/',
        ),
        [[1, [2.5, {"a": [None, {"b": "ä"}], "": {}}]], {"x": [[], {}, ""]}],
    ],
)
def test_it_is_the_json_of_the_standard_library(
    value: Any, with_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_c:
        monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    text = make_writer()(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert read(text) == value


@pytest.mark.parametrize("text", [" [1] ", "[1]\n"])
def test_blanks_around_a_value_are_read_as_well(text: str) -> None:
    assert read(text) == [1]


@pytest.mark.parametrize("text", ["", "[1] 2", "{"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="char"):
        read(text)

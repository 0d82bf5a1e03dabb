"""The standard library's JSON without what it makes for each value (web and daemon).

Every job's arguments go through here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final


def make_writer() -> Callable[[Any], str]:
    """JSONEncoder.encode, but for the C encoder that it makes for each value where there is one.

    It looks for no circles: json_values.encode, whose results come here, would not have returned.
    """
    plain = json.JSONEncoder(separators=(",", ":"), check_circular=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        chunks = make(
            None,  # no circles to look for
            plain.default,
            json.encoder.encode_basestring_ascii,
            plain.indent,
            plain.key_separator,
            plain.item_separator,
            plain.sort_keys,
            plain.skipkeys,
            plain.allow_nan,
        )
    except TypeError:  # there is none, or a later Python makes it in another way
        return plain.encode
    return lambda value: "".join(chunks(value, 0))


write: Final = make_writer()
"""Write a value of JSON's own types as ASCII text, without blanks."""

_decoder: Final = json.JSONDecoder()


def read(text: str) -> Any:
    """As json.loads, which first looks for blanks around it: we have written none.

    Raises ValueError.
    """
    try:
        value, end = _decoder.raw_decode(text)
    except ValueError:
        end = -1
    return value if end == len(text) else _decoder.decode(text)

"""JSON from outside: one object, no key twice, no text that a terminal would obey."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

from a2fseg_cli.files import refusing_deep_nesting

_MAX_DIGITS = 20  # all of 64 bits; a float holds it too


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object whose texts are safe to print (no control characters but tab and newline).

    Raises:
        ValueError: Not UTF-8, not JSON, not an object, nested too deeply, a key twice, NaN, or such texts or numbers.
    """
    decoded = text if isinstance(text, str) else text.decode("utf-8")
    with refusing_deep_nesting():
        value = json.loads(
            decoded,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        # A lone surrogate can be written in JSON but not printed; encoding finds it.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        if _has_control_characters(value):
            raise ValueError("control characters in a text")
    return value


def printable(text: str, limit: int = 200) -> str:
    """Return text from an untrusted source fit for a message: no control characters, at most `limit` long."""
    start = "".join(character if character.isprintable() else "?" for character in text[:limit])
    return start + ("..." if len(text) > limit else "")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _bounded_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    return int(text)


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{printable(text, 20)} is too large a number")
    return number


def _has_control_characters(value: Any) -> bool:
    if isinstance(value, str):
        return any(unicodedata.category(character) == "Cc" and character not in "\t\n" for character in value)
    if isinstance(value, dict):
        return any(_has_control_characters(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(_has_control_characters(item) for item in value)

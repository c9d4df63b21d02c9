"""Values of DICOM tags, which may be missing, empty, one or several, or not what the tag is for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def text_of(data: Dataset, key: str) -> str:
    """Return a tag's value as text, empty where there is none."""
    value = data.get(key)
    return "" if value is None else str(value).strip().strip("\0")


def words_at(data: Dataset, key: str) -> list[str]:
    """Return the values of a tag as words, upper case."""
    return words_of(data.get(key))


def words_of(value: Any) -> list[str]:
    """Return one or several values as words, upper case."""
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, str) else value
    return [str(word).strip().upper() for word in values]


def number_at(data: Dataset, key: str) -> float | None:
    """Return the first number of a tag, None where there is none."""
    return first_number(data.get(key))


def first_number(value: Any) -> float | None:
    """Return the first number of a value, None where there is none."""
    first = value[0] if value is not None and not isinstance(value, str | int | float) and len(value) else value
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(first)
        return number if abs(number) < 1e30 else None  # neither inf nor NaN
    return None


def seconds_of(value: Any) -> float | None:
    """Return milliseconds in seconds, None where there are none."""
    milliseconds = first_number(value)
    return None if milliseconds is None else milliseconds / 1000


def numbers_of(value: Any, count: int) -> tuple[float, ...] | None:
    """Return that many finite numbers, None for anything else."""
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    numbers = [first_number([number]) for number in value]
    return None if None in numbers else tuple(number for number in numbers if number is not None)


def clock_of(text: str) -> float | None:
    """Return the seconds since midnight of DICOM's `HHMMSS.FFFFFF`."""
    digits = text.strip()[:6]
    if len(digits) != 6 or not digits.isdigit():
        return None
    with contextlib.suppress(ValueError):
        return int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + float(text.strip()[4:13].split("+")[0].split("-")[0])
    return None

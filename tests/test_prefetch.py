"""Reading ahead: in order, one item ahead of the one in use, no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from a2fseg_cli.inference.prefetch import read_ahead


def test_one_item_ahead_and_in_order() -> None:
    read: list[int] = []
    with ThreadPoolExecutor(1) as reader:
        ahead = read_ahead([0, 1, 2, 3], lambda item: read.append(item) or item * 10, reader)
        assert next(ahead) == 0
        reader.submit(lambda: None).result()  # whatever was asked for has been read now
        assert read == [0, 1]
        assert list(ahead) == [10, 20, 30]
    assert read == [0, 1, 2, 3]


@pytest.mark.parametrize("items", [[], [7]])
def test_few_items(items: list[int]) -> None:
    with ThreadPoolExecutor(1) as reader:
        assert list(read_ahead(items, str, reader)) == [str(item) for item in items]


def test_what_reading_raises_comes_with_its_item() -> None:
    with ThreadPoolExecutor(1) as reader:
        ahead = read_ahead(["1", "x", "3"], int, reader)
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="x"):
            next(ahead)

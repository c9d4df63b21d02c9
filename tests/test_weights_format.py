"""The weights file: exact round trips, and refusal of everything that is not one."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2fseg_cli.core.config import PRESETS, ModelConfig
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import ResourceError, WeightsError
from a2fseg_cli.weights.file_format import WeightsFile, inspect_weights, load_weights, save_weights

CONFIG = PRESETS["tiny"]
STATE = {
    "encoder.weight": torch.tensor([[0.5, -2.0, 1 / 3], [65504.0, 2.0**-24, 0.0]]),
    "head.bias": torch.tensor([1.0, 3.0]),
    "scale": torch.tensor(7.0),
}
SHAPES = {"encoder.weight": (2, 3), "head.bias": (2,), "scale": ()}
CARD = {"name": "tiny-test", "hours": 1.5, "scores": {"t1c+flair": {"WT": 0.75}}, "licence": "CC-BY-4.0"}
METADATA = {"format": "a2fseg", "format_version": "2", "config": CONFIG.to_json(), "card": "{}"}
F32_PAIR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def load(path: Path) -> tuple[WeightsFile, dict[str, torch.Tensor]]:
    return load_weights(path, SHAPES)


def write(path: Path, header: dict[str, Any] | bytes, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, STATE, CONFIG, CARD)
    return path


def test_float16_round_trip_by_hand(saved: Path) -> None:
    file, tensors = load(saved)
    assert (file.config, file.card) == (CONFIG, CARD)
    # 1/3 in half precision is 1365 / 4096; the rest is exact, the largest and the smallest half included.
    assert tensors["encoder.weight"].tolist() == [[0.5, -2.0, 1365 / 4096], [65504.0, 2.0**-24, 0.0]]
    assert tensors["head.bias"].tolist() == [1.0, 3.0]
    assert tensors["scale"].item() == 7.0
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_float32_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "exact.safetensors"
    save_weights(path, STATE, CONFIG, CARD, dtype="float32")
    _, tensors = load(path)
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(8)]
    for path in paths:
        save_weights(path, STATE, CONFIG, dict(reversed(CARD.items())) if path is paths[-1] else CARD)
    assert len({path.read_bytes() for path in paths}) == 1


def test_the_safetensors_library_reads_our_file(saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == SHAPES
    assert torch.equal(tensors["encoder.weight"], STATE["encoder.weight"].half())
    with safetensors.safe_open(saved, "pt") as file:
        assert json.loads(file.metadata()["card"]) == CARD


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_we_read_what_the_safetensors_library_writes(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "foreign.safetensors"
    state = {name: (tensor.clamp(max=2.0)).to(dtype) for name, tensor in STATE.items()}
    safetensors.torch.save_file(state, path, metadata=METADATA)
    _, tensors = load(path)
    assert all(torch.equal(tensors[name], state[name].float()) for name in state)


def test_sha256_is_of_the_file_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    written = save_weights(path, STATE, CONFIG, CARD)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert [written.sha256, inspect_weights(path).sha256, load(path)[0].sha256] == [expected] * 3
    assert written == inspect_weights(path) == load(path)[0]


def test_expected_shapes_may_follow_from_the_configuration(saved: Path) -> None:
    seen = []
    load_weights(saved, lambda config: seen.append(config) or SHAPES)
    assert seen == [CONFIG]


def test_strided_and_shared_tensors_are_stored_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "a.safetensors", {"a": base.T, "b": base, "c": base}, CONFIG, {})
    _, tensors = load_weights(tmp_path / "a.safetensors", {"a": (3, 2), "b": (2, 3), "c": (2, 3)})
    assert tensors["a"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert torch.equal(tensors["b"], base)


def test_scores_that_are_not_finite_become_null(tmp_path: Path) -> None:
    card = {"hd95_mm": [float("nan"), float("inf"), 2.5], "dice": {"WT": float("nan")}}
    written = save_weights(tmp_path / "a.safetensors", STATE, CONFIG, card)
    assert inspect_weights(tmp_path / "a.safetensors").card == {"hd95_mm": [None, None, 2.5], "dice": {"WT": None}}
    assert written.card == {"hd95_mm": [None, None, 2.5], "dice": {"WT": None}}


@pytest.mark.parametrize("value", [1e6, float("nan"), float("-inf")])
def test_save_refuses_what_float16_cannot_hold_and_keeps_the_old_file(saved: Path, value: float) -> None:
    before = saved.read_bytes()
    with pytest.raises(WeightsError, match=r"head\.bias has values that are not finite as float16"):
        save_weights(saved, {"head.bias": torch.tensor([value])}, CONFIG, CARD)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_save_refuses_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"count is torch\.int64"):
        save_weights(tmp_path / "a.safetensors", {"count": torch.tensor(3)}, CONFIG, CARD)


def test_save_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        save_weights(tmp_path / "file" / "a.safetensors", STATE, CONFIG, CARD)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["pickle", "torch zip", "torch legacy"])
def test_a_malicious_pickle_is_never_executed(tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "executed", tmp_path / "model.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(_Bomb(trace)))
    else:
        torch.save({"state_dict": _Bomb(trace)}, path, _use_new_zipfile_serialization=kind == "torch zip")
    for read in (inspect_weights, load):
        with pytest.raises(WeightsError, match=r"PyTorch checkpoint.*not opened"):
            read(path)
    assert not trace.exists()
    # The bomb is live: whoever unpickles the file does create the trace.
    if kind == "pickle":
        pickle.loads(path.read_bytes())
        assert trace.exists()


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (bytes(257) + b"ustar\x0000" + bytes(500), "a tar archive"),
        (b"\x1f\x8b\x08" + bytes(60), "a gzip file"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b"<html><body>403</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
        (b"\x5c\x01\x00\x00" + bytes(348), "something else"),
        (b"\x02\x00\x00", "something else"),
    ],
)
def test_other_files_are_named_and_not_opened(tmp_path: Path, content: bytes, looks_like: str) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    for read in (inspect_weights, load):
        with pytest.raises(WeightsError, match=f"looks like {looks_like}.*It is not opened"):
            read(path)


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b'{"a": 1', 0, "header cannot be read"),
        (b'{"a": {}, "a": {}}', 0, "a key occurs twice"),
        (b'{"__metadata__": {"format": "a2fseg", "format": "a2fseg"}}', 0, "a key occurs twice"),
        (b'{"a": \xff}', 0, "header cannot be read"),
        (b'{"\\ud800": 1}', 0, "header cannot be read"),
        (b'{"\\u001b[31m": 1}', 0, "control characters"),
        (b'{"a":' + b"[" * 200_000, 0, "header cannot be read"),
        ({}, 0, "another program"),
        ({"__metadata__": []}, 0, "not a table of texts"),
        ({"__metadata__": {"format": "pt"}}, 0, "another program.*'pt'"),
        ({"__metadata__": {"format": 3}}, 0, "not a table of texts"),
        (
            {"__metadata__": METADATA | {"format_version": "3"}},
            0,
            "version 3, this a2fseg reads up to 2. Upgrade",
        ),
        ({"__metadata__": METADATA | {"format_version": "one"}}, 0, "format_version is 'one'"),
        ({"__metadata__": METADATA | {"format_version": "0"}}, 0, "format_version is '0'"),
        ({"__metadata__": METADATA | {"config": "{}"}}, 0, "configuration is not one of a network"),
        ({"__metadata__": METADATA | {"config": "not JSON"}}, 0, "configuration cannot be read"),
        ({"__metadata__": METADATA | {"card": "[]"}}, 0, "card cannot be read: not a JSON object"),
        ({"__metadata__": METADATA, "a": 3}, 0, "'a' is not one of a tensor"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"more": 1}}, 8, "'a' is not one of a tensor"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"dtype": "I64"}}, 8, "stored as 'I64'; expected F16, BF16 or F32"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"dtype": ["F32"]}}, 8, "expected F16, BF16 or F32"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"shape": [-2]}}, 8, "shape or offsets"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"shape": [2.0]}}, 8, "shape or offsets"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"shape": [True, 2]}}, 8, "shape or offsets"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"shape": [1] * 9}}, 8, "shape or offsets"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"data_offsets": [8]}}, 8, "shape or offsets"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"data_offsets": [8, 0]}}, 8, "does not follow from its shape"),
        ({"__metadata__": METADATA, "a": F32_PAIR | {"shape": [2**62, 2**62]}}, 8, "does not follow from its shape"),
        (
            {"__metadata__": METADATA, "a": F32_PAIR | {"data_offsets": [4, 12]}},
            12,
            "overlaps another tensor or leaves",
        ),
        ({"__metadata__": METADATA, "a": F32_PAIR, "b": F32_PAIR}, 16, "'b' overlaps another tensor"),
        ({"__metadata__": METADATA, "a": F32_PAIR}, 7, "truncated: 8 bytes of tensors are announced, 7 are there"),
        ({"__metadata__": METADATA, "a": F32_PAIR}, 10, "2 bytes follow the last tensor"),
        (
            {
                "__metadata__": METADATA,
                "a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]},
            },
            8,
            "truncated",
        ),
    ],
)
def test_bad_headers(tmp_path: Path, header: dict[str, Any] | bytes, body: int, message: str) -> None:
    path = write(tmp_path / "bad.safetensors", header, bytes(body))
    for read in (inspect_weights, lambda path: load_weights(path, {"a": (2,)})):
        with pytest.raises(WeightsError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600 + len(str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"modalities": "abcd"},
        {"modalities": ["t1", "t1"]},
        {"attention_kernel_size": 3.5},
        {"features_per_stage": [10**9, 1]},
        {"features_per_stage": None},
        {"spacing_mm": [1, 1]},
        {"patch_size": [1, 2, 3]},
        {"attention_kernel_size": "3"},
        {"surplus": 1},
        {"architecture": 3},
        {"architecture": "../a2fseg"},
    ],
)
def test_configurations_that_are_no_network(tmp_path: Path, change: dict[str, Any]) -> None:
    config = json.dumps(json.loads(CONFIG.to_json()) | change)
    path = write(tmp_path / "bad.safetensors", {"__metadata__": METADATA | {"config": config}})
    with pytest.raises(WeightsError, match="configuration is not one of a network"):
        inspect_weights(path)


def test_files_of_format_1_are_read(tmp_path: Path) -> None:
    """They said window for patch_size, and knew one architecture."""
    fields = {k: v for k, v in json.loads(CONFIG.to_json()).items() if k not in ("patch_size", "architecture")}
    config = json.dumps(fields | {"window": list(CONFIG.patch_size)})
    old = METADATA | {"format_version": "1", "config": config}
    path = write(tmp_path / "old.safetensors", {"__metadata__": old, "a": F32_PAIR}, bytes(8))
    assert load_weights(path, {"a": (2,)})[0].config == CONFIG
    assert CONFIG.architecture == "a2fseg"


def test_files_name_their_architecture(saved: Path) -> None:
    length = int.from_bytes(saved.read_bytes()[:8], "little")
    metadata = json.loads(saved.read_bytes()[8 : 8 + length])["__metadata__"]
    assert metadata["format_version"] == "2"
    assert json.loads(metadata["config"])["architecture"] == "a2fseg"


def test_an_architecture_of_another_version(tmp_path: Path) -> None:
    """It can be looked at, and is refused before a tensor is read."""
    path = tmp_path / "other.safetensors"
    save_weights(path, STATE, replace(CONFIG, architecture="unheard"), CARD)
    assert inspect_weights(path).config.architecture == "unheard"
    with pytest.raises(
        WeightsError, match=r"other.safetensors: architecture unheard: expected one of a2fseg, .* Upgrade"
    ):
        load_weights(path, parameter_shapes)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "9" * 5000])
def test_configurations_with_absurd_numbers(tmp_path: Path, number: str) -> None:
    config = CONFIG.to_json().replace('"attention_kernel_size": 3', f'"attention_kernel_size": {number}')
    path = write(tmp_path / "bad.safetensors", {"__metadata__": METADATA | {"config": config}})
    with pytest.raises(WeightsError, match="configuration"):
        inspect_weights(path)


@pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_claims_too_much(saved: Path, length: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(WeightsError, match=f"claims {length} bytes, the limit is 1048576"):
        load(saved)


def test_truncation_all_along_and_one_surplus_byte(saved: Path) -> None:
    content = saved.read_bytes()
    for damaged in [content[:length] for length in range(0, len(content), 5)] + [content + b"\0"]:
        saved.write_bytes(damaged)
        with pytest.raises(WeightsError):
            load(saved)
    saved.write_bytes(content)
    assert set(load(saved)[1]) == set(SHAPES)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (SHAPES | {"extra.bias": (1,)}, "lacks 'extra.bias'"),
        ({"head.bias": (2,)}, "unknown tensors 'encoder.weight', 'scale'"),
        (SHAPES | {"encoder.weight": (3, 2)}, "other shapes for 'encoder.weight'"),
        ({f"layer{index}": (1,) for index in range(9)}, "'layer0', 'layer1', 'layer2' and 6 more"),
    ],
)
def test_another_network(saved: Path, expected: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(WeightsError, match=f"not the network.*{message}"):
        load_weights(saved, expected)


def test_another_network_is_refused_before_its_tensors_are_read(tmp_path: Path) -> None:
    count = 2**28  # 1 GiB of float32, a hole in a sparse file
    entry = {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}
    path = write(tmp_path / "large.safetensors", {"__metadata__": METADATA, "a": entry})
    os.truncate(path, path.stat().st_size + 4 * count)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="other shapes for 'a'"):
            load_weights(path, {"a": (2,)})
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data.replace(b"x" * 99, b"y" * 99)])
def test_a_file_that_changes_after_its_header_was_checked(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.safetensors"
    # Header and tensor are larger than a read buffer, else the old bytes would still be at hand.
    save_weights(path, {"a": torch.zeros(100_000)}, CONFIG, {"note": "x" * 100_000})

    def expected(_: ModelConfig) -> dict[str, tuple[int, ...]]:
        path.write_bytes(change(path.read_bytes()))
        return {"a": (100_000,)}

    with pytest.raises(WeightsError, match="it changed while it was read"):
        load_weights(path, expected)


def test_more_than_4_gib(saved: Path) -> None:
    os.truncate(saved, 4 * 2**30 + 1)
    with pytest.raises(WeightsError, match="4294967297 bytes; weights files of this tool stay below 4294967296"):
        load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "nan.safetensors"
    safetensors.torch.save_file({"a": torch.tensor([1.0, value])}, path, metadata=METADATA)
    with pytest.raises(WeightsError, match="'a' holds NaN or infinite values"):
        load_weights(path, {"a": (2,)})


def test_no_file_a_folder_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none", "no such weights file"), ("", "is a folder"), ("pipe", "not a regular file")):
        for read in (inspect_weights, load):
            with pytest.raises(WeightsError, match=message):
                read(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be read"):
        load(Path("a\0b"))


def test_inspection_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys, pathlib; from a2fseg_cli.weights.file_format import inspect_weights; "
        "inspect_weights(pathlib.Path(sys.argv[1])); "
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(saved)], check=False).returncode == 0


edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits)
def test_damaged_bytes_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[float, int, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_weights(path, STATE, CONFIG, CARD)
    content = path.read_bytes()
    for position, removed, inserted in edits:
        at = int(position * len(content))
        content = content[:at] + inserted + content[at + removed :]
    path.write_bytes(content)
    try:
        file, tensors = load(path)
    except WeightsError:
        return
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == SHAPES
    assert file.sha256 == hashlib.sha256(content).hexdigest()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "F32", "BF16", "I64"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 20), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=120)
@given(
    tensors=st.dictionaries(st.text(max_size=4), entries | json_values, max_size=3),
    metadata=json_values | st.fixed_dictionaries({key: st.just(value) for key, value in METADATA.items()}),
    body=st.binary(max_size=24),
)
def test_any_header_is_refused_or_describes_the_file(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any], metadata: Any, body: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.safetensors", tensors | {"__metadata__": metadata}, body)
    try:
        file = inspect_weights(path)
    except WeightsError:
        return
    assert file.config == CONFIG
    assert sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in tensors.values()) == len(body)

"""The manifest: every field is checked, newer ones are refused or harmless."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.errors import WeightsError
from a2fseg_cli.weights.file_format import inspect_weights
from a2fseg_cli.weights.folders import bundled_weights_folder, manifest_path
from a2fseg_cli.weights.header import MAX_FILE_BYTES
from a2fseg_cli.weights.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    check_url,
    default_entry,
    entry_fields,
    manifest_entry_for,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from a2fseg_cli.weights.strict_json import parse_object

# SHA-256 of b"abc", as FIPS 180-4's example has it.
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
ENTRY = {
    "name": "tiny",
    "file": "tiny.safetensors",
    "sha256": ABC_SHA256,
    "size_bytes": 3,
    "licence": "CC-BY-4.0",
    "description": "Three letters",
    "preset": "tiny",
    "urls": ["https://weights.example/tiny.safetensors"],
    "bundled": False,
    "default": False,
}


def parse(*entries: Any, insecure: bool = False, source: str = "m.json") -> Manifest:
    return parse_manifest(json.dumps({"version": 1, "weights": entries}).encode(), source, insecure=insecure)


def test_the_projects_manifest_describes_the_bundled_files() -> None:
    manifest = read_manifest()
    bundled = {entry.file: entry for entry in manifest.entries if entry.bundled}
    assert set(bundled) == {path.name for path in bundled_weights_folder().glob("*.safetensors")}
    for entry in bundled.values():
        path = bundled_weights_folder() / entry.file
        assert (inspect_weights(path).sha256, path.stat().st_size) == (entry.sha256, entry.size_bytes)
    assert all(entry.bundled for entry in manifest.entries if entry.default)


def test_the_manifest_stands_where_the_build_takes_it_from() -> None:
    assert manifest_path() == Path(__file__).parents[1] / "weights_manifest.json"


def test_an_entry_is_read_field_by_field() -> None:
    assert entry_fields(parse(ENTRY).entries[0]) == ENTRY


def test_optional_fields_may_be_absent_and_unknown_ones_have_no_effect() -> None:
    optional = ("preset", "urls", "bundled", "default")
    short = {field: value for field, value in ENTRY.items() if field not in optional}
    entry = parse(short | {"colour": "blue", "run": "rm"}).entries[0]
    assert (entry.preset, entry.urls, entry.bundled, entry.default) == ("", (), False, False)
    assert set(entry_fields(entry)) == set(ENTRY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, value)
            for field in ("name", "file")
            for value in (
                "../x.safetensors",
                "a/b.safetensors",
                "a\\b.safetensors",
                "/etc/x.safetensors",
                "C:x.safetensors",
                "a..safetensors",
                ".hidden.safetensors",
                "a\nb.safetensors",
                "a\x1b[31m.safetensors",
                "a b.safetensors",
                "ä.safetensors",
                "-rf.safetensors",
                "x" * 200 + ".safetensors",
                "",
                None,
                3,
            )
        ),
        ("file", "weights.pt"),
        ("file", "weights.zip"),
        ("sha256", ABC_SHA256[:-1]),
        ("sha256", ABC_SHA256.upper()),
        ("sha256", ABC_SHA256 + "\n"),
        ("sha256", None),
        ("size_bytes", 0),
        ("size_bytes", -1),
        ("size_bytes", True),
        ("size_bytes", 3.0),
        ("size_bytes", "3"),
        ("size_bytes", MAX_FILE_BYTES + 1),
        ("licence", None),
        ("licence", "two\nlines"),
        ("description", "x" * 2001),
        ("description", 5),
        ("preset", None),
        ("urls", "https://weights.example/x"),
        ("urls", [3]),
        ("urls", None),
        ("bundled", "yes"),
        ("default", 1),
    ],
)
def test_fields_that_are_refused(field: str, value: Any) -> None:
    with pytest.raises(WeightsError, match=r"m\.json: not a manifest of weights") as caught:
        parse(ENTRY | {field: value})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("field", ["name", "file", "sha256", "size_bytes", "licence", "description"])
def test_fields_that_must_be_there(field: str) -> None:
    with pytest.raises(WeightsError, match=field):
        parse({key: value for key, value in ENTRY.items() if key != field})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "expected https, found file"),
        ("ftp://weights.example/x", "expected https, found ftp"),
        ("data:text/plain,abc", "expected https, found data"),
        ("//weights.example/x", "found no scheme"),
        ("x.safetensors", "found no scheme"),
        ("", "found no scheme"),
        ("https://", "no host"),
        ("https:///x", "no host"),
        ("https://user:secret@weights.example/x", "user name or password"),
        ("https://weights.example/a b", "not a URL"),
        ("https://weights.example/\x1b[2J", "not a URL"),
        ("https://[::1/x", "Invalid IPv6"),
        ("https://weights.example:99999/x", "[Pp]ort"),
    ],
)
def test_urls_that_are_refused_even_if_insecure(url: str, message: str) -> None:
    for insecure in (False, True):
        with pytest.raises(ValueError, match=message) as caught:
            check_url(url, insecure=insecure)
        assert "secret" not in str(caught.value)


def test_http_only_on_request() -> None:
    plain = ENTRY | {"urls": ["http://weights.example/x"]}
    with pytest.raises(WeightsError, match="http is not encrypted; use https, or allow http"):
        parse(plain)
    assert parse(plain, insecure=True).entries[0].urls == ("http://weights.example/x",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a manifest"),
        (b"<html>", "not a manifest"),
        (b"[]", "not a JSON object"),
        (b"{}", "expected"),
        (b'{"version": 1}', "expected"),
        (b'{"version": true, "weights": []}', "expected"),
        (b'{"version": 0, "weights": []}', "expected"),
        (b'{"version": 1, "version": 1, "weights": []}', "a key occurs twice"),
        (b'{"version": 1, "weights": [3]}', "an entry is not an object"),
        (b'{"version": 2, "weights": [{"new": "layout"}]}', "manifest version 2, this a2fseg reads 1. Upgrade"),
        (b'{"version": 1, "weights": []}' + b" " * MAX_MANIFEST_BYTES, "more than 1048576 bytes"),
    ],
)
def test_files_that_are_no_manifest(data: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        parse_manifest(data, "m.json")


def test_names_and_defaults_are_unique() -> None:
    with pytest.raises(WeightsError, match="'tiny' occurs twice"):
        parse(ENTRY, ENTRY)
    with pytest.raises(WeightsError, match="more than one default"):
        parse(ENTRY | {"default": True}, ENTRY | {"name": "b", "default": True})


def test_default_entry() -> None:
    second = ENTRY | {"name": "second"}
    assert default_entry(parse(ENTRY, second | {"default": True})).name == "second"
    assert default_entry(parse(second)).name == "second"
    with pytest.raises(WeightsError, match=r"no default weights\. Name one of: tiny, second"):
        default_entry(parse(ENTRY, second))
    with pytest.raises(WeightsError, match=r"no default weights\. Give a weights file"):
        default_entry(parse())


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(WeightsError, match=r"'large': no weights of this name in m\.json\. It lists: tiny"):
        parse(ENTRY).entry("large")


def test_without_urls_the_file_lies_beside_a_manifest_from_a_server() -> None:
    entry = ENTRY | {"urls": []}
    served = parse(entry, source="https://weights.example/runs/first/weights_manifest.json")
    assert served.entries[0].urls == ("https://weights.example/runs/first/tiny.safetensors",)
    assert parse(entry).entries[0].urls == ()
    assert parse(entry | {"bundled": True}, source="https://weights.example/m.json").entries[0].urls == ()


def test_reading_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(WeightsError, match="no such manifest file"):
            read_manifest(path)


def test_what_train_publishes_is_read_back(tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(b"abc")
    entry = manifest_entry_for(weights, name="first-run", licence="own", description="Müller's run", preset="tiny")
    write_manifest(tmp_path / "weights_manifest.json", [entry])
    read = read_manifest(tmp_path / "weights_manifest.json").entries[0]
    assert entry_fields(read) == entry
    assert (read.sha256, read.size_bytes, read.file) == (ABC_SHA256, 3, "best.safetensors")
    assert (tmp_path / "best.safetensors.sha256").read_text() == f"{ABC_SHA256}  best.safetensors\n"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not on this machine")
def test_sha256sum_accepts_the_checksum_file(tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(bytes(range(256)))
    entry = manifest_entry_for(weights, name="a", licence="own", description="")
    write_manifest(tmp_path / "weights_manifest.json", [entry])
    command = ["sha256sum", "--check", "--strict", "best.safetensors.sha256"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_an_entry_that_no_manifest_would_take_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"abc")
    with pytest.raises(WeightsError, match=r"does not end in \.safetensors"):
        manifest_entry_for(tmp_path / "a.pt", name="a", licence="own", description="")
    with pytest.raises(WeightsError, match="no such weights file"):
        manifest_entry_for(tmp_path / "none.safetensors", name="a", licence="own", description="")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
changes = st.dictionaries(st.sampled_from(sorted(ENTRY)), json_values | st.text().map(lambda text: [text]), max_size=2)


@given(change=changes)
def test_any_change_of_an_entry_is_refused_or_safe(change: dict[str, Any]) -> None:
    try:
        entry = parse(ENTRY | change, insecure=True).entries[0]
    except WeightsError:
        return
    assert Path(entry.file).name == entry.file
    assert (bundled_weights_folder() / entry.file).resolve().parent == bundled_weights_folder().resolve()
    assert all(url.startswith(("http://", "https://", "HTTP://", "HTTPS://")) for url in entry.urls)
    assert 0 < entry.size_bytes <= MAX_FILE_BYTES
    assert (entry.licence + entry.description + entry.preset).isprintable()


@given(data=st.binary(max_size=64) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused_or_a_manifest(data: bytes) -> None:
    try:
        manifest = parse_manifest(data, "m.json")
    except WeightsError:
        return
    assert manifest.entries == ()


def test_json_of_any_depth_is_read_or_refused() -> None:
    texts = ['{"a": ' + "[" * depth + "]" * depth + "}" for depth in (400, 600, 990, 5000)]
    assert list(parse_object('{"a": ' + "[" * 100 + "]" * 100 + "}")) == ["a"]
    for text in texts:
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_object(text)


@pytest.mark.parametrize("number", ["1e999", "-1e400"])
def test_numbers_that_no_float_holds_are_refused(number: str) -> None:
    with pytest.raises(ValueError, match="too large a number"):
        parse_object(f'{{"a": {number}}}')

"""Valid files, damaged at random: bytes, fields of headers, JSON."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
from nibabel.nifti1 import header_dtype as NIFTI1
from nibabel.nifti2 import header_dtype as NIFTI2

from harm.files import ENTRY, brain, label_map, manifest, mgh, mha, nifti, nrrd, toy

Random = np.random.Generator

FORMATS = ("nii", "nii.gz", "nrrd", "mha", "label map", "weights", "manifest", "mgz")


def valid(format_: str, random: Random) -> bytes:
    if format_ == "manifest":
        return manifest(ENTRY, ENTRY | {"name": "b", "default": True, "preset": "tiny"})
    if format_ == "weights":
        return toy()
    array = label_map(3) if format_ == "label map" else brain(dtype=str(random.choice(["f4", "i2", "u1"])))
    compressed = bool(random.integers(2))
    if format_ == "nrrd":
        return nrrd(array, compressed)
    if format_ == "mha":
        return mha(array, compressed)
    if format_ == "mgz":
        return mgh(array)
    return nifti(array, NIFTI2 if random.integers(4) == 0 else NIFTI1)


def damaged(format_: str, random: Random) -> bytes:
    """Return a valid file of a format with one to three damages."""
    data = valid(format_, random)
    special = {
        "mgz": (),
        "nrrd": (_text_header,),
        "mha": (_text_header,),
        "weights": (_safetensors_header,),
        "manifest": (_json,),
    }
    ways = [*special.get(format_, (_nifti_fields, _nifti_fields, _byte_order)) * 3, *_BYTES]
    for _ in range(int(random.integers(1, 4))):
        data = ways[int(random.integers(len(ways)))](data, random)
    if format_ in ("nii.gz", "mgz", "label map"):
        data = gzip.compress(data, 1, mtime=0)
        if random.integers(2):
            data = _BYTES[int(random.integers(len(_BYTES)))](data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    """A byte, as often among the first 400, where headers are, as anywhere."""
    return int(random.integers(max(1, min(len(data), 400) if random.integers(2) else len(data))))


def _truncated(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9)) if data else 0):
        changed[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _appended(data: bytes, random: Random) -> bytes:
    return data + random.bytes(int(random.integers(1, 2000)))


def _duplicated(data: bytes, random: Random) -> bytes:
    start, length = _place(data, random), int(random.integers(1, 500))
    return data[: start + length] + data[start:]


def _zeroed(data: bytes, random: Random) -> bytes:
    start, length = _place(data, random), int(random.integers(1, 500))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


_BYTES = (_truncated, _flipped, _appended, _duplicated, _zeroed)


def _nifti_fields(data: bytes, random: Random) -> bytes:
    """One to four fields of a NIfTI header with values of all kinds."""
    layout = NIFTI1 if data[:2] == b"\x5c\x01" else NIFTI2
    if len(data) < layout.itemsize:
        return data
    fields = np.frombuffer(data, layout, 1).copy()
    names = ("sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units",
             "qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_z", "magic")  # fmt: skip
    for name in random.choice(names, int(random.integers(1, 5))):
        values = fields[name].reshape(-1)
        if values.dtype.kind == "S":
            values[0] = random.bytes(3)
            continue
        kind = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
        special = [
            kind.min,
            kind.max,
            *(n for n in (-1, 0, 1, 2, 3, 8, 16, 64, 100, 1000) if kind.min <= n <= kind.max),
        ]
        special += [np.nan, np.inf, -np.inf, 1e-30, 1e30, 0.5] if values.dtype.kind == "f" else []
        for _ in range(int(random.integers(1, 4))):
            values[int(random.integers(values.size))] = special[int(random.integers(len(special)))]
        fields[name] = values.reshape(fields[name].shape)
    return fields.tobytes() + data[layout.itemsize :]


def _byte_order(data: bytes, random: Random) -> bytes:
    """The header in the other byte order, or its first field alone."""
    layout = NIFTI1 if data[:2] == b"\x5c\x01" else NIFTI2
    if len(data) < layout.itemsize:
        return data
    if random.integers(2):
        return data[3::-1] + data[4:]
    return np.frombuffer(data, layout, 1).byteswap().tobytes() + data[layout.itemsize :]


_VALUES = (
    "", "0", "1", "-1", "3", "4", "9999999999999999999999", "2147483648", "nan", "inf", "1e308", "-1e-308", "0x10",
    "1 1", "3 3 3", "0 0 0", "17 18 16", "-17 18 16", "99999 99999 99999", "1 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0",
    "nan nan nan nan nan nan nan nan nan", "(1,0,0) (0,1,0) (0,0,1)", "(0,0,0) (0,0,0) (0,0,0)",
    "(nan,0,0) none (1e40,0,0)", "none none none", "True", "False", "LOCAL", "LIST", "/dev/zero", "../other.raw",
    "a%03d.raw 0 100000 1", "MET_DOUBLE", "MET_UCHAR", "MET_FLOAT_ARRAY", "double", "int8", "block", "uint64", "raw",
    "gzip", "bzip2", "hex", "ascii", "txt", "big", "left-posterior-superior", "right-anterior-superior",
    "scanner-xyz-time", "domain list domain", "%s%n%x", "x" * 70_000, "(" * 3000, "\0", "\xff\xfe",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
)  # fmt: skip


def _text_header(data: bytes, random: Random) -> bytes:
    """One to three lines of a text header: another value, another key, away, twice, or moved."""
    head, separator, body = data.partition(b"\n\n" if data[:4] == b"NRRD" else b"LOCAL\n")
    lines = head.split(b"\n")
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(len(lines)))
        key, colon, _ = lines[at].partition(b":" if data[:4] == b"NRRD" else b"=")
        value = _VALUES[int(random.integers(len(_VALUES)))].encode("latin-1")
        way = int(random.integers(8))
        if way == 5:
            lines.insert(int(random.integers(len(lines) + 1)), lines[at])
        elif way == 6 and len(lines) > 1:
            lines.insert(int(random.integers(len(lines))), lines.pop(at))
        elif way == 7 and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = key + colon + b" " + value
    return b"\n".join(lines) + separator + body


_JSON = (
    "null", "true", "-1", "0", "1", "2", "1.5", "1e999", "NaN", "9" * 400, "9" * 5000, "18446744073709551616", '""',
    '"x"', '"\\ud800"', '"\\u001b[31m"', '"../x"', '"' + "x" * 3000 + '"', "[]", "{}", "[[]]", "[1, 2]",
    '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, '"F16"', '"F64"', '["t1"]', "[4096, 4096]",
    "[0, 0, 0]",
)  # fmt: skip

_MARK = "\x07here"


def _json(data: bytes, random: Random) -> bytes:
    """One value of a JSON text, wherever it lies, replaced by one of another kind, left out, or under another key."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places:
        return data
    node, key = places[int(random.integers(len(places)))]
    way = int(random.integers(6))
    if way == 0:
        del node[key]
    elif way == 1 and isinstance(node, dict):
        node["another"] = node.pop(key)
    elif isinstance(node[key], str) and node[key].startswith("{"):  # JSON within JSON: configuration and card
        node[key] = _json(node[key].encode(), random).decode()
    else:
        node[key] = _MARK
    return json.dumps(value).replace(json.dumps(_MARK), _JSON[int(random.integers(len(_JSON)))]).encode()


def _safetensors_header(data: bytes, random: Random) -> bytes:
    """The header's JSON changed, with its length kept true or not."""
    end = 8 + int.from_bytes(data[:8], "little")
    if end > len(data):
        return data
    if random.integers(6) == 0:
        lie = [0, 1, 7, end - 9, end, len(data), 2**20, 2**31, 2**63, 2**64 - 1][int(random.integers(10))]
        return lie.to_bytes(8, "little") + data[8:]
    text = _json(data[8:end], random)
    return len(text).to_bytes(8, "little") + text + data[end:]

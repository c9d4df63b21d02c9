"""Weights files that are damaged, of another kind, or carry code."""

from __future__ import annotations

import functools
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harm.commands import Content, put, to_output, toy_weights, train_one, write
from harm.files import label_map, nifti, safetensors, toy
from harm.kinds import Kind


class Bomb:
    """What makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


class Lazy:
    """Bytes that need the toy network, which is made when they are first wanted."""

    def __init__(self, make: Callable[..., bytes], *arguments: Any) -> None:
        self._make, self._arguments = make, arguments

    def __call__(self, *_: object) -> bytes:
        return self._make(*self._arguments)


def _bad_weights(name: str, words: str, content: Content | None, by: str = "predict", **more: Any) -> Kind:
    """Weights that are not acceptable, to `predict` or `info`."""

    def build(folder: Path) -> Sequence[object]:
        path = folder / "w.safetensors"
        if content is not None:
            put(path, content() if isinstance(content, Lazy) else content)
        if by == "info":
            return ["info", "--weights", path]
        image = write(folder / "flair.nii", nifti())
        return ["predict", "--flair", image, "-o", folder / "out" / "s.nii.gz", "--weights", path, "--device", "cpu"]

    return Kind("weights", name, 4, ("w.safetensors", words), build, **more)


def _first(header: dict[str, Any]) -> dict[str, Any]:
    """The header's entry of the tensor that comes first."""
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    return min(tensors, key=lambda entry: entry["data_offsets"])


def _metadata(**values: str | None) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for name, value in values.items():
            header["__metadata__"].pop(name)
            if value is not None:
                header["__metadata__"][name] = value

    return change


def _card(text: str) -> Lazy:
    return Lazy(safetensors, _metadata(card=text))


def _shifted(by: int) -> Callable[[dict[str, Any]], None]:
    """Move all tensors but the first: below 0 they overlap it, above 0 they leave a gap."""

    def change(header: dict[str, Any]) -> None:
        first = _first(header)
        for name, entry in header.items():
            if name != "__metadata__" and entry is not first:
                entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]

    return change


def _larger(header: dict[str, Any]) -> None:
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    last = max(tensors, key=lambda entry: entry["data_offsets"])
    last["shape"], last["data_offsets"][1] = [2**40], last["data_offsets"][0] + 2**41


def _renamed(header: dict[str, Any]) -> None:
    header["another.weight"] = header.pop(next(name for name in header if name != "__metadata__"))


def _reshaped(header: dict[str, Any]) -> None:
    entry = _first(header)
    entry["shape"] = [1, *entry["shape"]]


def _nan_body() -> bytes:
    whole = toy()
    end = 8 + int.from_bytes(whole[:8], "little")
    return safetensors(body=b"\x00\x7e" + whole[end + 2 :])  # 0x7e00 is NaN in float16


def _length(length: int) -> bytes:
    return length.to_bytes(8, "little") + toy()[8:]


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.with_name("executed"))))


def torch_saved(zipped: bool, path: Path) -> None:
    import torch

    torch.save({"state_dict": Bomb(path.with_name("executed"))}, path, _use_new_zipfile_serialization=zipped)


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../escaped", "x")
        archive.writestr("model.safetensors", toy())


def _tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../escaped")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))


def _closed(path: Path) -> None:
    path.write_bytes(toy())
    path.chmod(0)


def weights_kinds() -> Iterator[Kind]:
    newer = Lazy(safetensors, _metadata(format_version="3"))
    yield _bad_weights("missing", "no such weights file", None)
    yield _bad_weights("folder", "no such weights file", Path.mkdir)
    yield _bad_weights("no permission", "cannot be read", _closed, by_permission=True)
    yield _bad_weights("named pipe", "no such weights file", os.mkfifo)
    yield _bad_weights("empty", "looks like an empty file", b"")
    yield _bad_weights("text", "looks like something else", b"weights\n" * 100)
    yield _bad_weights("web page", "looks like a web page", b"<!DOCTYPE html><title>Sign in</title>")
    yield _bad_weights("truncated", "truncated", lambda path: path.write_bytes(toy()[:-100]))
    yield _bad_weights("truncated header", "truncated", lambda path: path.write_bytes(toy()[:300]))
    yield _bad_weights(
        "bytes at the end", "7 bytes follow the last tensor", lambda path: path.write_bytes(toy() + bytes(7))
    )
    yield _bad_weights("pickle with code", "looks like a pickle", pickled)
    yield _bad_weights(
        "torch.save with code", "PyTorch checkpoint (zip with a pickle)", functools.partial(torch_saved, True)
    )
    yield _bad_weights("old torch.save with code", "looks like a pickle", functools.partial(torch_saved, False))
    yield _bad_weights("the same, by info", "looks like a pickle", pickled, "info")
    yield _bad_weights("zip with ../", "looks like a zip archive", _zipped)
    yield _bad_weights("tar with ../", "looks like a tar archive", _tarred)
    yield _bad_weights("gzip", "looks like a gzip file", lambda path: path.write_bytes(gzip.compress(toy())))
    yield _bad_weights("header longer than the file", "the header alone should take", Lazy(_length, 900_000))
    yield _bad_weights("header of 2^63 bytes", "claims 9223372036854775808 bytes", Lazy(_length, 2**63))
    yield _bad_weights("header that ends early", "header cannot be read", Lazy(_length, 100))
    yield _bad_weights("header of many megabytes", "the limit is 1048576", _card('{"note": "' + "x" * 4 * 2**20 + '"}'))
    yield _bad_weights("overlapping tensors", "overlaps another tensor", Lazy(safetensors, _shifted(-2)))
    yield _bad_weights("gap between tensors", "leaves a gap", Lazy(safetensors, _shifted(2)))
    yield _bad_weights("tensor of terabytes", "truncated", Lazy(safetensors, _larger))
    yield _bad_weights(
        "size that does not follow",
        "does not follow from its shape",
        Lazy(safetensors, lambda h: _first(h).update(shape=[3])),
    )
    yield _bad_weights(
        "voxel type of whole numbers",
        "expected F16, BF16 or F32",
        Lazy(safetensors, lambda h: _first(h).update(dtype="I64")),
    )
    yield _bad_weights("name outside the model", "not the network", Lazy(safetensors, _renamed))
    yield _bad_weights("wrong shape", "other shapes for", Lazy(safetensors, _reshaped))
    yield _bad_weights("values that are no numbers", "holds NaN or infinite values", Lazy(_nan_body))
    yield _bad_weights("newer format", "format version 3, this a2fseg reads up to 2. Upgrade", newer)
    yield _bad_weights("newer format, by info", "Upgrade a2fseg", newer, "info")
    yield _bad_weights("no configuration", "configuration cannot be read", Lazy(safetensors, _metadata(config=None)))
    yield _bad_weights("configuration of no network", "not one of a network", Lazy(safetensors, _metadata(config="{}")))
    yield _bad_weights(
        "file of another program", "another program (format 'pt'", Lazy(safetensors, _metadata(format="pt"))
    )
    deep = '{"initial":' * 5000 + "{}" + "}" * 5000
    yield _bad_weights("card nested without end", "card cannot be read", _card(deep), "info")
    yield _bad_weights("card with a control sequence", "control characters", _card('{"name": "\\u001b[2J"}'), "info")
    for name, text in (
        ("scores that are a list", '{"scores": [1]}'),
        ("scores that are words", '{"scores": {"subsets": {"flair": "good", "t1+t1c+t2+flair": "better"}}}'),
        ("patients that are a number", '{"data": 3}'),
        ("hours without end", '{"hours": ' + "9" * 400 + "}"),
    ):
        for by in ("predict", "info") if "scores" in text else ("info",):
            yield _bad_weights(f"card with {name}, by {by}", "card", _card(text), by)

    def other(folder: Path) -> Sequence[object]:
        image = write(folder / "flair.nii", nifti())
        return ["predict", "--flair", image, *to_output(folder)[:2], *toy_weights(folder, toy(("pd", "ct")))]

    def initial(folder: Path) -> Sequence[object]:
        return train_one(
            folder, nifti(label_map()), "--init-weights", write(folder / "w.safetensors", toy(("pd", "ct")))
        )

    def unnamed(folder: Path) -> Sequence[object]:
        return [
            "predict",
            "--flair",
            write(folder / "flair.nii", nifti()),
            "-o",
            folder / "s.nii",
            "--weights",
            "huge",
        ]

    yield Kind("weights", "of other modalities", 4, ("toy.safetensors", "flair", "pd, ct"), other)
    yield Kind("weights", "of other modalities, to start from", 4, ("w.safetensors", "pd, ct"), initial)
    yield Kind("weights", "name that is not in the manifest", 4, ("'huge': no weights of this name", "tiny"), unnamed)

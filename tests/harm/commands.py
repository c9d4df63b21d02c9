"""Command lines around a bad file: everything else in them is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harm.files import brain, nifti, toy

Content = bytes | Callable[[Path], object]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put(path: Path, content: Content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    return path


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def toy_weights(folder: Path, content: bytes | None = None) -> list[object]:
    return ["--weights", write(folder / "toy.safetensors", toy() if content is None else content)]


def to_output(folder: Path, *options: object) -> list[object]:
    """Where a mask goes, by which weights, and on which device, unless the options say so themselves."""
    weights = toy_weights(folder)
    return _beside({"-o": folder / "out" / "s.nii.gz", weights[0]: weights[1], "--device": "cpu"}, options)


def _beside(usual: Mapping[object, object], options: Sequence[object]) -> list[object]:
    """The usual options that are not given, then those that are: the command refuses one given twice."""
    return [*(part for pair in usual.items() if pair[0] not in options for part in pair), *options]


def predict_one(
    *options: object, then: Callable[[Path], Sequence[object]] = lambda _: ()
) -> Callable[[Path], Sequence[object]]:
    """A good FLAIR with these options, and those that `then` returns."""

    def build(folder: Path) -> Sequence[object]:
        image = write(folder / "flair.nii", nifti())
        return ["predict", "--flair", image, *to_output(folder, *options, *then(folder))]

    return build


def evaluate_one(folder: Path, truth: Content | None, *options: object) -> list[object]:
    """One patient `P1` with T1 and FLAIR, and this truth."""
    data = folder / "data" / "P1"
    for name, seed in (("t1", 0), ("flair", 1)):
        put(data / f"P1_{name}.nii", nifti(brain(seed)))
    if truth is not None:
        put(data / "P1_seg.nii", truth)
    device = () if "--predictions" in options else ("--device", "cpu")
    return ["evaluate", folder / "data", "-o", folder / "out", *device, *toy_weights(folder), *options]


def train_one(folder: Path, truth: Content | None, *options: object) -> list[object]:
    """The same patient to train on."""
    evaluate_one(folder, truth)
    usual = {"--preset": "tiny", "--features": "4,8", "--spacing": 4, "--patch-size": 16, "--device": "cpu"}
    usual |= {"--iterations": 1} | ({} if "--time-budget" in options else {"--epochs": 1})
    return ["train", folder / "data", "-o", folder / "out", *_beside(usual, options)]

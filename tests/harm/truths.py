"""Truths and masks that cannot be scored or trained on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from harm.commands import Content, evaluate_one, train_one, write
from harm.files import corner, label_map, nifti, with_value
from harm.kinds import Kind


def truth_kinds() -> Iterator[Kind]:
    other = nifti(label_map(), srow=((-4, 0, 0, 5), (0, -4, 0, 0), (0, 0, 4, 0)))
    bad: list[tuple[str, tuple[str, ...], Content | None]] = [
        ("unknown label", ("P1_seg.nii", "unknown label 9", "brats2018"), nifti(label_map(9))),
        ("negative label", ("P1_seg.nii", "unknown label -1"), nifti(label_map(-1, "i2"))),
        (
            "labels 3 and 4 together",
            ("P1_seg.nii", "labels 3 and 4 together"),
            nifti(with_value(label_map(4), 3) + corner(4)),
        ),
        ("another size", ("P1_seg.nii", "another grid (17 x 18 x 15)"), nifti(label_map()[:15])),
        ("another place", ("P1_seg.nii", "corners 5 mm away"), other),
        ("values between labels", ("P1_seg.nii", "the value 1.5"), nifti(label_map(1.5, "f4"))),
        ("values that are no number", ("P1_seg.nii", "the value nan"), nifti(label_map(np.nan, "f4"))),
        ("4-D", ("P1_seg.nii", "4-D, 2 volumes"), nifti(np.stack([label_map()] * 2))),
        ("damaged", ("P1_seg.nii", "truncated"), nifti(label_map())[:-9]),
        ("an image's values", ("P1_seg.nii", "unknown label"), nifti()),
        ("missing", ("P1", "a file that ends in seg"), None),
    ]
    for name, words, truth in bad:
        yield Kind("truth", name, 3, words, functools.partial(evaluate_one, truth=truth), lines=4)
    for name, words, truth in bad[::4]:
        yield Kind(
            "truth",
            f"{name}, to train on",
            3,
            words,
            functools.partial(train_one, truth=truth),
            leaves=("out", "out/cache"),
        )

    def two(folder: Path) -> Sequence[object]:
        write(folder / "data" / "P1" / "P1_label.nii", nifti(label_map()))
        return evaluate_one(folder, nifti(label_map()))

    def predictions(files: Mapping[str, bytes]) -> Callable[[Path], Sequence[object]]:
        def build(folder: Path) -> Sequence[object]:
            (folder / "in").mkdir()
            for name, content in files.items():
                write(folder / "in" / name, content)
            return evaluate_one(folder, nifti(label_map()), "--predictions", folder / "in")

        return build

    good = nifti(label_map())
    yield Kind("truth", "two candidates", 3, ("P1: no truth",), two, lines=4)
    yield Kind("truth", "predictions of nobody", 3, ("in: no prediction for any",), predictions({"x.nii": good}))
    yield Kind(
        "truth", "prediction on another grid", 3, ("P1.nii: another grid",), predictions({"P1.nii": other}), lines=4
    )
    clash = {"P1.nii": good, "P1_seg.nii": good}
    yield Kind("truth", "two predictions", 3, ("2 candidates for P1: P1.nii, P1_seg.nii",), predictions(clash), lines=4)
    yield Kind(
        "truth",
        "prediction with an unknown label",
        3,
        ("P1.nii: unknown label 7",),
        predictions({"P1.nii": nifti(label_map(7))}),
        lines=4,
    )

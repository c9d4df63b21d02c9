"""Outputs that cannot be written, or would overwrite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harm.commands import evaluate_one, predict_one, toy_weights, train_one, write
from harm.files import label_map, nifti
from harm.kinds import Kind


def output_kinds() -> Iterator[Kind]:
    def to(name: str, *options: object, before: Callable[[Path], object] = lambda _: None) -> Any:
        def then(folder: Path) -> Sequence[object]:
            before(folder / name)
            return ["-o", folder / name, *options]

        return predict_one(then=then)

    def beside(option: str, name: str, before: Callable[[Path], object] = lambda _: None) -> Any:
        def then(folder: Path) -> Sequence[object]:
            before(folder / name)
            return [option, folder / name]

        return predict_one(then=then)

    def mine(path: Path) -> None:
        write(path, b"mine")

    def parent(path: Path) -> None:
        write(path.parent, b"mine")

    def closed(path: Path) -> None:
        path.parent.mkdir()
        path.parent.chmod(0o500)

    def shut(path: Path) -> None:
        path.parent.mkdir()
        path.parent.chmod(0)

    group = "output"
    yield Kind(group, "exists", 2, ("s.nii.gz exists. Overwrite it (--overwrite)",), to("s.nii.gz", before=mine))
    yield Kind(group, "unknown extension", 2, ("s.xyz", ".nii.gz"), to("s.xyz"))
    yield Kind(group, "folder where a file should be", 2, ("results", "a folder"), to("results", before=Path.mkdir))
    yield Kind(group, "folder named like an image", 2, ("r.nii.gz",), to("r.nii.gz", "--overwrite", before=Path.mkdir))
    yield Kind(
        group, "parent is a file", 5, ("there/s.nii.gz: cannot be written",), to("there/s.nii.gz", before=parent)
    )
    yield Kind(
        group,
        "read-only folder",
        5,
        ("there/s.nii.gz: cannot be written",),
        to("there/s.nii.gz", before=closed),
        by_permission=True,
    )
    yield Kind(
        group,
        "closed folder",
        5,
        ("there/s.nii.gz: cannot be written",),
        to("there/s.nii.gz", before=shut),
        by_permission=True,
    )
    yield Kind(group, "a name of 300 letters", 5, ("cannot be written",), to("s" * 300 + ".nii"))
    yield Kind(group, "an input", 2, ("flair.nii",), to("flair.nii", "--overwrite"))
    yield Kind(group, "none given", 2, ("-o seg.nii.gz",), lambda folder: predict_one()(folder)[:3])
    yield Kind(group, "preview exists", 2, ("p.png exists",), beside("--preview", "p.png", mine))
    yield Kind(
        group,
        "preview in a file",
        5,
        ("there/p.png", "cannot be written"),
        beside("--preview", "there/p.png", parent),
    )
    yield Kind(group, "statistics exist", 2, ("s.json exists",), beside("--stats", "s.json", mine))
    yield Kind(group, "statistics of an unknown type", 2, ("s.txt", ".json or .csv"), beside("--stats", "s.txt"))
    yield Kind(
        group,
        "statistics in a file",
        5,
        ("there/s.json", "cannot be written"),
        beside("--stats", "there/s.json", parent),
    )

    def cohort(folder: Path) -> Sequence[object]:
        evaluate_one(folder, None)
        write(folder / "results", b"mine")
        return ["predict", folder / "data", "-o", folder / "results", *toy_weights(folder), "--device", "cpu"]

    def scores(folder: Path) -> Sequence[object]:
        write(folder / "out", b"mine")
        return evaluate_one(folder, nifti(label_map()))

    def run_folder(folder: Path) -> Sequence[object]:
        write(folder / "out", b"mine")
        return train_one(folder, nifti(label_map()))

    def demo(folder: Path) -> Sequence[object]:
        return ["demo", "-o", write(folder / "out", b"mine"), "--device", "cpu"]

    yield Kind(group, "file where a cohort's folder should be", 5, ("results", "cannot be written"), cohort, lines=4)
    yield Kind(group, "file where scores should be", 5, ("out", "cannot be written"), scores, lines=4)
    yield Kind(group, "file where a run should be", 5, ("out", "cannot be written"), run_folder)
    yield Kind(group, "file where the demo should be", 5, ("out", "cannot be written"), demo)

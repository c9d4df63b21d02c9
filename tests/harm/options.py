"""Options that contradict each other or mean nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harm.commands import evaluate_one, predict_one, to_output, write
from harm.files import label_map, nifti
from harm.kinds import Kind


def option_kinds() -> Iterator[Kind]:
    group = "option"

    def option(words: str, *options: object, code: int = 2, name: str = "", **more: Any) -> Kind:
        return Kind(group, name or " ".join(map(str, options)), code, (words,), predict_one(*options), **more)

    def data(words: str, *options: object, code: int = 2, name: str = "") -> Kind:
        return Kind(
            group,
            name or f"evaluate {' '.join(map(str, options))}",
            code,
            (words,),
            functools.partial(evaluate_one, truth=nifti(label_map()))
            if not options
            else lambda folder: evaluate_one(folder, nifti(label_map()), *options),
        )

    def split(words: tuple[str, ...], content: bytes | None, suffix: str, code: int, name: str) -> Kind:
        def build(folder: Path) -> Sequence[object]:
            if content is not None:
                write(folder / "split.json", content)
            return evaluate_one(folder, nifti(label_map()), "--split", f"{folder / 'split.json'}{suffix}")

        return Kind(group, name, code, words, build)

    yield option("pd", "--image", "pd=flair.nii", name="unknown modality")
    yield option("expected NAME=FILE", "--image", "flair.nii")
    yield option("--window big: expected one or three positive numbers", "--window", "big")
    yield option("--window 0", "--window", "0")
    yield option("--window 16,16", "--window", "16,16")
    yield option("--threads -2: expected 1 to", "--threads", "-2")
    yield option("--threads 0: expected 1 to", "--threads", "0")
    yield option("--threads 99999999999", "--threads", "99999999999")
    yield option("Invalid value for '--threads'", "--threads", "many", lines=8)
    yield option("device abacus: expected auto, cpu, cuda", "--device", "abacus")
    yield option("device cuda:one", "--device", "cuda:one")
    yield option("device cuda:99: found", "--device", "cuda:99")
    yield option("precision int8: expected auto, fp32", "--precision", "int8")
    yield option("precision fp16 needs a GPU", "--precision", "fp16")
    yield option("overlap 1.0: expected 0 up to", "--overlap", "1")
    yield option("overlap -0.5", "--overlap", "-0.5")
    yield option("overlap nan", "--overlap", "nan")
    yield option("labels brats1999: expected brats2018 or brats2023", "--labels", "brats1999")
    yield option("--on-mismatch guess: expected error or resample", "--on-mismatch", "guess")
    yield option("reference t1c: not among the images given (flair)", "--reference", "t1c")
    yield option("exclude each other", "--skip-existing", "--overwrite")
    yield option("No such option", "--colour", lines=8)
    yield Kind(
        group,
        "folder and flags",
        2,
        ("--flair and SOURCE exclude each other",),
        lambda folder: ["predict", folder, *predict_one()(folder)[1:]],
    )
    yield Kind(group, "neither folder nor flags", 2, ("or neither",), lambda folder: ["predict", *to_output(folder)])
    yield Kind(
        group,
        "an image without its modality",
        2,
        ("one file", "flair"),
        lambda folder: ["predict", write(folder / "a.nii", nifti()), *to_output(folder)],
    )
    yield data("--part-id 2: expected 0 to 1", "--num-parts", 2, "--part-id", 2, name="part out of range")
    yield data("--part-id -1: expected 0 to 1", "--num-parts", 2, "--part-id", -1)
    yield data("--num-parts 0: expected 1 or more", "--num-parts", 0, "--part-id", 0)
    yield data("--part-id needs --num-parts", "--part-id", 0)
    yield data("--num-parts needs --part-id", "--num-parts", 2)
    yield data("Unknown policy 'brats1999'; expected one of brats2020", "--policy", "brats1999")
    yield data("metrics beauty: expected some of dice", "--metrics", "dice,beauty")
    yield data("subset t1+pet: expected some of t1, t1c, t2, flair", "--subset", "t1+pet")
    yield data("subset t1+t1", "--subset", "t1+t1")
    yield data("labels brats1999", "--labels", "brats1999")
    yield data("compare nature: expected paper", "--compare", "nature")
    yield data("figure P9: no such patient", "--figure", "P9")
    yield data("--write-card", "--write-card", "w.safetensors")
    yield data("exclude each other", "--all-subsets", "--subset", "t1")
    yield data("no such folder of predictions", "--predictions", "nowhere", code=3)
    two = b'{"train": ["P1"], "test": ["P1x"]}'
    yield split(("split", "split.json:NAME", "train, test"), two, "", 2, "split without the name")
    yield split(("NAME one of train, test",), two, ":dev", 2, "split with an unknown name")
    yield split(("split.json, test: 1 cases are not in the data: P1x",), two, ":test", 3, "split of other patients")
    yield split(("split.json: not a JSON file",), None, "", 3, "split that is missing")
    yield split(("split.json: not a JSON file",), b"train: P1", "", 3, "split that is not JSON")
    yield split(("split.json: not a JSON file",), b"[" * 100_000, "", 3, "split nested without end")
    yield split(("split.json: expected a JSON object",), b'{"test": "P1"}', ":test", 3, "split that is no list")
    yield split(
        ("split.json: P1 stands in it twice",), b'{"a": ["P1"], "b": ["P1"]}', ":a", 3, "split with a case twice"
    )
    parts = {"SLURM_ARRAY_TASK_COUNT": "two", "SLURM_ARRAY_TASK_ID": "1"}
    words = ("SLURM_ARRAY_TASK_COUNT and SLURM_ARRAY_TASK_ID: expected whole numbers",)
    yield Kind(
        group,
        "SLURM variables that are no numbers",
        2,
        words,
        functools.partial(evaluate_one, truth=nifti(label_map())),
        parts,
    )
    demo = lambda *options: lambda folder: ["demo", "-o", folder / "out", "--device", "cpu", *options]  # noqa: E731
    yield Kind(
        group, "demo of an unknown modality", 2, ("modalities pet: expected some of t1",), demo("--modalities", "pet")
    )
    yield Kind(group, "demo of a negative seed", 2, ("seed -1: expected 0 or more",), demo("--seed", "-1"))

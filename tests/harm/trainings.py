"""Trainings that cannot begin or go on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harm.commands import Content, empty_folder, put, train_one, write
from harm.files import label_map, nifti
from harm.kinds import Kind
from harm.weights import pickled, torch_saved


def _checkpoint(config: str = "", own: bool = False) -> Content:
    def write(path: Path) -> None:
        import torch

        from a2fseg_cli.core.config import PRESETS

        mine = replace(
            PRESETS["tiny"], features_per_stage=(4, 8), spacing_mm=(4.0,) * 3, patch_size=(16,) * 3
        ).to_json()
        torch.save({"config": mine if own else config, "model": {}, "optimizer": {}, "mean": {}, "state": {}}, path)

    return write


def training_kinds() -> Iterator[Kind]:
    group = "training"
    good = nifti(label_map())

    def train(words: str, *options: object, code: int = 2, name: str = "", **more: Any) -> Kind:
        return Kind(
            group, name or " ".join(map(str, options)), code, (words,), lambda f: train_one(f, good, *options), **more
        )

    def split(words: str, text: str, name: str, code: int = 3) -> Kind:
        def build(folder: Path) -> Sequence[object]:
            return train_one(folder, good, "--split", write(folder / "split.json", text.encode()))

        return Kind(group, name, code, (words,), build)

    def resume(name: str, words: tuple[str, ...], code: int, *options: object, **saved: Any) -> Kind:
        def build(folder: Path) -> Sequence[object]:
            arguments = train_one(folder, good, "--resume", *options)
            (folder / "out").mkdir()
            for file, content in saved.items():
                put(folder / "out" / file.replace("_", "."), content)
            return arguments

        return Kind(group, name, code, words, build, leaves=("out/cache*", "out/config.json", "out/split.json"))

    yield Kind(
        group, "no truth", 3, ("data", "no patient has a segmentation"), functools.partial(train_one, truth=None)
    )
    yield Kind(
        group,
        "no patients",
        3,
        ("empty: no image found",),
        lambda folder: ["train", empty_folder(folder / "empty"), "-o", folder / "out"],
    )
    yield split(
        "split.json: P1 stands in it twice", '{"train": ["P1"], "validation": ["P1"]}', "split with a case twice"
    )
    yield split("split.json", '{"train": []}', "split with nobody to train on")
    yield split("P9: named in the split but not found", '{"train": ["P9"]}', "split with a case that is not there")
    yield split("expected a JSON object", '{"train": "P1"}', "split that is no list")
    yield split("split.json: not a JSON file", "train", "split that is not JSON")
    yield train("--patch-size: edges must be multiples of 2, at least 4; got (7, 7, 7)", "--patch-size", "7")
    yield train("--patch-size large: expected one or three", "--patch-size", "large")
    yield train("preset huge: expected paper, small, tiny", "--preset", "huge")
    yield train("--features 2,wide", "--features", "2,wide")
    yield train("features_per_stage needs", "--features", "0,4")
    yield train("--spacing -1", "--spacing", "-1")
    yield train("spacing_mm needs three values of 0.1 to 20", "--spacing", "1000")
    yield train("distinct names", "--modalities", "t1,t1")
    yield train("letters, digits", "--modalities", "t1,../t2")
    yield train("--labels core: expected name=value", "--labels", "core")
    yield train("label values are 0", "--labels", "core=999")
    yield train("--labels core=1,core=2: expected name=value", "--labels", "core=1,core=2")
    yield train("region all must consist of", "--regions", "all=core")
    yield train("optimizer sgd: expected adam, adamw or muon", "--optimizer", "sgd")
    yield train("--learning-rate nan: expected more than 0", "--learning-rate", "nan")
    yield train("epochs 0: expected 1 or more", "--epochs", "0")
    yield train("seed -1: expected 0 or more", "--seed", "-1")
    yield train("--time-budget soon: expected a time such as 2h", "--time-budget", "soon")
    yield train("--time-budget", "--time-budget", "9" * 400 + "h", name="--time-budget of 400 digits")
    yield train("workers -1: expected 0 or more", "--workers", "-1")
    yield train("name '../x' must be letters", "--name", "../x")
    yield train("licence must be one line", "--licence", "two\nlines")
    yield train("none.safetensors: no such weights file", "--init-weights", "none.safetensors", code=4)
    yield Kind(
        group,
        "weights with code to start from",
        4,
        ("w.safetensors", "looks like a pickle"),
        lambda folder: train_one(folder, good, "--init-weights", put(folder / "w.safetensors", pickled)),
    )
    yield resume("resume of nothing", ("out/last.ckpt: no checkpoint to resume from",), 4)
    yield resume(
        "resume with other options",
        ("config.json differs from these options",),
        2,
        last_ckpt=_checkpoint(),
        config_json=b"{}",
    )
    yield resume(
        "resume of another network",
        ("out", "the checkpoint is of another network"),
        2,
        last_ckpt=_checkpoint(config="{}"),
    )
    yield resume("resume of other tensors", ("last.ckpt", "not a checkpoint"), 4, last_ckpt=_checkpoint(own=True))
    yield resume("resume of text", ("last.ckpt: not a checkpoint of this tool",), 4, last_ckpt=b"text" * 100)
    yield resume("resume of a pickle with code", ("last.ckpt: not a checkpoint of this tool",), 4, last_ckpt=pickled)
    yield resume(
        "resume of a torch.save with code",
        ("last.ckpt: not a checkpoint",),
        4,
        last_ckpt=functools.partial(torch_saved, True),
    )

    def again(folder: Path) -> Sequence[object]:
        write(folder / "out" / "last.ckpt", b"mine")
        return train_one(folder, good)

    yield Kind(group, "a run is there already", 2, ("out holds a run already. Give resume",), again)
    join = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    for name, words, env in (
        ("WORLD_SIZE that is no number", "WORLD_SIZE two: expected a whole number", {"WORLD_SIZE": "two"}),
        ("WORLD_SIZE below 1", "WORLD_SIZE -2: expected a whole number from 1", {"WORLD_SIZE": "-2"}),
        ("WORLD_SIZE without RANK", "RANK is not set: start several processes with torchrun", {"WORLD_SIZE": "2"}),
        ("RANK that is no number", "RANK first: expected a whole number", {"WORLD_SIZE": "2", "RANK": "first", **join}),
        ("RANK out of range", "RANK 5: expected a whole number from 0 to 1", {"WORLD_SIZE": "2", "RANK": "5", **join}),
        (
            "MASTER_PORT that is no number",
            "MASTER_PORT x: expected",
            {"WORLD_SIZE": "2", "RANK": "0", **join, "MASTER_PORT": "x"},
        ),
    ):
        yield Kind(group, name, 2, (words,), functools.partial(train_one, truth=good), env)

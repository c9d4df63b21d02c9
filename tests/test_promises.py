"""What is promised of every command: no network but in `download-weights`, nothing private in outputs, same bytes."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from a2fseg_cli.core.config import PRESETS
from a2fseg_cli.training.recipe import RECIPES

Call = Callable[..., int]
SECRET = "Doe^Jane 1970-01-01"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to open a connection or to look a name up is an error that nothing catches on the way."""

    class Forbidden(BaseException):
        pass

    real = socket.socket.__init__

    def opened(self: socket.socket, family: int = -1, *args: Any, **kwargs: Any) -> None:
        if family not in (socket.AF_UNIX,):  # processes of one machine may talk
            raise Forbidden("a socket was opened")
        real(self, family, *args, **kwargs)

    def looked_up(*_: Any, **__: Any) -> None:
        raise Forbidden("a name was looked up")

    monkeypatch.setattr(socket.socket, "__init__", opened)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    with pytest.raises(Forbidden):
        socket.socket(socket.AF_INET)


@pytest.fixture
def cohort(phantom: Path, tmp_path: Path) -> Path:
    """Three patients with a truth."""
    image = sitk.ReadImage(phantom / "P1_flair.nii.gz")
    bright = sitk.GetArrayFromImage(image)
    truth = sitk.GetImageFromArray((bright > np.percentile(bright, 98)).astype(np.uint8) * 2)
    truth.CopyInformation(image)
    for name in ("a", "b", "c"):
        shutil.copytree(phantom, tmp_path / "data" / name)
        sitk.WriteImage(truth, tmp_path / "data" / name / "P1_seg.nii.gz")
    return tmp_path / "data"


@pytest.mark.usefixtures("no_network")
def test_no_command_but_download_weights_uses_the_network(
    call: Call, cohort: Path, toy_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), spacing_mm=(6.0, 6.0, 6.0), patch_size=(8, 8, 8))
    monkeypatch.setitem(PRESETS, "tiny", config)
    monkeypatch.setitem(RECIPES, "tiny", {"epochs": 1, "iterations_per_epoch": 2, "optimizer": "adamw"})
    out, weights = tmp_path / "out", ("--weights", toy_weights)
    everything = ("--probabilities", "--regions", "--attention", "--uncertainty", "--preview", out / "p.png")
    everything += ("--stats", out / "s.json", "--report", out / "r.html")
    assert call("predict", cohort / "a", "-o", out / "a.nii.gz", *everything, *weights) == 0
    assert call("predict", cohort, "-o", out / "cohort", *weights) == 0
    assert call("evaluate", cohort, "--all-subsets", "-o", out / "scores", *weights) == 0
    assert call("train", cohort, "-o", out / "run", "--preset", "tiny") == 0
    assert call("info") == 0
    assert call("demo", "-o", out / "demo") == 0
    assert call("download-weights", "--list") == 0  # of the bundled manifest


def test_the_network_is_missed_where_it_is_needed(call: Call, no_network: None, tmp_path: Path) -> None:
    """Else the test above could not fail."""
    manifest = {
        "version": 1,
        "weights": [
            {
                "name": "far",
                "file": "far.safetensors",
                "description": "far away",
                "licence": "CC0-1.0",
                "sha256": "0" * 64,
                "size_bytes": 10,
                "urls": ["https://127.0.0.1:1/far.safetensors"],
            }
        ],
    }
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    with pytest.raises(BaseException, match=r"socket|looked up") as error:
        call("download-weights", "far", "--manifest", tmp_path / "m.json")
    assert type(error.value).__name__ == "Forbidden"


def test_nothing_of_a_header_but_the_grid_is_copied(
    call: Call, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """Names in `descrip`, `aux_file`, `intent_name`, `db_name` and extensions, as converters of DICOM write them."""
    folder = tmp_path / "patient"
    folder.mkdir()
    for m in ("t1c", "flair"):
        image: Any = nib.load(phantom / f"P1_{m}.nii.gz")  # type: ignore[attr-defined]
        header = image.header
        header["descrip"], header["aux_file"], header["intent_name"] = SECRET, SECRET, SECRET[:15]
        header["db_name"] = SECRET[:17]
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))  # type: ignore[attr-defined]
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), folder / f"{m}.nii.gz")  # type: ignore[attr-defined]
        assert SECRET.encode() in gzip.decompress((folder / f"{m}.nii.gz").read_bytes())
    out = tmp_path / "out"
    everything = ("--probabilities", "--regions", "--attention", "--uncertainty", "--preview", out / "p.png")
    everything += ("--stats", out / "s.json", "--report", out / "r.html")
    assert call("predict", folder, "-o", out / "seg.nii.gz", *everything, "--weights", toy_weights) == 0
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert len(files) == 1 + 3 + 3 + 1 + 2 + 3
    for path in files:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.name.endswith(".gz") else raw
        for part in (SECRET, SECRET[:15], "Jane", "1970"):
            assert part.encode() not in content, f"{path.name} holds {part}"


def test_everything_written_is_the_same_to_the_byte(
    call: Call, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """Images and the preview, without options; the stats but for their times."""
    for name in ("one", "two"):
        out = tmp_path / name
        everything = ("--probabilities", "--regions", "--attention", "--uncertainty", "--preview", out / "p.png")
        arguments = ("-o", out / "seg.nii.gz", *everything, "--stats", out / "s.json", "--weights", toy_weights)
        assert call("predict", phantom, *arguments, "--deterministic") == 0
    torch.use_deterministic_algorithms(False)
    one, two = tmp_path / "one", tmp_path / "two"
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    for name in names:
        if name != "s.json":
            assert (one / name).read_bytes() == (two / name).read_bytes(), name
    stats = [json.loads((folder / "s.json").read_text()) for folder in (one, two)]
    for found in stats:
        del found["seconds"], found["outputs"]
    assert stats[0] == stats[1]


def test_stats_hold_what_repeats_a_run(call: Call, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """The inputs, the weights' checksum, settings, device, precision, threads, windows and versions."""
    out = tmp_path / "seg.nii.gz"
    assert call("predict", phantom, "-o", out, "--stats", tmp_path / "s.json", "--weights", toy_weights) == 0
    stats = json.loads((tmp_path / "s.json").read_text())
    assert set(stats["inputs"]) == {"t1", "t1c", "t2", "flair"}
    assert len(stats["weights"]["sha256"]) == 64
    assert {"labels", "overlap", "mirrored", "on_mismatch"} <= set(stats["settings"])
    assert {"name", "precision", "threads"} <= set(stats["device"])
    assert {"edges", "count"} == set(stats["windows"])
    assert {"a2fseg", "torch", "numpy", "SimpleITK", "python"} <= set(stats["versions"])

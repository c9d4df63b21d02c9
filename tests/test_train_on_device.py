"""Training on a lent GPU, tried out on the CPU: packed patients, crops that fit, the script, what is brought back."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import InputError, ResourceError, UsageError
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.writing import write_image
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.training.data import TrainingPatient, read_training_patient
from a2fseg_cli.training.patients import training_cases
from a2fseg_cli.weights.file_format import load_weights

SCRIPTS = Path(__file__).parents[1] / "scripts"
MM = 6.0


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One synthetic patient at 6 mm, mirrored to be three: P1 and P2 with all sequences, P3 with FLAIR alone."""
    folder = tmp_path_factory.mktemp("cohort")
    made = make_phantom(size=(25, 32, 32), spacing_mm=(MM, MM, MM))
    for name, axes in (("P1", ()), ("P2", (2,)), ("P3", (1, 2))):
        files = {"seg": made.truth} | {m: a for m, a in made.images.items() if m == "flair" or name != "P3"}
        for kind, array in files.items():
            path = folder / name / f"{name}_{kind}.nii.gz"
            write_image(
                np.rint(np.flip(array, axes)).astype(np.int16), Geometry(made.truth.shape, made.spacing_mm), path
            )
    (folder / "split.json").write_text('{"train": ["P1", "P3"], "validation": ["P2"], "test": []}')
    return folder


def read_all(data: list[Path], config: ModelConfig) -> dict[str, TrainingPatient]:
    return {case.name: read_training_patient(case, config) for case in training_cases(data, config.modalities)}


def test_packed_patients_are_those_that_they_were(scripts: Any, cohort: Path, tmp_path: Path) -> None:
    """Stored in steps of 0.05 of a standard deviation, they are off by 0.025, and a little where that is normalised."""
    used = scripts("pack_patients").pack([cohort], tmp_path / "parts", cohort / "split.json", 64)
    assert len(used) == 1
    config = ModelConfig(spacing_mm=(MM, MM, MM))
    before, after = read_all([cohort], config), read_all([tmp_path / "parts" / "part-01"], config)
    assert before.keys() == after.keys() == {"P1", "P2", "P3"}
    for name, patient in before.items():
        assert after[name].present == patient.present
        np.testing.assert_allclose(after[name].images, patient.images, atol=0.03)
        np.testing.assert_array_equal(after[name].classes, patient.classes)
        assert set(np.unique(patient.classes)) == {0, 1, 2, 3}


def test_the_working_grid_is_of_no_matter(scripts: Any, cohort: Path, tmp_path: Path) -> None:
    """Packed at 6 mm and read at 7 mm a patient is what it is without packing, its contrast as well."""
    (case,) = (case for case in training_cases([cohort], ModelConfig().modalities) if case.name == "P3")
    scripts("pack_patients").write_packed(case, tmp_path / "P3")
    assert sorted(file.name for file in (tmp_path / "P3").iterdir()) == ["P3_flair.nii.gz", "P3_seg.nii.gz"]
    config = ModelConfig(spacing_mm=(7.0, 7.0, 7.0))
    (packed,) = read_all([tmp_path], config).values()
    plain = read_training_patient(case, config)
    np.testing.assert_allclose(packed.images, plain.images, atol=0.03)
    np.testing.assert_array_equal(packed.classes, plain.classes)
    assert plain.images[3].std() > 0.1


def test_parts_are_filled_up_to_their_size(scripts: Any, tmp_path: Path) -> None:
    """Of 60, 60, 30 and 45 bytes in parts of 100: 60 and 30; 60; 45 goes to neither but beside the second 60."""
    parts = scripts("pack_patients").Parts(tmp_path / "parts", 100)
    for name, size in (("a", 60), ("b", 60), ("c", 30), ("d", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image").write_bytes(bytes(size))
        parts.take(tmp_path / name)
    assert parts.used == [90, 100]
    assert [sorted(p.name for p in part.iterdir()) for part in sorted(parts.output.iterdir())] == [
        ["a", "c"],
        ["b", "d"],
    ]
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "image").write_bytes(bytes(101))
    with pytest.raises(UsageError, match="e: 101 bytes, a part takes 100"):
        parts.take(tmp_path / "e")


def test_packing_refuses(scripts: Any, cohort: Path, tmp_path: Path) -> None:
    module = scripts("pack_patients")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        module.pack([cohort], tmp_path / "full", None, 64)
    (tmp_path / "split.json").write_text('{"train": ["P1", "P9"], "test": ["P8"]}')
    with pytest.raises(InputError, match="P9: named in the split but not found"):
        module.pack([cohort], tmp_path / "new", tmp_path / "split.json", 64)


def test_packing_says_who_is_left_out(
    scripts: Any, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, other = scripts("pack_patients"), tmp_path / "other"
    (other / "P3").mkdir(parents=True)
    (other / "P3" / "P3_flair.nii.gz").write_bytes((cohort / "P3" / "P3_flair.nii.gz").read_bytes())
    (tmp_path / "split.json").write_text('{"train": ["P3"]}')
    with pytest.raises(InputError, match=r"P3: named in the split .* 2 patients are named P3"):
        module.pack([cohort, other], tmp_path / "new", tmp_path / "split.json", 64)
    (other / "P3").rename(other / "P4")
    (other / "P4" / "P3_flair.nii.gz").rename(other / "P4" / "P4_flair.nii.gz")
    module.pack([other, cohort / "P3"], tmp_path / "parts", None, 64)
    assert "left out: P4: no truth" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "parts" / "part-01").iterdir()] == ["P3"]


def test_what_is_tried(scripts: Any) -> None:
    """At 1.25 mm 146 x 184 x 146 mm are 117 x 148 x 117 voxels, up to the next 8: 120 x 152 x 120."""
    found = list(scripts("fit_to_device").tries((96, 112, 96), 1.25, 8))
    assert found == [
        ((96, 112, 96), 1),
        ((112, 136, 112), 1),
        ((120, 152, 120), 1),
        ((120, 152, 120), 2),
        ((120, 152, 120), 4),
        ((120, 152, 120), 8),
    ]


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ([1, 2, 4, 8], 5, 2),  # the fourth takes too long
        ([1, 2, None, 3], 5, 1),  # the third does not fit
        ([9, 10], 5, 0),  # the first may take long
        ([1, 2], 5, 1),  # there are no more
    ],
)
def test_the_last_that_fits(scripts: Any, seconds: list[float | None], most: float, expected: int) -> None:
    candidates = [((16, 16, 16), index) for index in range(len(seconds))]
    best, _ = scripts("fit_to_device").largest(iter(candidates), lambda one: seconds[one[1]], most)
    assert best == candidates[expected]


def test_not_even_the_smallest_fits(scripts: Any) -> None:
    with pytest.raises(ResourceError, match="Out of memory at the smallest crop"):
        scripts("fit_to_device").largest(iter([((16, 16, 16), 1)]), lambda _: None, 5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--features", "x"),
        ("--features", "16,0"),
        ("--smallest", "96,96"),
        ("--seconds", "0"),
        ("--spacing", "nan"),
        ("--steps", "-1"),
    ],
)
def test_what_is_no_number_is_said(
    option: str, value: str, scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_to_device.py", "--seconds", "9", f"{option}={value}"])
    with pytest.raises(SystemExit) as end:
        scripts("fit_to_device").main()
    assert end.value.code == 2
    assert f"argument {option}: invalid" in capsys.readouterr().err


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | variables


def call(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / "train_on_device.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**variables), check=False)


def test_without_its_arguments_it_says_how_it_is_called() -> None:
    done = call("data")
    assert done.returncode == 2
    assert "DATA OUT MINUTES" in done.stderr


WITHOUT_PYTHON = {"DEVICE": "cpu", "PYTHON": "true"}  # every step succeeds at once and makes nothing


def test_patients_may_be_links_and_those_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    (tmp_path / "P1").mkdir()
    (data / "P2").mkdir(parents=True)
    (data / "P1").symlink_to(tmp_path / "P1")
    assert "2 patients" in call(data, out, 1, **WITHOUT_PYTHON).stdout
    (data / "P2").rmdir()
    assert "1 patients" in call(data, out, 1, **WITHOUT_PYTHON).stdout
    assert [path.name for path in (out / "patients").iterdir()] == ["P1"]
    assert (tmp_path / "P1").is_dir()


def test_two_patients_of_one_name_are_refused(tmp_path: Path) -> None:
    for part in ("part-01", "part-02"):
        (tmp_path / "parts" / part / "P1").mkdir(parents=True)
    done = call(tmp_path / "parts", tmp_path / "out", 1, **WITHOUT_PYTHON)
    assert done.returncode == 1
    assert "a patient of the same name lies in another part" in done.stderr


@pytest.mark.parametrize("minutes", ["soon", "-3", "1e2", ""])
def test_minutes_that_are_none(minutes: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = call(tmp_path / "data", tmp_path / "out", minutes, **WITHOUT_PYTHON)
    assert done.returncode == 2
    assert "expected minutes" in done.stderr


def test_an_output_among_the_patients_is_refused(tmp_path: Path) -> None:
    done = call(tmp_path, tmp_path / "out", 1, **WITHOUT_PYTHON)
    assert done.returncode == 2
    assert "Give an OUT elsewhere" in done.stderr


def pretend(path: Path, **scripts: str) -> str:
    """Write an interpreter that does nothing but, for a script or module whose name holds a word, what is said."""
    cases = "".join(f"*{word}*) {command} ;;\n" for word, command in scripts.items())
    path.write_text(f'#!/bin/bash\ncase "$*" in\n{cases}esac\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("step", ["fill_cache", "fit_to_device"])
def test_no_step_goes_on_when_the_time_is_up(step: str, tmp_path: Path) -> None:
    """1.8 s of a step that would take a minute."""
    (tmp_path / "data" / "P1").mkdir(parents=True)
    slow = pretend(tmp_path / "python", **{step: "exec sleep 60"})
    began = time.perf_counter()
    done = call(tmp_path / "data", tmp_path / "out", 0.03, DEVICE="cpu", PYTHON=slow)
    assert time.perf_counter() - began < 30
    assert done.returncode == 0
    assert "call again" in done.stdout
    assert not (tmp_path / "out" / "fit.txt").exists()


def test_a_training_that_is_killed_is_not_out_of_time(tmp_path: Path) -> None:
    """By a machine that ran out of memory; to call again would end in the same way."""
    (tmp_path / "data" / "P1").mkdir(parents=True)
    killed = pretend(tmp_path / "python", fit_to_device="echo --batch-size 1", a2fseg_cli="kill -9 $$")
    done = call(tmp_path / "data", tmp_path / "out", 5, DEVICE="cpu", PYTHON=killed)
    assert done.returncode == 137
    assert "killed before the time was up" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(cohort: Path, tmp_path: Path) -> None:
    done = call(cohort, tmp_path / "out", 1)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
    assert "DEVICE=cpu" in done.stderr


@pytest.mark.slow
def test_the_script_on_the_cpu(scripts: Any, cohort: Path, tmp_path: Path) -> None:
    """Packed, trained in two calls, the first too short to end; the weights come back in parts, with scores."""
    scripts("pack_patients").pack([cohort], tmp_path / "parts", cohort / "split.json", 0.07)
    assert len(list((tmp_path / "parts").glob("part-*"))) > 1
    out = tmp_path / "out"
    tiny = {"DEVICE": "cpu", "PRECISION": "fp32", "SPACING": "6", "FEATURES": "4,8", "CROP": "16,16,16"}
    tiny |= {"EPOCH": "10", "STEPS": "9999", "PART_BYTES": "10000", "TOTAL": "0.6", "RECIPE": "--dice-over regions"}
    first = call(tmp_path / "parts", out, 0.4, EVALUATION="0", **tiny)
    assert first.returncode == 0, first.stderr
    assert "the CUDA tests cannot run" in first.stdout
    assert "3 patients" in first.stdout
    assert "call again" in first.stdout
    assert not (out / "finished").exists()
    begun = (out / "run" / "last.ckpt").exists()  # a busy machine may not come so far

    second = call(tmp_path / "parts", out, 6, EVALUATION="1", **tiny)
    assert second.returncode == 0, second.stderr
    assert "trained to the end" in second.stdout
    assert ("training goes on" in second.stdout) == begun
    back = out / "back"
    parts = sorted(back.glob("best.safetensors.part-*"))
    assert len(parts) > 1
    assert max(part.stat().st_size for part in parts) <= 10000
    joined = tmp_path / "best.safetensors"
    with joined.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    assert hashlib.sha256(joined.read_bytes()).hexdigest() in (back / "SHA256SUMS").read_text()
    weights, _ = load_weights(joined, parameter_shapes)
    assert weights.config.spacing_mm == (6.0, 6.0, 6.0)
    assert weights.config.features_per_stage == (4, 8)
    text = (back / "README.txt").read_text()
    assert "cat best.safetensors.part-* > best.safetensors" in text
    assert "t1+t1c+t2+flair" in text or "FLAIR" in text
    assert (out / "scores").is_dir()

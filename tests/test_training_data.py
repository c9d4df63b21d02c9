"""Training patients: read, checked, preprocessed and cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from training_toys import (
    CONFIG,
    write_case,
)

from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.training import data as data_module
from a2fseg_cli.training.data import Sample, load_samples, read_training_patient


def load(cases: list[Case], config: ModelConfig, cache: Path) -> list[Sample]:
    return load_samples(cases, config, cache, lambda *_: None)


def test_samples_are_the_preprocessed_patient(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    told: list[tuple[str, int, int]] = []
    (sample,) = load_samples([case], CONFIG, tmp_path / "cache", lambda *args: told.append(args))
    assert told == [("one", 1, 1)]
    patient = read_training_patient(case, CONFIG)
    assert (sample.name, sample.present, patient.present) == ("one", (True, True), (True, True))
    assert (sample.images.dtype, sample.images.shape) == (np.float16, (2, 8, 10, 12))
    np.testing.assert_allclose(sample.images, patient.images, atol=2e-3)
    np.testing.assert_array_equal(sample.classes, patient.classes)
    assert sample.classes.sum() == 4 * 5 * 6
    assert sample.classes[2, 2, 2] == 1


def test_the_cache_is_used_and_rebuilt_when_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    done: list[str] = []
    real = read_training_patient

    def counted(case: Case, config: ModelConfig) -> Any:
        done.append(case.name)
        return real(case, config)

    monkeypatch.setattr(data_module, "read_training_patient", counted)
    (first,) = load([case], CONFIG, cache)
    (again,) = load([case], CONFIG, cache)
    assert len(done) == 1
    np.testing.assert_array_equal(first.images, again.images)
    load([case], replace(CONFIG, features_per_stage=(2, 4)), cache)
    assert len(done) == 1, "the widths do not touch the images"
    (coarse,) = load([case], replace(CONFIG, spacing_mm=(2.0, 2.0, 2.0)), cache)
    assert len(done) == 2
    assert coarse.images.shape == (2, 4, 5, 6)
    load([case], replace(CONFIG, modalities=("flair", "t1")), cache)
    assert len(done) == 3
    write_case(tmp_path, seed=1)
    (changed,) = load([case], CONFIG, cache)
    assert len(done) == 4
    assert not np.array_equal(changed.images, first.images)
    assert not list(cache.glob("*.partial"))


def test_a_patient_may_lack_a_modality_but_not_the_truth(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    (sample,) = load([replace(case, images={"flair": case.images["flair"]})], CONFIG, tmp_path / "cache")
    assert sample.present == (False, True)
    assert not sample.images[0].any()
    with pytest.raises(InputError, match="one: no truth beside the images"):
        read_training_patient(replace(case, truth=None), CONFIG)


def test_a_truth_with_unknown_labels_or_on_another_grid_is_refused(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    assert case.truth is not None
    for array in (np.full((12, 14, 16), 9, np.uint8), np.zeros((12, 14, 15), np.uint8)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(case.truth))
        with pytest.raises(InputError, match="one_seg"):
            load([case], CONFIG, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_brats_labels_of_either_scheme_are_read(tmp_path: Path) -> None:
    config = replace(ModelConfig(), features_per_stage=(4, 8), modalities=("t1", "flair"))
    case = write_case(tmp_path)
    assert case.truth is not None
    for enhancing in (3, 4):
        labels = np.zeros((12, 14, 16), np.uint8)
        labels[3, 3, 3:6] = 1, 2, enhancing
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(case.truth))
        assert read_training_patient(case, config).classes[1, 1, 1:4].tolist() == [1, 2, 3]


def test_the_same_image_as_two_sequences_is_refused(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    twice = replace(case, images=dict.fromkeys(("t1", "flair"), case.images["t1"]))
    with pytest.raises(InputError, match=r"t1 and flair are the same image: .*one_t1.nii.gz and .*one_t1.nii.gz"):
        load([twice], CONFIG, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_what_a_prediction_would_warn_of_is_kept_with_the_patient(tmp_path: Path) -> None:
    """Slices of 3 mm: said when the patient is preprocessed and when it comes from the cache."""
    case = write_case(tmp_path)
    for path in (*case.images.values(), case.truth):
        image = sitk.ReadImage(path)
        image.SetSpacing((1.0, 1.0, 3.0))
        sitk.WriteImage(image, path)
    for _ in range(2):
        (sample,) = load([case], CONFIG, tmp_path / "cache")
        assert [text.partition(";")[0] for text in sample.warnings] == ["2 images: thick slices (1 x 1 x 3 mm)"]
    assert load([write_case(tmp_path / "fine")], CONFIG, tmp_path / "cache")[0].warnings == ()

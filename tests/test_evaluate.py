"""`a2fseg evaluate` and what is under it: one encode for all subsets, the same masks, resuming, bad patients."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import a2fseg_cli.cli.evaluate as evaluate_module
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.cli.options import LEAST_OVERLAP
from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig, all_subsets, subset_name
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import A2FSegError, CohortError, InputError, ResourceError, UsageError
from a2fseg_cli.evaluation.cohort import Failure, score_cohort
from a2fseg_cli.evaluation.evaluate import Start, evaluate
from a2fseg_cli.evaluation.existing_masks import ExistingMasks
from a2fseg_cli.evaluation.kept_scores import KeptScores
from a2fseg_cli.evaluation.metrics import DEFAULT_METRICS, DEFAULT_POLICY, NSD_TOLERANCE_MM, TruthMask, score
from a2fseg_cli.evaluation.network_masks import NetworkMasks
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.result import EvaluationResult
from a2fseg_cli.imaging.label_maps import read_classes
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.imaging.preprocessing import CropStep, Reorient, Resample, Route
from a2fseg_cli.imaging.restoring import Box, classes_to_file
from a2fseg_cli.inference import predictor as predictor_module
from a2fseg_cli.inference.agreement import attention_inside
from a2fseg_cli.inference.patient import load_patient
from a2fseg_cli.inference.predictor import Segmenter, WindowOptions
from a2fseg_cli.reporting import charts
from a2fseg_cli.weights.cache import resolve_weights
from a2fseg_cli.weights.file_format import load_weights, save_weights

CONFIG = ModelConfig(features_per_stage=(4, 8), spacing_mm=(3.0, 3.0, 3.0), patch_size=(8, 8, 8))
ALL = tuple(all_subsets(CONFIG.modalities))
SOME = (("flair",), ("t1c", "flair"), CONFIG.modalities)
SHAPE = (22, 26, 24)
Labels = npt.NDArray[np.uint8]
Run = Callable[..., tuple[int, str, str]]


def write(array: npt.NDArray[Any], path: Path, origin: float = 0.0) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 2.5))
    image.SetOrigin((origin, 0.0, 0.0))
    image.SetDirection((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, path)


def truth(et: int = 3) -> Labels:
    """A tumour of 8 x 10 x 10 voxels: oedema round a core of necrosis (1) and enhancement."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[6:14, 8:18, 6:16] = 2
    labels[8:12, 10:16, 8:14] = et
    labels[9:11, 12:14, 10:12] = 1
    return labels


def make_patient(folder: Path, seed: int, modalities: tuple[str, ...] = CONFIG.modalities, et: int = 3) -> None:
    rng = np.random.default_rng(seed)
    brain = np.zeros(SHAPE, np.float32)
    brain[2:20, 3:24, 2:21] = 1
    for index, modality in enumerate(modalities):
        image = brain * (200 + 30 * rng.normal(size=SHAPE) + 60 * (index + 1) * (truth() > 0))
        write(image.astype(np.float32), folder / f"{folder.name}_{modality}.nii.gz")
    write(truth(et), folder / f"{folder.name}_seg.nii.gz")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients: A and B with four modalities, C without T1."""
    folder = tmp_path_factory.mktemp("data")
    make_patient(folder / "A", 1)
    make_patient(folder / "B", 2, et=4)
    make_patient(folder / "C", 3, ("t1c", "t2", "flair"))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network; its masks are as good as any for tests of bookkeeping."""
    torch.manual_seed(3)
    network = A2FSeg(CONFIG)
    torch.nn.init.zeros_(network.head.bias)  # undecided, so that there are masks
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    save_weights(path, network.state_dict(), CONFIG, {"name": "toy"})
    return path


def load(weights: Path, precision: str = "fp32", inference: WindowOptions | None = None) -> Segmenter:
    return Segmenter(weights, choose_compute("cpu", precision), inference)


@pytest.fixture
def run(run: Run) -> Run:
    """Run `a2fseg evaluate` in this process; returns exit code, stdout, stderr."""
    return partial(run, "evaluate")


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a small run's time; `test_all_subsets_to_files` draws."""
    for name in ("write_dice_boxes", "write_attention_bars"):
        monkeypatch.setattr(charts, name, lambda *_: None)


def scores_of(
    cases: list[Case], source: NetworkMasks | ExistingMasks, folder: Path | None = None
) -> list[PatientScores]:
    return score_cohort(cases, source, KeptScores(source, source.options, folder), lambda *_: None)


class TestManySubsets:
    @pytest.mark.parametrize(
        ("inference", "subsets"),
        [(WindowOptions(), ALL), (WindowOptions((16, 16, 16)), SOME), (WindowOptions(tta=True), SOME)],
    )
    def test_scores_equal_separate_runs(
        self, cohort: Path, weights: Path, inference: WindowOptions, subsets: tuple[tuple[str, ...], ...]
    ) -> None:
        segmenter = load(weights, inference=inference)
        case = find_cases(cohort)[0]
        (together,) = scores_of([case], NetworkMasks(segmenter, ScoringOptions(subsets)))

        assert case.truth is not None
        patient, true = load_patient(case, CONFIG), read_classes(case.truth, CONFIG)
        foreground = 0
        for subset in subsets:
            alone = segmenter.segment(patient.prepared.images, CONFIG.presence(subset))
            grid = Box((0, 0, 0), patient.geometry.size)
            classes = classes_to_file(patient.prepared.route, alone.probabilities).placed(grid)
            foreground += np.count_nonzero(classes)
            for region, _ in CONFIG.regions:
                members = CONFIG.region_classes(region)
                reference = TruthMask(region_mask(true.classes, members), patient.geometry.spacing_mm)
                expected = score(reference, region_mask(classes, members))
                name = subset_name(subset, CONFIG.modalities)
                (row,) = [row for row in together.rows if (row.subset, row.region) == (name, region)]
                assert row.counts == vars(expected.counts)
                assert row.values == pytest.approx(expected.values)
        assert foreground > 60 * len(subsets)  # else nothing was compared

    def test_leaving_out_the_padding_changes_nothing(self, weights: Path) -> None:
        """A volume of 17 x 19 x 15 in one window of multiples of the stride: as the network says of all of it."""
        segmenter = load(weights)
        images = np.random.default_rng(1).normal(size=(4, 17, 19, 15)).astype(np.float32)
        found = segmenter.segment(images, (True, True, False, True), attention=True)
        assert len(found.plan.starts) == 1
        assert found.plan.padded != found.plan.shape
        pad = [(0, 0), *((0, p - s) for p, s in zip(found.plan.padded, found.plan.shape, strict=True))]
        window = torch.from_numpy(np.pad(images, pad))[None]
        features = segmenter.model.encode(window, (True, True, False, True))
        whole = segmenter.model.fuse(features, (True, True, False, True), attention=True)
        expected = whole.logits.softmax(dim=1)[0, :, :17, :19, :15]
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        for m, weight in whole.attention.items():
            np.testing.assert_allclose(found.attention[m], weight[0, 0, :17, :19, :15], atol=1e-5)

    def test_bf16_agrees_with_separate_runs(self, weights: Path) -> None:
        segmenter = load(weights, "bf16")
        images = np.random.default_rng(0).normal(size=(4, 18, 20, 16)).astype(np.float32)
        masks = [CONFIG.presence(subset) for subset in ALL]
        together = [found.probabilities.argmax(axis=0) for found in segmenter.segment_subsets(images, masks)]
        alone = [segmenter.segment(images, mask).probabilities.argmax(axis=0) for mask in masks]
        same = sum(int(np.count_nonzero((a == b) & (a > 0))) for a, b in zip(together, alone, strict=True))
        sizes = sum(int(np.count_nonzero(a)) for a in (*together, *alone))
        assert 2 * same / sizes >= 0.999

    def test_slabs_and_groups_share_one_encode(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Slabs of 3 planes, the logits of 4 subsets at a time: as all at once, and the encoders run once."""
        segmenter = load(weights)
        images = np.random.default_rng(0).normal(size=(4, 11, 8, 8)).astype(np.float32)
        masks = [CONFIG.presence(subset) for subset in ALL]
        flags = [index % 7 == 0 for index in range(len(ALL))]
        expected = list(segmenter.segment_subsets(images, masks, flags))
        encoded, fused = [], []
        for name, encoder in segmenter.model.encoders.items():
            encoder.register_forward_hook(lambda *_, name=name: encoded.append(name))
        segmenter.model.head.register_forward_hook(lambda *_: fused.append(1))
        voxels = 12 * 8 * 8  # with the one plane of padding that the kernel reaches
        monkeypatch.setattr(predictor_module, "MOST_LOGITS_BYTES", 4 * (4 * 4 * voxels))
        monkeypatch.setattr(predictor_module, "SLAB_VOXELS", 3 * 8 * 8)
        results = segmenter.segment_subsets(images, masks, flags)
        found = [next(results)]
        assert len(fused) == 4 * 4  # the other eleven do not exist yet
        found += results
        assert sorted(encoded) == sorted(CONFIG.modalities)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)
            assert a.attention.keys() == b.attention.keys()
            for m, weight in a.attention.items():
                np.testing.assert_allclose(weight, b.attention[m], atol=1e-6)

    def test_fifteen_subsets_get_the_windows_of_one(self) -> None:
        """8 features: 9 x 8 maps of a U-Net's last stage are more than 15 x 4 logits; mirroring keeps those as well."""
        path = resolve_weights(None)
        plain = load(path, "bf16", WindowOptions(tta=False))
        one, all_ = (plain.bytes_per_voxel(4, subsets) for subsets in (1, 15))
        assert one == all_ == 2 * 8 * (4 + 9) + 12 * 4
        mirrored = load(path, "bf16", WindowOptions(tta=True))
        assert mirrored.bytes_per_voxel(4, 15) == all_ + 4 * 15 * 4

    def test_slabs_of_one_subset(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        segmenter = load(weights)
        images = np.random.default_rng(0).normal(size=(4, 11, 8, 8)).astype(np.float32)
        whole = segmenter.segment(images, (True, False, True, True), attention=True)
        monkeypatch.setattr(predictor_module, "SLAB_VOXELS", 3 * 8 * 8)
        slabs = segmenter.segment(images, (True, False, True, True), attention=True)
        np.testing.assert_allclose(slabs.probabilities, whole.probabilities, atol=1e-6)
        assert len(whole.attention) == 3
        for m, weight in whole.attention.items():
            np.testing.assert_allclose(slabs.attention[m], weight, atol=1e-6)

    def test_several_windows_sum_up_few_subsets_at_a_time(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        segmenter = load(weights, inference=WindowOptions((8, 8, 8)))
        images = np.random.default_rng(0).normal(size=(4, 12, 8, 8)).astype(np.float32)
        masks = [CONFIG.presence(subset) for subset in ALL]
        expected = list(segmenter.segment_subsets(images, masks))
        assert len(expected[0].plan.starts) == 2
        encoded = []
        segmenter.model.encoders["t1"].register_forward_hook(lambda *_: encoded.append(1))
        monkeypatch.setattr(predictor_module, "MOST_LOGITS_BYTES", 4 * (4 * 4 * 12 * 8 * 8))
        found = list(segmenter.segment_subsets(images, masks))
        # Groups of 4, 4, 4 and 3 subsets, two windows each; the first group, up to T1c alone, has no T1 to encode.
        assert len(encoded) == 2 * sum(any("t1" in subset for subset in ALL[i : i + 4]) for i in (0, 4, 8, 12))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)

    @settings(max_examples=30)
    @given(
        st.tuples(*[st.tuples(st.integers(1, 9), st.integers(1, 12))] * 3),
        st.permutations(range(3)),
        st.sets(st.integers(0, 2)),
        st.integers(0, 2**32 - 1),
    )
    def test_way_back_equals_the_whole_grid(
        self, edges: Any, permutation: list[int], flips: set[int], seed: int
    ) -> None:
        network, source = tuple(n for n, _ in edges), tuple(m for _, m in edges)
        canonical = tuple(m + 3 for m in source)
        crop = CropStep(canonical, (1, 0, 2), tuple(a + m for a, m in zip((1, 0, 2), source, strict=True)))  # type: ignore[arg-type]
        route = Route(Reorient(tuple(permutation), tuple(sorted(flips))), crop, Resample(source, network))
        rng = np.random.default_rng(seed)
        probabilities = rng.random((4, *network), dtype=np.float32)
        probabilities[0] += rng.choice([0.0, 0.5, 0.9, 2.0])  # everything, a part, little or nothing is foreground
        winners = np.argmax([route.resample.undo(share) for share in probabilities], axis=0).astype(np.uint8)
        expected = route.reorient.undo(route.crop.undo(winners))
        found = classes_to_file(route, probabilities).placed(Box((0, 0, 0), expected.shape))  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, expected)

    def test_attention_inside_true_classes(self) -> None:
        classes = np.array([[[0, 1, 1, 3]]], np.uint8)
        maps = {"t1": np.array([[[9.0, 0.2, 0.4, 0.7]]]), "t2": np.array([[[9.0, 0.8, 0.6, 0.3]]])}
        assert attention_inside(maps, classes, CONFIG.classes) == {
            "NCR": pytest.approx({"t1": 0.3, "t2": 0.7}),
            "ET": pytest.approx({"t1": 0.7, "t2": 0.3}),
        }


class TestCommand:
    def test_all_subsets_to_files(self, cohort: Path, weights: Path, tmp_path: Path, run: Run) -> None:
        out = tmp_path / "scores"
        card = tmp_path / "scored.safetensors"
        options = [
            "--all-subsets",
            "--weights",
            weights,
            "-o",
            out,
            "--precision",
            "fp32",
            "--figure",
            "A",
            "--threads",
            2,
        ]
        code, stdout, stderr = run(cohort, *options, "--compare", "paper", "--write-card", card)
        assert code == 0, stderr
        assert f"{card}: sha256 " in stderr
        assert "91.48" in stdout  # WT from FLAIR alone, as published
        assert "88.58" in stdout  # mmFormer's mean of WT, as published
        assert "other patients than ours" in stdout
        assert "brats2018 (ET is 4)" in stderr
        assert "8 subsets left out" in stderr
        with (out / "scores.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == (15 + 15 + 7) * 3
        assert {row["policy"] for row in rows} == {"brats2020"}
        content = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
        assert content["patients"]["scored"] == ["A", "B", "C"]
        assert content["patients"]["left_out_of_subsets"]["t1"] == 1
        assert content["scores"]["flair"]["WT"]["dice"]["n"] == 3
        assert content["scores"]["t1"]["WT"]["dice"]["n"] == 2
        assert sum(row["mean"] for row in content["attention"]["ED"].values()) == pytest.approx(1, abs=1e-4)
        by_hand = np.mean([float(row["dice"]) for row in rows if (row["subset"], row["region"]) == ("t2", "TC")])
        assert content["scores"]["t2"]["TC"]["dice"]["mean"] == pytest.approx(by_hand)
        assert (out / "table.md").read_text().count("\n| ") == (2 + 3) * 18  # heading, rule, 15 subsets, means
        assert r"\begin{tabular}" in (out / "table.tex").read_text()
        for name in ("dice.png", "attention.png", "progression_A.png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG"), name

        file, tensors = load_weights(card, parameter_shapes)
        code, _, stderr = run(cohort, "--all-subsets", "--weights", weights, "--write-card", card)
        assert code == 2
        assert "scored.safetensors exists" in stderr
        _, originals = load_weights(weights, parameter_shapes)
        assert all(torch.equal(tensors[name], originals[name]) for name in originals)
        assert file.card["name"] == "toy"
        assert file.card["scores"]["patients"] == 3
        assert file.card["scores"]["patients_of_subsets"]["t1+t1c+t2+flair"] == 2  # C lacks T1
        assert file.card["scores"]["patients_of_subsets"]["flair"] == 3
        assert file.card["scores"]["subsets"]["t2"]["TC"] == pytest.approx(by_hand)

    def test_named_subsets_and_split(self, cohort: Path, weights: Path, tmp_path: Path, run: Run) -> None:
        split = tmp_path / "split.json"
        split.write_text(json.dumps({"train": ["B"], "test": ["A", "C"]}))
        options = ["--weights", weights, "--json", "--metrics", "dice", "--subset", "FLAIR+t1c", "--subset", "t2"]
        code, stdout, stderr = run(cohort, "--split", f"{split}:test", *options)
        assert code == 0, stderr
        content = json.loads(stdout)
        assert content["patients"]["scored"] == ["A", "C"]
        assert list(content["scores"]) == ["t2", "t1c+flair"]
        assert list(content["scores"]["t2"]["WT"]) == ["dice", "decided_by_convention"]

        assert run(cohort, "--split", split, *options)[0] == 2  # which part?
        split.write_text(json.dumps({"test": ["A", "Z"]}))
        code, _, stderr = run(cohort, "--split", split, *options)
        assert code == 3
        assert "Z" in stderr

    def test_default_is_all_present(self, cohort: Path, weights: Path, run: Run) -> None:
        code, stdout, stderr = run(cohort, "--weights", weights, "--json", "-q")
        assert code == 0, stderr
        scores = json.loads(stdout)["scores"]
        assert {name: scores[name]["ET"]["dice"]["n"] for name in scores} == {"t1c+t2+flair": 1, "t1+t1c+t2+flair": 2}

    @pytest.mark.usefixtures("no_charts")
    def test_bad_patients_are_reported_and_the_rest_goes_on(
        self, cohort: Path, weights: Path, tmp_path: Path, run: Run
    ) -> None:
        data, card = tmp_path / "data", tmp_path / "card.safetensors"
        shutil.copytree(cohort, data)
        (data / "A" / "A_t2.nii.gz").write_bytes(b"no image")
        labels = truth()
        labels[0, 0, 0] = 9
        write(labels, data / "B" / "B_seg.nii.gz")
        write(truth(), data / "D" / "D_t1.nii.gz")
        code, stdout, stderr = run(data, "--weights", weights, "--json", "-o", tmp_path / "out")
        assert code == 1
        content = json.loads(stdout)
        more = ("--all-subsets", "--write-card", card, "--figure", "A", "-o", tmp_path / "all")
        code, _, stderr = run(data, "--weights", weights, *more)
        assert code == 1
        assert "A could not be scored; the figure was not drawn" in stderr
        assert "1 of 4 patients are scored" in stderr
        assert not card.exists()
        assert content["patients"]["scored"] == ["C"]
        assert "A_t2.nii.gz" in content["patients"]["failed"]["A"]
        assert "unknown label 9" in content["patients"]["failed"]["B"]
        assert "no truth" in content["patients"]["failed"]["D"]
        assert "3 of 4 patients could not be scored" in stderr

    def test_truth_on_another_grid(self, cohort: Path, weights: Path, tmp_path: Path, run: Run) -> None:
        data = tmp_path / "data"
        shutil.copytree(cohort, data)
        write(truth(), data / "A" / "A_seg.nii.gz", origin=5.0)
        code, _, stderr = run(data, "--weights", weights)
        assert code == 1
        assert "corners 5 mm away" in stderr

    @pytest.mark.parametrize(
        "options",
        [
            ["--all-subsets", "--subset", "t1"],
            ["--subset", "t1+x"],
            ["--metrics", "dice,x"],
            ["--policy", "x"],
            ["--labels", "x"],
            ["--compare", "x"],
            ["--figure", "A"],
            ["--figure", "Z", "-o", "out"],
            ["--write-card", "x.safetensors"],
            ["--predictions", "x", "--all-subsets"],
            ["--predictions", "x", "--tta"],
            ["--predictions", "x", "--window", "64"],
            ["--prediction-labels", "brats2018"],
            ["--predictions", "x", "--device", "cpu"],
            ["--predictions", "x", "--overlap", "0.25"],
            ["--metrics", "nsd", "--nsd-tolerance", "-1"],
            ["--nsd-tolerance", "2"],
            ["--nsd-tolerance", "1"],
            ["--compare", "paper", "--metrics", "hd95"],
            ["--write-card", "x.safetensors", "--all-subsets", "--metrics", "hd95"],
            ["--predictions", "x", "--precision", "int99"],
            ["--predictions", "x", "--figure", "A", "-o", "out"],
            ["--prediction-labels", "NCR=1,ED=2,ET=3"],
            ["--overwrite"],
            ["--overlap", "1"],
            ["--num-parts", "2"],
            ["--part-id", "2"],
            ["--num-parts", "2", "--part-id", "2"],
        ],
    )
    def test_contradictions_are_refused(self, cohort: Path, weights: Path, run: Run, options: list[str]) -> None:
        code, stdout, stderr = run(cohort, "--weights", weights, *options)
        assert code == 2
        assert stdout == ""
        assert stderr.startswith("Error: ") or "\nError: " in stderr

    def test_a_lost_stdout_loses_no_scores(
        self, cohort: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As `| head` does it: the reader of stdout is gone when the first table is printed."""

        def closed(*_: object, **__: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr(evaluate_module, "print_table", closed)
        with pytest.raises(BrokenPipeError):
            run(cohort, "--subset", "flair", "--weights", weights, "-o", tmp_path, "--threads", 2)
        names = {path.name for path in tmp_path.iterdir()}
        assert {"scores.csv", "summary.json", "table.md", "table.tex", "dice.png"} <= names
        with (tmp_path / "scores.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 3 * 3


class TestLibrary:
    def test_one_call_returns_everything_and_prints_nothing(
        self, cohort: Path, weights: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        starts: list[Start] = []
        outcomes: list[str] = []
        result = evaluate(
            str(cohort),
            subsets=["FLAIR+t1c", ("t2",)],
            weights=str(weights),
            metrics=["dice"],
            device="cpu",
            on_start=starts.append,
            on_patient=lambda outcome, taken_over: outcomes.append(f"{outcome.case} {taken_over}"),
        )
        assert capfd.readouterr() == ("", "")
        assert [(start.patients, start.share) for start in starts] == [(3, "")]
        assert starts[0].network.endswith("; toy")
        assert outcomes == ["A False", "B False", "C False"]
        assert [scores.case for scores in result.patients] == ["A", "B", "C"]
        assert list(result.summary["scores"]) == ["t2", "t1c+flair"]
        assert result.tables[0].rows[0][:4] == ("-", "-", "x", "-")
        assert (result.failures, result.warnings, result.notes, result.share) == ((), (), (), "")
        assert (result.asked, result.files) == (3, ())
        result.raise_for_failed()

    def test_the_only_patient_fails_with_its_own_error(self, cohort: Path, weights: Path, tmp_path: Path) -> None:
        """Out of memory, say, is exit code 5 and not 3."""
        shutil.copytree(cohort / "A", tmp_path / "A")
        (tmp_path / "A" / "A_seg.nii.gz").unlink()
        result = evaluate(tmp_path, weights=weights)
        assert (result.patients, result.tables, result.asked) == ((), (), 1)
        with pytest.raises(InputError, match="A: no truth beside the images"):
            result.raise_for_failed()
        error = ResourceError("out of memory")
        with pytest.raises(ResourceError, match="out of memory"):
            replace(result, failures=(Failure("A", error),)).raise_for_failed()
        with pytest.raises(CohortError, match="2 of 3 patients could not be scored: A, B"):
            replace(result, failures=(Failure("A", error), Failure("B", error)), asked=3).raise_for_failed()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"predictions": "x", "subsets": "all"}, "subsets would run the network"),
            ({"predictions": "x", "precision": "bf16", "tta": True}, "precision, tta would run the network"),
            ({"prediction_labels": "brats2018"}, "prediction_labels needs predictions"),
            ({"metrics": ["dise"]}, "metrics dise: expected some of dice"),
            ({"metrics": []}, "expected some of dice"),
            ({"policy": "brats2021"}, "'brats2021'; expected one of brats2020"),
            ({"nsd_tolerance_mm": -1.0}, "nsd_tolerance_mm -1: expected 0 mm or more"),
            ({"nsd_tolerance_mm": 2.0}, "nsd_tolerance_mm 2: needs nsd among the metrics"),
            ({"nsd_tolerance_mm": math.nan}, "nsd_tolerance_mm nan: expected 0 mm or more"),
            ({"overlap": 1.0}, "overlap 1.0: expected 0 up to"),
            ({"compare": "paper", "metrics": ["hd95"]}, "dice among the metrics"),
            ({"compare": "me"}, "compare me: expected paper"),
            ({"figure": "A"}, "figure needs an output folder"),
            ({"write_card": "x.safetensors"}, "expected all subsets"),
            ({"write_card": "x.safetensors", "subsets": "all", "tta": False}, "as predict runs it, without tta"),
            ({"subsets": ["t1+x"]}, r"subset t1\+x: expected some of t1, t1c, t2, flair"),
            ({"subsets": [""]}, "expected some of t1"),
            ({"split": "nowhere.json:a"}, "nowhere.json"),
        ],
    )
    def test_messages_name_parameters(self, cohort: Path, weights: Path, options: dict[str, Any], said: str) -> None:
        with pytest.raises(A2FSegError, match=said) as raised:
            evaluate(cohort, weights=weights, **options)
        assert "--" not in str(raised.value)


class TestShares:
    def test_parts_add_up(self, cohort: Path, weights: Path, tmp_path: Path, no_charts: None) -> None:
        def part(number: int) -> EvaluationResult:
            return evaluate(cohort, weights=weights, subsets="flair", output=tmp_path, num_parts=2, part_id=number)

        first, second = part(0), part(1)
        assert [scores.case for scores in first.patients] == ["A", "C"]
        assert first.share == "2 of 3 patients (num_parts 2, part_id 0)"
        assert [scores.case for scores in second.patients] == ["A", "B", "C"]
        assert (second.asked, second.share) == (1, "3 of 3 patients (num_parts 2, part_id 1)")

    def test_a_slurm_array_is_said_wherever_its_numbers_are(
        self, cohort: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, no_charts: None
    ) -> None:
        slurm_array(monkeypatch, 3, 1)
        said = "1 of 3 patients (SLURM array)"
        code, stdout, _ = run(cohort, "--weights", weights, "--subset", "t2", "-o", tmp_path, "--quiet")
        assert code == 0
        assert all(said in line for line in stdout.splitlines() if ", mean over patients" in line)
        assert stdout.count(said) == 2  # of Dice and HD95
        assert said in (tmp_path / "table.md").read_text()
        assert said in (tmp_path / "table.tex").read_text()
        assert json.loads((tmp_path / "summary.json").read_text())["patients"]["share"] == said

    def test_a_share_without_patients_is_no_success(
        self, cohort: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slurm_array(monkeypatch, 8, 7)
        code, stdout, stderr = run(cohort, "--weights", weights, "-o", tmp_path / "out", "--quiet")
        assert (code, stdout) == (2, "")
        assert "0 of 3 patients (SLURM array): none for part 7 of 8. Take at most as many parts" in stderr
        assert not (tmp_path / "out").exists()


def mean_dice(stdout: str, region: str) -> float:
    return float(json.loads(stdout)["scores"]["predictions"][region]["dice"]["mean"])


def slurm_array(monkeypatch: pytest.MonkeyPatch, count: int, index: int) -> None:
    for name, value in (("COUNT", count), ("ID", index), ("MIN", 0)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


@pytest.mark.usefixtures("no_charts")
class TestResuming:
    def test_only_what_is_missing_is_scored(
        self, cohort: Path, weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = [cohort, "--weights", weights, "-o", tmp_path, "--json"]
        assert run(*options)[0] == 0
        expected = (tmp_path / "scores.csv").read_text()
        (tmp_path / "patients" / "B.json").unlink()
        segmented = []
        original = Segmenter.segment_subsets

        def counted(self: Segmenter, *arguments: Any) -> Any:
            segmented.append(1)
            return original(self, *arguments)

        monkeypatch.setattr(Segmenter, "segment_subsets", counted)
        code, _, stderr = run(*options)
        assert code == 0
        assert len(segmented) == 1
        assert stderr.count("scored before") == 2
        assert (tmp_path / "scores.csv").read_text() == expected

        code, _, stderr = run(*options, "--metrics", "dice")
        assert code == 2
        assert "overwrite" in stderr
        code, stdout, _ = run(*options, "--metrics", "dice", "--overwrite")
        assert code == 0
        assert len(segmented) == 1 + 3
        assert "hd95_mm" not in stdout

    def test_a_damaged_file_of_scores_is_scored_again_on_request(
        self, cohort: Path, weights: Path, tmp_path: Path
    ) -> None:
        case = find_cases(cohort)[0]
        source = NetworkMasks(load(weights), ScoringOptions((("t1",),)))
        (scores,) = scores_of([case], source, tmp_path)
        assert PatientScores.read(tmp_path / "patients" / "A.json") == scores
        (tmp_path / "patients" / "A.json").write_text("{")
        assert KeptScores(source, source.options, tmp_path).read(case) is None
        with pytest.raises(UsageError, match=r"A\.json exists"):
            scores_of([case], source, tmp_path)

    def test_undefined_scores_survive_the_file(self, tmp_path: Path, cohort: Path) -> None:
        empty = tmp_path / "predictions"
        write(np.zeros(SHAPE, np.uint8), empty / "A.nii.gz")
        case = find_cases(cohort)[0]
        source = ExistingMasks.of_folder(empty, [case], CONFIG, ScoringOptions(policy="nan"))
        (scores,) = scores_of([case], source, tmp_path)
        known = KeptScores(source, source.options, tmp_path).read(case)
        assert json.dumps(vars(known), default=vars) == json.dumps(vars(scores), default=vars)  # NaN is not NaN
        assert known is not None
        assert [row.values["dice"] for row in known.rows] == [0, 0, 0]
        assert all(np.isnan(row.values["hd95_mm"]) for row in known.rows)
        assert {row.convention for row in known.rows} == {"one_empty"}


@pytest.mark.usefixtures("no_charts")
class TestPredictions:
    def score(self, cohort: Path, folder: Path, **options: Any) -> dict[str, PatientScores | Failure]:
        outcomes: dict[str, PatientScores | Failure] = {}
        report = lambda outcome, _: outcomes.update({outcome.case: outcome})  # noqa: E731
        evaluate(cohort, predictions=folder, on_patient=report, **options)
        return outcomes

    def test_files_of_any_tool(self, cohort: Path, tmp_path: Path) -> None:
        write(truth(4), tmp_path / "A_seg.nii.gz")  # another scheme than A's truth
        write(truth().astype(np.float64), tmp_path / "A_seg_prob_WT.nii.gz")  # no candidate
        shifted = np.roll(truth(), 4, axis=0)
        write(shifted, tmp_path / "B" / "segmentation.nrrd")
        found = self.score(cohort, tmp_path)
        a, b, c = (found[name] for name in "ABC")
        assert isinstance(a, PatientScores)
        assert isinstance(b, PatientScores)
        assert isinstance(c, PatientScores)
        assert [row.values for row in a.rows] == [{"dice": 1.0, "hd95_mm": 0.0}] * 3
        # WT is 8 x 10 x 10 voxels, moved by half its height; ET 4 x 6 x 6 less NCR, moved by all of it.
        assert b.rows[0].values["dice"] == 0.5
        assert b.rows[2].values["dice"] == 0
        assert not a.missing
        assert c.missing
        assert c.rows[0].values == {"dice": 0.0, "hd95_mm": pytest.approx(373.12866)}
        assert c.rows[0].counts["predicted_voxels"] == 0
        assert "no prediction found" in c.notes[0]

    def test_two_candidates_other_grid_unknown_label(self, cohort: Path, tmp_path: Path) -> None:
        write(truth(), tmp_path / "A.nii.gz")
        write(truth(), tmp_path / "A_pred.nii.gz")
        write(truth()[1:], tmp_path / "B.nii.gz")
        write(truth(7), tmp_path / "C.nii.gz")
        reasons = {name: o.reason for name, o in self.score(cohort, tmp_path).items() if isinstance(o, Failure)}
        assert "2 candidates for A: A.nii.gz, A_pred.nii.gz" in reasons["A"]
        assert "another grid (24 x 26 x 21)" in reasons["B"]
        assert "unknown label 7" in reasons["C"]

    def test_scheme_of_the_predictions_can_be_named(self, cohort: Path, tmp_path: Path) -> None:
        for name in "ABC":
            write(truth(3), tmp_path / f"{name}.nii.gz")
        found = self.score(cohort, tmp_path, prediction_labels="brats2018")
        assert all(isinstance(o, Failure) and "unknown label 3" in o.reason for o in found.values())

    def test_command(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        for name in "AB":
            write(truth(), tmp_path / "in" / f"{name}_seg.nii.gz")
        code, stdout, stderr = run(cohort, "--predictions", tmp_path / "in", "-o", tmp_path / "out")
        assert code == 0, stderr
        assert "no prediction for C" in stderr
        assert "66.67" in stdout  # 1, 1 and 0
        with (tmp_path / "out" / "scores.csv").open() as file:
            assert [row["prediction"] for row in csv.DictReader(file)] == [""] * 6 + ["missing"] * 3

    def test_nnunets_own_order_is_read_from_its_file(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        """nnU-Net's BraTS: 1 oedema, 2 necrosis, 3 enhancing. Read as BraTS, the core would be oedema."""
        nnunet = np.array([0, 2, 1, 3], np.uint8)[truth()]
        for name in "ABC":
            write(nnunet, tmp_path / f"{name}.nii.gz")
        options = ["--predictions", tmp_path, "--metrics", "dice", "--json"]
        code, stdout, stderr = run(cohort, *options)
        # 656 voxels oedema, 136 enhancing, 8 necrosis. The core read is 656 + 136, of the true 144 it has 136.
        assert (code, mean_dice(stdout, "TC")) == (0, pytest.approx(2 * 136 / (144 + 792)))
        assert "labels of NCR and ED exchanged: mean Dice of TC 100.0 % instead of 29.1 %" in stderr
        code, stdout, stderr = run(cohort, *options, "--prediction-labels", "ncr=2, ED=1,ET=3")
        assert (code, mean_dice(stdout, "TC")) == (0, 1)
        assert json.loads(stdout)["prediction_label_order"]["values"] == {"NCR": 2, "ED": 1, "ET": 3}
        assert "exchanged" not in stderr

        labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        code, stdout, stderr = run(cohort, *options, "-q")
        assert (code, mean_dice(stdout, "TC")) == (0, 1)
        assert f"read as NCR=2,ED=1,ET=3 ({tmp_path / 'dataset.json'})" in stderr
        assert "exchanged" not in stderr
        result = evaluate(cohort, predictions=tmp_path, prediction_labels="brats2023", metrics=["dice"])
        assert len(result.warnings) == 1  # what the user says counts more than the file

    def test_surfaces_agree_up_to_the_tolerance_asked_for(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        """The truth moved by one voxel of 2 mm: surfaces up to 2 mm apart, so 2.1 mm is enough and 1.9 is not."""
        for name in "ABC":
            write(np.roll(truth(), 1, axis=2), tmp_path / f"{name}_seg.nii.gz")
        shares = {}
        for tolerance in ("1.9", "2.1"):
            options = ["--predictions", tmp_path, "--metrics", "nsd", "--nsd-tolerance", tolerance]
            code, stdout, stderr = run(cohort, *options)
            assert code == 0, stderr
            assert f"at {tolerance} mm" in stdout
            code, stdout, _ = run(cohort, *options, "--json")
            shares[tolerance] = json.loads(stdout)["scores"]["predictions"]["WT"]["nsd"]["mean"]
        assert shares["2.1"] == 1
        assert 0 < shares["1.9"] < 0.9

    def test_quiet_still_says_what_was_assumed(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        for name in "ABC":
            write(truth(4), tmp_path / f"{name}.nii.gz")
        code, _, stderr = run(cohort, "--predictions", tmp_path, "-q")
        assert code == 0
        assert "labels read as brats2018" in stderr

    def test_the_wrong_folder_is_said(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        code, _, stderr = run(cohort, "--predictions", tmp_path)
        assert code == 3
        assert "no prediction for any of the 3 patients" in stderr


def test_the_commands_defaults_are_the_metrics() -> None:
    """Written twice, so that --help does not load the metrics."""
    assert (DEFAULT_POLICY, ",".join(DEFAULT_METRICS)) == (evaluate_module.POLICY, evaluate_module.METRICS)
    assert evaluate_module.NSD_TOLERANCE_MM == NSD_TOLERANCE_MM
    assert WindowOptions().overlap == LEAST_OVERLAP

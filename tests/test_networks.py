"""The seam for another network: what every row of the registry keeps, and a toy that goes through all commands."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

import a2fseg_cli.inference.predictor as predictor_module
from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.network import Network, Output, Present, TrainingOutputs
from a2fseg_cli.core.networks import (
    ARCHITECTURES,
    build_network,
    parameter_shapes,
    parameters_of_classes,
    registered,
)
from a2fseg_cli.errors import ResourceError, UsageError, WeightsError
from a2fseg_cli.inference.predictor import Predictor, Segmenter, WindowOptions
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.initial import initial_weights
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.recipe import RECIPES, Recipe
from a2fseg_cli.training.run_folder import RunFolder
from a2fseg_cli.weights.file_format import inspect_weights, save_weights

CPU = Compute(torch.device("cpu"), "fp32", "for the tests")
CONFIG = ModelConfig(features_per_stage=(4, 8), patch_size=(8, 8, 8))
SUBSETS = [CONFIG.presence(names) for names in all_subsets(CONFIG.modalities)]


class Toy(Network):
    """The mean of the images that are there, and one convolution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.head = nn.Conv3d(1, len(config.classes), 3, padding=1)

    def encode(self, images: Tensor, present: Present) -> dict[str, Tensor]:
        return {m: images[:, i : i + 1] for i, m in enumerate(self.config.modalities) if present[i]}

    def fuse_subsets(
        self, features: Mapping[str, Tensor], subsets: Sequence[Present], attention: Sequence[bool] | None = None
    ) -> Iterator[Output]:
        for present in subsets:
            yield Output(self.head(torch.stack([features[m] for m in self.present_names(present)]).mean(dim=0)))

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        heads = [output.logits for output in self.fuse_subsets(self.encode(images, subsets[0]), subsets)]
        return TrainingOutputs(heads, extra_loss=self.head.weight.square().sum())

    def bytes_per_voxel(self, modalities: int, subsets: int, itemsize: int) -> int:
        return itemsize * (modalities + subsets * len(self.config.classes))


class LocalToy(Toy):
    """The same, and it says that its fusion looks one voxel further."""

    fusion_reach = 1


class FixedToy(Toy):
    """The same, for windows of its patch_size only."""

    any_window = False


TOYS = {"toy": Toy, "local-toy": LocalToy, "fixed-toy": FixedToy}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with ExitStack() as rows:
        for name, network in TOYS.items():
            rows.enter_context(registered(name, network))
        yield


def network(architecture: str) -> Network:
    torch.manual_seed(0)
    return build_network(replace(CONFIG, architecture=architecture)).requires_grad_(False)


def random_images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


# What every network keeps

every_network = pytest.mark.parametrize("architecture", [*ARCHITECTURES, *TOYS])


@every_network
def test_an_absent_modality_is_never_read(architecture: str) -> None:
    net, images = network(architecture), random_images(1, 4, 8, 8, 8)
    present = CONFIG.presence(["t1", "flair"])
    expected = net.fuse(net.encode(images, present), present).logits
    images[:, [not flag for flag in present]] = math.nan
    assert torch.equal(net.fuse(net.encode(images, present), present).logits, expected)
    assert bool(expected.isfinite().all())


@every_network
def test_all_subsets_together_are_each_alone(architecture: str) -> None:
    """And, where it has one, the attention is asked for by subset, and sums to 1 over the present modalities."""
    net, images = network(architecture), random_images(1, 4, 8, 8, 8)
    flags = [index % 2 == 0 for index in range(15)]
    features = net.encode(images, [True] * 4)
    together = list(net.fuse_subsets(features, SUBSETS, flags))
    assert len(together) == 15
    for subset, flag, output in zip(SUBSETS, flags, together, strict=True):
        assert output.logits.shape == (1, 4, 8, 8, 8)
        torch.testing.assert_close(output.logits, net.fuse(features, subset).logits, atol=1e-4, rtol=1e-4)
        assert tuple(output.attention) == (net.present_names(subset) if flag and net.has_attention else ())
        if output.attention:
            total = torch.stack(list(output.attention.values())).sum(dim=0)
            torch.testing.assert_close(total, torch.ones(1, 1, 8, 8, 8))


@every_network
def test_training_outputs_are_logits_of_the_images_size(architecture: str) -> None:
    """Of at least each subset; every parameter of a present modality learns from them."""
    net = network(architecture).requires_grad_(True)
    outputs = net.training_outputs(random_images(1, 4, 8, 8, 8), [SUBSETS[-1], SUBSETS[2]])
    assert len(outputs.heads) >= 2
    assert {tuple(head.shape) for head in outputs.heads} == {(1, 4, 8, 8, 8)}
    loss = total_loss(outputs.heads, torch.zeros(1, 8, 8, 8, dtype=torch.uint8))
    (loss if outputs.extra_loss is None else loss + outputs.extra_loss).backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "local-toy"])
def test_a_piece_is_fused_like_the_whole(architecture: str) -> None:
    """Planes 3 to 5 of twelve, cut out with what the fusion reaches."""
    net, images = network(architecture), random_images(1, 4, 12, 8, 8)
    reach = net.fusion_reach
    if reach is None:
        pytest.skip("its fusion takes the whole window")
    features = net.encode(images, [True] * 4)
    whole = net.fuse(features, [True] * 4).logits
    part = net.fuse({m: value[:, :, 3 - reach : 6 + reach] for m, value in features.items()}, [True] * 4).logits
    torch.testing.assert_close(part[:, :, reach : reach + 3], whole[:, :, 3:6], atol=1e-5, rtol=1e-5)


@every_network
def test_memory_grows_with_what_is_there(architecture: str) -> None:
    net = network(architecture)
    few, more, all_, wide = (net.bytes_per_voxel(*n) for n in ((1, 1, 2), (4, 1, 2), (4, 15, 2), (4, 15, 4)))
    assert 0 < few < more <= all_ < wide


# The registry


def test_a_network_of_no_row() -> None:
    for build in (build_network, parameter_shapes):
        with pytest.raises(UsageError, match=r"architecture unet: expected one of a2fseg, hemis, .*, toy"):
            build(replace(CONFIG, architecture="unet"))


def test_a_row_for_a_while() -> None:
    with registered("another", Toy):
        assert parameter_shapes(replace(CONFIG, architecture="another")) == {
            "head.weight": (4, 1, 3, 3, 3),
            "head.bias": (4,),
        }
        with pytest.raises(ValueError, match="there is a network another already"), registered("another", Toy):
            pass
    assert "another" not in ARCHITECTURES


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_parameters_of_the_classes(classes: int) -> None:
    names = ("background", "a", "b", "c")[:classes]
    config = replace(CONFIG, classes=names, label_values=tuple(range(classes)), regions=())
    assert parameters_of_classes(replace(config, architecture="toy")) == {"head.weight", "head.bias"}
    heads = [f"modality_heads.{m}" for m in config.modalities] + ["average_head", "head"]
    assert parameters_of_classes(config) == {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}


# A toy through every room


def sample(shape: tuple[int, int, int] = (8, 8, 8)) -> Sample:
    classes = np.zeros(shape, np.uint8)
    classes[2:5, 2:5, 2:5] = 2
    images = np.random.default_rng(0).standard_normal((4, *shape)) + 3 * classes
    return Sample("one", images.astype(np.float16), classes, (True,) * 4)


def test_a_toy_trains_predicts_and_is_evaluated(
    phantom: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str, str]],
) -> None:
    config = replace(CONFIG, architecture="toy", spacing_mm=(6.0, 6.0, 6.0))
    monkeypatch.setitem(PRESETS, "tiny", config)
    monkeypatch.setitem(RECIPES, "tiny", {"epochs": 1, "iterations_per_epoch": 3})
    for name in ("a", "b"):
        shutil.copytree(phantom, tmp_path / "data" / name)
        image = sitk.ReadImage(phantom / "P1_flair.nii.gz")
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8) * 2, tmp_path / "data" / name / "P1_seg.nii.gz")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "validation": ["b"]}')
    device = ("--device", "cpu")
    code, _, err = run(
        "train", tmp_path / "data", "-o", tmp_path / "run", "--preset", "tiny", "--split", split, *device
    )
    assert code == 0, err
    weights = tmp_path / "run" / "best.safetensors"
    assert inspect_weights(weights).config == config
    mask = tmp_path / "seg.nii.gz"
    predict = ("predict", tmp_path / "data" / "a", "-o", mask, "--weights", weights, "--overwrite", *device)
    code, _, err = run(*predict, "--agreement", "--report", tmp_path / "seg.html")
    assert code == 0, err
    assert sitk.ReadImage(mask).GetSize() == sitk.ReadImage(phantom / "P1_flair.nii.gz").GetSize()
    code, _, err = run(*predict, "--attention")
    assert code == 2
    assert "attention: a network of architecture toy has none" in err
    scores = tmp_path / "scores"
    code, _, err = run(
        "evaluate", tmp_path / "data", "-o", scores, "--all-subsets", "--weights", weights, "--metrics", "dice", *device
    )
    assert code == 0, err
    with next(scores.glob("*.csv")).open(newline="") as file:
        assert len(list(csv.reader(file))) > 15


def test_the_loss_is_that_of_the_heads_and_of_the_networks_own(tmp_path: Path) -> None:
    config = replace(CONFIG, architecture="toy")
    trainer = Trainer(Setup(config, Recipe(random_subsets=1), [sample()], [], RunFolder(tmp_path), CPU))
    (crop,) = trainer.crops(0)
    with torch.no_grad():
        outputs = trainer.learner.model.training_outputs(crop.images[None], crop.subsets)
        assert outputs.extra_loss is not None
        expected = total_loss(outputs.heads, crop.classes[None]) + outputs.extra_loss
    assert outputs.extra_loss > 0.1
    assert trainer.step() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("slab", [2**19, 3 * 16 * 12])
def test_a_whole_window_is_fused_unless_the_network_says_how_far_it_looks(
    slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11 x 16 x 10 voxels in one window of 12 x 16 x 12; slabs of three planes where the fusion is local."""
    monkeypatch.setattr(predictor_module, "SLAB_VOXELS", slab)
    images = np.random.default_rng(1).standard_normal((4, 11, 16, 10)).astype(np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(images), (0, 2, 0, 0, 0, 1))[None]
    for name in ("toy", "local-toy"):
        net, depths = network(name), []
        expected = net(padded, (True,) * 4).softmax(dim=1)[0, :, :11, :16, :10]
        net.head.register_forward_hook(lambda _, taken, __, depths=depths: depths.append(taken[0].shape[2]))
        found = Predictor(net, CPU).segment(images, (True,) * 4, attention=True)
        np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-6)
        assert found.attention == {}
        assert depths == ([12] if name == "toy" or slab == 2**19 else [4, 5, 5, 4])


def test_a_network_for_one_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows and crops are 8 x 8 x 8, whatever the brain is, and whatever else is asked for is refused."""
    config = replace(CONFIG, architecture="fixed-toy")
    net = network("fixed-toy")
    found = Predictor(net, CPU).segment(np.zeros((4, 12, 6, 8), np.float32), (True,) * 4)
    assert found.plan.window == (8, 8, 8)
    assert len(found.plan.starts) == 2
    with pytest.raises(UsageError, match=r"window \(16, 16, 16\): this network takes \(8, 8, 8\) only"):
        Predictor(net, CPU, WindowOptions(window=(16, 16, 16)))
    trainer = Trainer(Setup(config, Recipe(), [sample((8, 5, 8))], [], RunFolder(tmp_path), CPU))
    assert trainer.crops(0)[0].images.shape == (4, 8, 8, 8)
    monkeypatch.setattr(net, "encode", lambda *_: torch.empty(2**50))
    with pytest.raises(ResourceError, match=r"window \(8, 8, 8\) does not fit on cpu; this network takes no other"):
        Predictor(net, CPU).segment(np.zeros((4, 8, 8, 8), np.float32), (True,) * 4)


def test_weights_go_to_their_own_architecture_only(tmp_path: Path) -> None:
    config = replace(CONFIG, architecture="toy")
    path = tmp_path / "toy.safetensors"
    save_weights(path, network("toy").state_dict(), config, {})
    assert isinstance(Segmenter(path, CPU).model, Toy)
    assert set(initial_weights(path, config).tensors) == {"head.weight", "head.bias"}
    other = replace(config, classes=("background", "a", "b", "c"), regions=())
    assert set(initial_weights(path, other).tensors) == set()
    with pytest.raises(WeightsError, match="architecture is toy, the network to train has a2fseg"):
        initial_weights(path, CONFIG)

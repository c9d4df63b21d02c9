"""The other networks of the paper's Table 1: what each must keep, and what of them can be checked by hand."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor
from torch.nn import functional as F

from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets, subset_name
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.hemis import moments
from a2fseg_cli.core.layers import ConcatConv, upsampled_head
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.network import Network, TrainingOutputs
from a2fseg_cli.core.networks import ARCHITECTURES, build_network, parameter_shapes
from a2fseg_cli.core.presets import NETWORKS, preset_config
from a2fseg_cli.core.rfnet import FUSION_STARTS
from a2fseg_cli.core.robustseg import ImageDecoder
from a2fseg_cli.core.uhved import Gaussian, posterior, prior_like
from a2fseg_cli.errors import UsageError
from a2fseg_cli.inference.predictor import Predictor, Segmenter
from a2fseg_cli.training.data import Sample, load_samples
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.recipe import RECIPES, RECIPES_OF_PAPERS, Recipe
from a2fseg_cli.training.run_folder import RunFolder
from a2fseg_cli.training.settings import network_and_recipe
from a2fseg_cli.weights.file_format import save_weights

CPU = Compute(torch.device("cpu"), "fp32", "for the tests")
OTHERS = NETWORKS[1:]
CONFIG = ModelConfig(features_per_stage=(4, 8, 8), patch_size=(16, 16, 16))
SUBSETS = [CONFIG.presence(names) for names in all_subsets(CONFIG.modalities)]
SUBSET_NAMES = [subset_name(names, CONFIG.modalities) for names in all_subsets(CONFIG.modalities)]
FULL = SUBSETS[-1]

every_network = pytest.mark.parametrize("name", OTHERS)


def new(name: str, config: ModelConfig = CONFIG) -> Network:
    torch.manual_seed(0)
    return build_network(replace(config, architecture=name))


def random_images(modalities: int = 4, edge: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn((1, modalities, edge, edge, edge), generator=generator)


def target(classes: int = 4, edge: int = 16) -> Tensor:
    """A cube of each class inside the other."""
    found = torch.zeros(1, edge, edge, edge, dtype=torch.uint8)
    for index in range(1, classes):
        found[:, 2 + index : -2 - index, 2 + index : -2 - index, 2 + index : -2 - index] = index
    return found


def loss_of(outputs: TrainingOutputs, classes: Tensor) -> Tensor:
    loss = total_loss(outputs.heads, classes)
    return loss if outputs.extra_loss is None else loss + outputs.extra_loss


# Sizes


def robustseg_by_hand(c: int = 16, modalities: int = 4, classes: int = 4) -> int:
    """The layers of model.py and layers.py of https://github.com/cchen-cc/Robust-Mseg, one after the other."""

    def conv(before: int, after: int, edge: int = 3) -> int:
        return edge**3 * before * after + after

    def block(before: int, after: int, edge: int = 3) -> int:  # its instance norm has two numbers a channel
        return conv(before, after, edge) + 2 * after

    content = sum(block(a, b) + 2 * block(b, b) for a, b in ((1, c), (c, 2 * c), (2 * c, 4 * c), (4 * c, 8 * c)))
    style = conv(1, 32, 7) + conv(32, 64, 4) + conv(64, 128, 4) + 2 * conv(128, 128, 4) + conv(128, 8, 1)
    mlp = conv(8, 128, 1) + 3 * conv(128, 128, 1)
    image = mlp + 8 * conv(128, 128) + sum(conv(2 * w, w, 5) + 2 * w for w in (64, 32, 16)) + conv(16, 1, 7)
    levels = [c * 2**level for level in range(4)]
    fusion = sum(conv(modalities * w, modalities) + block(modalities * w, w, 1) for w in levels)
    mask = sum(2 * block(2 * w, w) + block(w, w, 1) for w in levels[:3]) + conv(c, classes, 1)
    shared = (modalities - 1) * conv(16, 1, 7)  # the images' last layer is one for all modalities there
    return modalities * (content + style + image) + fusion + mask - shared


# What the papers' code has, four modalities and four classes:
# - hemis, uhved: the trainable variables of the released checkpoints (models/*/models/model.ckpt-60000.index of
#   https://github.com/ReubenDo/U-HVED) hold 565,888 and 1,250,552 values; our heads have a bias, 4 more.
# - rfnet: models.Model(4) of https://github.com/dyh127/RFNet has 8,984,960.
# - mmformer: mmformer.Model(4) of https://github.com/YaoZhang93/mmFormer has 36,654,416, of which 4 convolutions from
#   512 to 128 channels, 262,656 values, are never called.
# - robustseg: by hand, from its code; our images have a last layer of their own each, three more of 5,489.
# - mfi: there is nothing to compare with; this is so that a change is noticed.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("hemis", 565_888 + 4),
        ("uhved", 1_250_552 + 4),
        ("rfnet", 8_984_960),
        ("mmformer", 36_654_416 - 4 * (512 * 128 + 128)),
        ("robustseg", robustseg_by_hand() + 3 * (7**3 * 16 + 1)),
        ("mfi", 6_737_652),
    ],
)
def test_parameters_of_the_papers_size(name: str, count: int) -> None:
    assert sum(math.prod(shape) for shape in parameter_shapes(preset_config("paper", name)).values()) == count


def test_every_network_has_a_row_and_presets() -> None:
    assert tuple(ARCHITECTURES) == NETWORKS
    assert set(RECIPES_OF_PAPERS) == set(OTHERS)
    for preset in PRESETS:
        assert preset_config(preset) == preset_config(preset, "a2fseg") == PRESETS[preset]
        for name in OTHERS:
            config = preset_config(preset, name)
            assert config.architecture == name
            assert config.spacing_mm == PRESETS[preset].spacing_mm
            assert preset == "paper" or config.patch_size == PRESETS[preset].patch_size
            assert parameter_shapes(config)


def test_a_network_by_its_name() -> None:
    config, recipe = network_and_recipe("paper", {"network": "rfnet"})
    assert config == preset_config("paper", "rfnet")
    assert (recipe.learning_rate, recipe.epochs, recipe.batch_size) == (2e-4, 300, 2)
    assert network_and_recipe("tiny", {"network": "rfnet", "epochs": 3})[1] == Recipe(**RECIPES["tiny"] | {"epochs": 3})
    with pytest.raises(UsageError, match="network vnet: expected a2fseg, hemis, uhved, robustseg, rfnet, mmformer"):
        network_and_recipe("tiny", {"network": "vnet"})


@pytest.mark.parametrize("name", ["hemis", "uhved", "rfnet"])
def test_widths_that_cannot_be_halved(name: str) -> None:
    with pytest.raises(UsageError, match=r"features_per_stage .* 2 or more"):
        new(name, replace(CONFIG, features_per_stage=(1, 2, 4)))


def test_tokens_of_mmformer() -> None:
    with pytest.raises(UsageError, match="the last must be even"):
        new("mmformer", replace(CONFIG, features_per_stage=(4, 8, 7)))
    with pytest.raises(UsageError, match="262144 tokens, mmformer has up to 32768"):
        new("mmformer", replace(CONFIG, patch_size=(256, 256, 256)))
    with pytest.raises(ValueError, match=r"edges must be \(16, 16, 16\)"):
        new("mmformer").encode(random_images(edge=8), FULL)


# What every network keeps


@every_network
def test_gradients_reach_every_parameter(name: str) -> None:
    net = new(name)
    loss_of(net.training_outputs(random_images(), [FULL, SUBSETS[4]]), target()).backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []
    # A bias in front of an instance norm changes nothing, as in the papers' code; every kernel does.
    assert [n for n, p in net.named_parameters() if p.ndim > 1 and not bool((p.grad != 0).any())] == []  # type: ignore[operator]


@every_network
def test_absent_modalities_are_never_read(name: str) -> None:
    """In a prediction of any subset, and in training where the patient does not have them."""
    net, images = new(name).requires_grad_(False), random_images()
    for present in (SUBSETS[0], SUBSETS[5], SUBSETS[9]):
        blinded = images.clone()
        blinded[:, [not flag for flag in present]] = math.nan
        logits = net(blinded, present)
        assert torch.equal(logits, net(images, present))
        assert bool(logits.isfinite().all())
        losses = []
        for seen in (images, blinded):
            torch.manual_seed(3)  # samples of U-HVED, dropout of mmFormer
            losses.append(loss_of(net.training_outputs(seen, [present, present]), target()))
        assert torch.equal(*losses)


@every_network
def test_a_prediction_is_the_same_twice(name: str) -> None:
    """No samples, no dropout, whatever mode the module is in; another subset gives another prediction."""
    net, images = new(name).requires_grad_(False), random_images()
    assert net.training
    first, _ = net(images, FULL), net.training_outputs(images, [FULL])
    assert torch.equal(net(images, FULL), first)
    assert torch.equal(net.eval()(images, FULL), first)
    assert not torch.allclose(net(images, SUBSETS[0]), first)


@every_network
def test_a_step_lowers_its_loss(name: str) -> None:
    net, images, classes = new(name), random_images(), target()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        loss = loss_of(net.training_outputs(images, [FULL, SUBSETS[2]]), classes)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[1] < losses[0]


@every_network
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    """By the predictor, on a volume that no window fits: all 15 subsets."""
    net = new(name).requires_grad_(False)
    save_weights(tmp_path / "w.safetensors", net.state_dict(), net.config, {}, dtype="float32")
    images = np.random.default_rng(1).standard_normal((4, 18, 13, 16)).astype(np.float32)
    loaded = Segmenter(tmp_path / "w.safetensors", CPU)
    assert loaded.config == net.config
    found = loaded.segment_subsets(images, SUBSETS)
    for expected, result in zip(Predictor(net, CPU).segment_subsets(images, SUBSETS), found, strict=True):
        np.testing.assert_array_equal(result.probabilities, expected.probabilities)
        np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)


@every_network
@pytest.mark.parametrize(("modalities", "classes"), [(1, 2), (2, 3), (5, 6)])
def test_other_modalities_and_classes(name: str, modalities: int, classes: int) -> None:
    config = replace(
        CONFIG,
        modalities=tuple(f"m{i}" for i in range(modalities)),
        classes=("background", *(f"c{i}" for i in range(1, classes))),
        label_values=tuple(range(classes)),
        regions=(),
        features_per_stage=(4, 8),
        patch_size=(8, 8, 8),
    )
    net, images = new(name, config), random_images(modalities, 8)
    one = [index == 0 for index in range(modalities)]
    outputs = net.training_outputs(images, [[True] * modalities, one])
    assert {tuple(head.shape) for head in outputs.heads} == {(1, classes, 8, 8, 8)}
    assert net(images, one).shape == (1, classes, 8, 8, 8)


@every_network
def test_runs_in_bf16(name: str) -> None:
    net, images = new(name), random_images()
    exact = net(images, SUBSETS[6]).softmax(dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net.training_outputs(images, [FULL, SUBSETS[6]])
        coarse = net(images, SUBSETS[6])
    loss_of(outputs, target()).backward()  # type: ignore[no-untyped-call]
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in net.parameters())
    assert float((coarse.float().softmax(dim=1) - exact).abs().mean().detach()) < 0.02


@every_network
def test_odd_edges_at_the_deep_stages(name: str) -> None:
    """40 voxels are 20, 10, 5 and, halved upwards, 3 at the fifth stage: `edge_step` is 8, the stride 16."""
    config = replace(CONFIG, features_per_stage=(2, 2, 4, 4, 4), patch_size=(32, 40, 32))
    net, images = new(name, config).requires_grad_(False), torch.randn(1, 4, 32, 40, 32)
    assert net(images, SUBSETS[2]).shape == (1, 4, 32, 40, 32)


# By hand


def test_moments() -> None:
    """Of 1 and 3 the mean is 2, the variance 1; of one modality it is 0."""
    one, three = torch.ones(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1, 1), 3.0)
    assert moments([one, three]).flatten().tolist() == [2, 1]
    assert moments([three]).flatten().tolist() == [3, 0]


def test_product_of_gaussians() -> None:
    """N(2, 1) and the prior N(0, 1): precisions 1 + 1, so variance 1/2 and mean 1; with N(2, 1/2) too, 1/4 and 1.5."""

    def maps(mean: float, variance: float) -> Tensor:
        return torch.tensor([mean, math.log(variance)]).view(1, 2, 1, 1, 1)

    one = posterior({"t1": maps(2, 1)})
    assert (one.mean.item(), one.variance.item()) == (pytest.approx(1), pytest.approx(0.5))
    two = posterior({"t1": maps(2, 1), "t2": maps(2, 0.5)})
    assert (two.mean.item(), two.variance.item()) == (pytest.approx(1.5), pytest.approx(0.25))


def test_divergence_of_gaussians() -> None:
    """KL(N(1, 1) || N(0, 1)) = 1/2; KL(N(0, 4) || N(0, 1)) = (4 - 1 - ln 4) / 2; of a distribution to itself 0."""

    def gaussian(mean: float, variance: float) -> Gaussian:
        return Gaussian(torch.tensor([mean]), torch.tensor([variance]))

    assert gaussian(1, 1).divergence(gaussian(0, 1)).item() == pytest.approx(0.5, abs=1e-6)
    assert gaussian(0, 4).divergence(gaussian(0, 1)).item() == pytest.approx((3 - math.log(4)) / 2, abs=1e-5)
    assert gaussian(3, 2).divergence(gaussian(3, 2)).item() == pytest.approx(0, abs=1e-6)


def test_divergence_of_appearance_codes() -> None:
    """Scale 1 and shift 2 in 3 channels: the sum of KL(N(1, 4) || N(0, 1)) = (1 + 4 - 1 - ln 4) / 2."""
    decoder = ImageDecoder(3, 1)
    for part, value in ((decoder.scale, 1.0), (decoder.shift, 2.0)):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.constant_(part.bias, value)
    content = [torch.randn(1, 3, 4, 4, 4), torch.randn(1, 3, 2, 2, 2)]
    image, kl = decoder(torch.randn(1, 8), content)
    assert image.shape == (1, 1, 4, 4, 4)
    assert kl.item() == pytest.approx(3 * (4 - math.log(4)) / 2, abs=1e-5)


@torch.no_grad()
def test_what_the_networks_add_to_the_loss() -> None:
    """U-HVED's from one modality: a tenth of the divergence from the prior, mean of the levels, and of the error."""
    images = random_images()
    for name in OTHERS:
        extra = new(name).training_outputs(images, [FULL]).extra_loss
        assert (extra is not None) == (name in ("uhved", "robustseg")), name
        assert extra is None or float(extra) > 0
    net = new("uhved")
    torch.manual_seed(1)
    alone = net.training_outputs(images, [SUBSETS[0]])
    maps = net.levels(net.encode(images, SUBSETS[0]), SUBSETS[0])
    prior = [posterior(level).divergence(prior_like(posterior(level).mean)) for level in maps]
    torch.manual_seed(1)
    z = [posterior(level).sample() for level in maps]
    (m,) = net.present_names(SUBSETS[0])
    error = (net.image_decoders[m](z) - images[:, [CONFIG.modalities.index(m)]]).square().mean()
    assert alone.extra_loss is not None
    assert float(alone.extra_loss) == pytest.approx(0.1 * float(sum(prior)) / 3 + 0.1 * float(error), rel=1e-4)


def test_a_convolution_of_the_concatenated_modalities() -> None:
    names = ("t1", "t2", "flair")
    conv = ConcatConv(names, 2, 3, kernel=3)
    torch.nn.init.normal_(conv.bias)
    maps = {m: torch.randn(1, 2, 4, 4, 4) for m in names}
    whole = torch.cat([conv.of[m].weight for m in names], dim=1)  # type: ignore[misc]
    zeros = torch.zeros(1, 2, 4, 4, 4)
    for present in (names, names[1:], names[:1]):
        filled = torch.cat([maps[m] if m in present else zeros for m in names], dim=1)
        expected = F.conv3d(filled, whole, conv.bias, padding=1)
        torch.testing.assert_close(conv({m: maps[m] for m in present}), expected, atol=1e-5, rtol=1e-5)


def test_a_coarse_head_has_the_resized_probabilities() -> None:
    logits = torch.randn(1, 3, 2, 2, 2)
    expected = F.interpolate(logits.softmax(dim=1), size=(4, 4, 4), mode="trilinear", align_corners=True)
    found = upsampled_head(logits, torch.zeros(1, 1, 4, 4, 4)).softmax(dim=1)
    torch.testing.assert_close(found, expected)


def test_rfnets_fusion_starts_late() -> None:
    """Four heads on modalities; of each subset three region maps, and the prediction from a fifteenth on."""
    net, images = new("rfnet"), random_images()
    for progress, heads in ((0.0, 4 + 2 * 3), (FUSION_STARTS, 4 + 2 * 4)):
        assert len(net.training_outputs(images, [FULL, SUBSETS[0]], progress).heads) == heads
    assert pytest.approx(1 / 15) == FUSION_STARTS


def test_the_trainer_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net_class, told = ARCHITECTURES["hemis"], []
    original = net_class.training_outputs

    def listen(self: Network, images: Tensor, subsets: object, progress: float = 1.0) -> TrainingOutputs:
        told.append(progress)
        return original(self, images, subsets, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(net_class, "training_outputs", listen)
    _trainer(tmp_path, "hemis", [_sample()], Recipe(epochs=2, iterations_per_epoch=2)).run(lambda _: None)
    assert told == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("name", ["uhved", "mmformer"])
def test_chances_follow_from_the_seed_and_the_step(name: str, tmp_path: Path) -> None:
    """Whatever was drawn before, as after a resumption: the second step of one is the first of another."""
    recipe = Recipe(random_subsets=1, ema_decay=0)
    one, resumed = (_trainer(tmp_path, name, [_sample()], recipe) for _ in range(2))
    first = one.step()
    resumed.learner.load_state_dict(one.learner.state_dict())
    resumed.state.step = 1
    torch.manual_seed(99)
    second = one.step()
    assert resumed.step() == second != first


# Real patients, and the commands


def _sample() -> Sample:
    classes = target().numpy()[0]
    images = np.random.default_rng(0).standard_normal((4, 16, 16, 16)) + classes
    return Sample("one", images.astype(np.float16), classes, (True,) * 4)


def _trainer(folder: Path, name: str, samples: list[Sample], recipe: Recipe, config: ModelConfig = CONFIG) -> Trainer:
    return Trainer(Setup(replace(config, architecture=name), recipe, samples, [], RunFolder(folder), CPU))


@pytest.mark.slow
@every_network
def test_it_learns_a_real_patient(name: str, cases_dir: Path, tmp_path: Path) -> None:
    """A step lowers its loss on the patient; six lower it by more."""
    grid = {"spacing_mm": (4.0, 4.0, 4.0), "patch_size": (32, 32, 32)}
    config = replace(preset_config("tiny", name), **grid)  # type: ignore[arg-type]
    case = next(case for case in find_cases(cases_dir, config.modalities) if case.truth)
    samples = load_samples([case], config, tmp_path / "cache", lambda *_: None)
    recipe = Recipe(**RECIPES["tiny"] | {"augment": False, "learning_rate": 0.005, "epochs": 1})
    trainer = _trainer(tmp_path / "run", name, samples, recipe, config)
    (crop,) = trainer.crops(0)

    def loss() -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return float(
                loss_of(trainer.learner.model.training_outputs(crop.images[None], crop.subsets), crop.classes[None])
            )

    losses = [loss()]
    for step in range(1, 7):
        trainer.learner.backward([crop], 1.0)
        trainer.learner.update(recipe.learning_rate, step)
        if step in (1, 6):
            losses.append(loss())
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.slow
@every_network
def test_train_predict_and_evaluate(
    name: str, phantom: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """By the commands: trained on one phantom, a mask for a patient of one modality, scores of all 15 subsets."""
    for patient in ("a", "b"):
        shutil.copytree(phantom, tmp_path / "data" / patient)
        image = sitk.ReadImage(phantom / "P1_flair.nii.gz")
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8) * 2, tmp_path / "data" / patient / "P1_seg.nii.gz")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "validation": ["b"]}')
    device = ("--device", "cpu", "--precision", "fp32")
    code, _, err = run(
        "train", tmp_path / "data", "-o", tmp_path / "run", "--network", name, "--preset", "tiny", "--spacing", "6",
        "--patch-size", "32", "--epochs", "1", "--iterations", "2", "--split", split, *device,
    )  # fmt: skip
    assert code == 0, err
    weights = tmp_path / "run" / "best.safetensors"
    mask = tmp_path / "seg.nii.gz"
    flair = phantom / "P1_flair.nii.gz"
    code, _, err = run("predict", "--flair", flair, "-o", mask, "--weights", weights, *device)
    assert code == 0, err
    assert sitk.ReadImage(mask).GetSize() == sitk.ReadImage(flair).GetSize()
    scores = tmp_path / "scores"
    code, _, err = run(
        "evaluate", tmp_path / "data", "-o", scores, "--all-subsets", "--weights", weights, "--metrics", "dice", *device
    )
    assert code == 0, err
    with next(scores.glob("*.csv")).open(newline="") as file:
        assert len({row["subset"] for row in csv.DictReader(file)} & set(SUBSET_NAMES)) == 15

"""The whole network: masks, absent modalities, gradients, other tasks, and the paper's size."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import parameter_shapes

CONFIG = ModelConfig(features_per_stage=(4, 8, 16), patch_size=(16, 16, 16))


def network(config: ModelConfig = CONFIG) -> A2FSeg:
    torch.manual_seed(0)
    return A2FSeg(config).requires_grad_(False)


def random_images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def test_forward_is_the_equations_and_fuse_says_the_same() -> None:
    net, images = network(), random_images(1, 4, 8, 12, 16)
    present = CONFIG.presence(["t1", "t2"])
    features = net.encode(images, present)
    assert {m: feature.shape for m, feature in features.items()} == dict.fromkeys(("t1", "t2"), (1, 4, 8, 12, 16))
    logits = net(images, present)
    assert logits.shape == (1, 4, 8, 12, 16)
    assert torch.equal(logits, net.head(net.equations(features).fused))
    assert torch.equal(logits, net(images, torch.tensor(present)))
    torch.testing.assert_close(net.fuse(features, present).logits, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("names", [("t1",), ("flair",), ("t1", "t2"), ("t1c", "t2", "flair")], ids="+".join)
@pytest.mark.parametrize("filler", [0.0, 1e30, math.nan, math.inf])
def test_whatever_fills_an_absent_slot_changes_nothing(names: tuple[str, ...], filler: float) -> None:
    net, images, present = network(), random_images(1, 4, 8, 8, 8), CONFIG.presence(names)
    expected = net(images, present)
    filled = images.clone()
    filled[:, [not flag for flag in present]] = filler
    assert torch.equal(net(filled, present), expected)
    assert bool(expected.isfinite().all())


@pytest.mark.parametrize("index", range(4), ids=CONFIG.modalities)
def test_every_present_modality_counts(index: int) -> None:
    net, images = network(), random_images(1, 4, 8, 8, 8)
    changed = images.clone()
    changed[:, index] = images[:, index].flip(1)
    difference = net(images, [True] * 4) - net(changed, [True] * 4)
    assert difference.abs().max().item() > 0.01


@pytest.mark.parametrize("names", all_subsets(CONFIG.modalities), ids="+".join)
def test_only_the_encoders_of_present_modalities_run(names: tuple[str, ...]) -> None:
    net = network(replace(CONFIG, features_per_stage=(2, 2)))
    called = []
    for m, encoder in net.encoders.items():
        encoder.register_forward_hook(lambda *_, m=m: called.append(m))
    net(random_images(1, 4, 4, 4, 4), CONFIG.presence(names))
    assert called == list(names)


def test_all_fifteen_subsets_share_one_encode() -> None:
    net, images = network(), random_images(1, 4, 8, 8, 8)
    subsets = [CONFIG.presence(names) for names in all_subsets(CONFIG.modalities)]
    called = []
    for m, encoder in net.encoders.items():
        encoder.register_forward_hook(lambda *_, m=m: called.append(m))
    shared = [output.logits for output in net.fuse_subsets(net.encode(images, [True] * 4), subsets)]
    assert len(called) == 4
    for present, logits in zip(subsets, shared, strict=True):
        torch.testing.assert_close(logits, net(images, present), atol=1e-4, rtol=1e-4)


def test_samples_of_a_batch_may_lack_different_modalities() -> None:
    net, images = network(), random_images(3, 4, 8, 8, 8)
    present = torch.tensor([[True, False, False, True], [False, True, False, False], [True, True, True, True]])
    together = net(images, present)
    for image, flags, logits in zip(images, present, together, strict=True):
        torch.testing.assert_close(net(image[None], flags)[0], logits, atol=1e-5, rtol=1e-5)
    same = net(images, present[:1].expand(3, -1))
    torch.testing.assert_close(same[1:2], net(images[1:2], present[0]), atol=1e-4, rtol=1e-4)


def test_the_heads_of_equation_5() -> None:
    """On F_m of three modalities, then on F_avg and Fhat of all three and of two of them."""
    net, images = network(), random_images(1, 4, 8, 8, 8)
    subsets = [CONFIG.presence(names) for names in (("t1", "t1c", "flair"), ("t1c", "flair"))]
    features = net.encode(images, subsets[0])
    expected = [net.modality_heads[m](features[m]) for m in ("t1", "t1c", "flair")]
    for subset in subsets:
        fused = net.equations({m: features[m] for m in net.present_names(subset)})
        expected += [net.average_head(fused.average), net.head(fused.fused)]
    found = net.training_outputs(images, subsets)
    assert found.extra_loss is None
    assert len(found.heads) == len(expected) == 7
    for one, other in zip(found.heads, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_training_loss_reaches_every_parameter() -> None:
    net = A2FSeg(CONFIG)
    outputs = net.training_outputs(random_images(1, 4, 8, 8, 8), [[True] * 4])
    target = torch.randint(4, (1, 8, 8, 8), generator=torch.Generator().manual_seed(3))
    total_loss(outputs.heads, target).backward()  # type: ignore[no-untyped-call]
    untouched = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert untouched == []


def test_absent_encoders_get_no_gradient() -> None:
    net = A2FSeg(CONFIG)
    net(random_images(1, 4, 8, 8, 8), CONFIG.presence(["t1", "flair"])).sum().backward()
    for m, encoder in net.encoders.items():
        assert all((p.grad is not None) == (m in ("t1", "flair")) for p in encoder.parameters())


@pytest.mark.parametrize(
    ("modalities", "classes"),
    [(("ct",), ("background", "liver")), (("adc", "dwi"), ("background", "core")), (tuple("abcdefg"), tuple("ABCDEF"))],
    ids=["one", "two", "seven"],
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_other_modalities_and_classes(modalities: tuple[str, ...], classes: tuple[str, ...], kernel: int) -> None:
    config = ModelConfig(
        modalities=modalities,
        classes=classes,
        label_values=tuple(range(len(classes))),
        regions=(("all", classes[1:]),),
        features_per_stage=(2, 3),
        attention_kernel_size=kernel,
        patch_size=(4, 4, 4),
    )
    net, images = network(config), random_images(1, len(modalities), 4, 6, 8)
    for present in (config.presence(modalities), config.presence(modalities[-1:])):
        assert net(images, present).shape == (1, len(classes), 4, 6, 8)


def test_refusals() -> None:
    net = network()
    for present in ([False] * 4, [True] * 3, [True] * 5, []):
        with pytest.raises(ValueError, match="present needs 4 flags"):
            net.encode(random_images(1, 4, 8, 8, 8), present)
    for shape in ((1, 3, 8, 8, 8), (4, 8, 8, 8)):
        with pytest.raises(ValueError, match="images must be"):
            net.encode(random_images(*shape), [True] * 4)
    with pytest.raises(ValueError, match="masks for 2 samples"):
        net(random_images(3, 4, 8, 8, 8), [[True] * 4] * 2)
    with pytest.raises(ValueError, match="edges must be at least 8"):
        net.encode(random_images(1, 4, 8, 7, 8), [True] * 4)


def test_the_papers_size() -> None:
    shapes = parameter_shapes(PRESETS["paper"])
    assert shapes["encoders.t1.down.0.0.0.weight"] == (32, 1, 3, 3, 3)
    assert shapes["encoders.flair.down.5.1.0.weight"] == (320, 320, 3, 3, 3)
    assert shapes["encoders.t2.up.0.weight"] == (320, 320, 2, 2, 2)
    assert shapes["encoders.t2.merge.4.0.0.weight"] == (32, 64, 3, 3, 3)
    assert shapes["fusion.f.t1c.weight"] == (32, 64, 3, 3, 3)
    assert shapes["fusion.f.t1c.bias"] == (32,)
    assert [shapes[f"{head}.weight"] for head in ("modality_heads.t1", "average_head", "head")] == [
        (4, 32, 1, 1, 1)
    ] * 3


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_the_presets_by_hand(preset: str) -> None:
    """Four U-Nets, four f_m and six heads, counted from the widths; and the real network has the same shapes."""
    config = PRESETS[preset]
    c = config.features_per_stage
    steps = list(itertools.pairwise(c))
    down = 27 * (c[0] + c[0] ** 2) + sum(27 * (a * b + b * b) for a, b in steps)
    up = sum(8 * a * b + 27 * (2 * a * a + a * a) for a, b in steps)
    norms = 2 * (2 * sum(c) + 2 * sum(c[:-1]))
    attention = 27 * 2 * c[0] ** 2 + c[0]
    heads = 6 * (4 * c[0] + 4)
    assert sum(map(math.prod, parameter_shapes(config).values())) == 4 * (down + up + norms + attention) + heads


def test_shapes_are_those_of_the_real_network() -> None:
    shapes = {name: tuple(value.shape) for name, value in network().state_dict().items()}
    assert parameter_shapes(CONFIG) == shapes


def test_bf16_is_near_fp32() -> None:
    net, images = network(), random_images(1, 4, 16, 16, 16)
    exact = net(images, [True] * 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = net(images, [True] * 4).float()
    assert (near - exact).norm().item() < 0.03 * exact.norm().item()


@pytest.mark.cuda
@pytest.mark.parametrize("names", [("t1c",), ("t1", "t2", "flair")], ids="+".join)
def test_cuda_gives_what_the_cpu_gives(names: tuple[str, ...]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net, images, present = network(), random_images(2, 4, 16, 16, 16), CONFIG.presence(names)
    expected = net(images, present)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = net.to("cuda")(images.cuda(), present).cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)

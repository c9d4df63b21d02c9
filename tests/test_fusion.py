"""Equations (1) to (3) of the paper: as written, by the shared path, and what follows from them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.shared_fusion import AdaptiveFusion, average

CONFIG = ModelConfig(features_per_stage=(4, 8), patch_size=(8, 8, 8))
SUBSETS = [flags for flags in itertools.product((False, True), repeat=4) if any(flags)]


def name_of(flags: tuple[bool, ...]) -> str:
    return "+".join(itertools.compress(CONFIG.modalities, flags))


@pytest.fixture(scope="module")
def net() -> A2FSeg:
    """A random network whose f_m is strong enough for the sigmoid to leave its middle."""
    torch.manual_seed(0)
    net = A2FSeg(CONFIG).requires_grad_(False)
    for parameter in net.fusion.parameters():
        parameter.mul_(8)
    return net


@pytest.fixture(scope="module")
def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(2, 4, 5, 6, 7, generator=generator) for m in CONFIG.modalities}


def by_hand(net: A2FSeg, present: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return F_avg, Fhat and What_m, formula by formula, from the kernels themselves."""
    mean = sum(present.values()) / len(present)
    w = {}
    for m, feature in present.items():
        f = net.fusion.f[m]
        assert isinstance(f, nn.Conv3d)
        w[m] = 1 / (1 + torch.exp(-F.conv3d(torch.cat([mean, feature], dim=1), f.weight, f.bias, padding=1)))  # (1)
    total = sum(torch.exp(one) for one in w.values())
    what = {m: torch.exp(one) / total for m, one in w.items()}  # (2)
    fused = sum(what[m] * present[m] for m in present)  # (3)
    assert isinstance(mean, Tensor)
    assert isinstance(fused, Tensor)
    return mean, fused, what


@pytest.mark.parametrize("flags", SUBSETS, ids=name_of)
def test_equations_are_the_papers(net: A2FSeg, features: dict[str, Tensor], flags: tuple[bool, ...]) -> None:
    present = {m: features[m] for m in itertools.compress(CONFIG.modalities, flags)}
    mean, fused, what = by_hand(net, present)
    found = net.equations(present)
    torch.testing.assert_close(found.average, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.fused, fused, atol=1e-5, rtol=1e-5)
    assert list(found.weights) == list(present)
    for m, weight in found.weights.items():
        torch.testing.assert_close(weight, what[m], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flags", SUBSETS, ids=name_of)
def test_the_fast_path_is_equations_1_to_3(net: A2FSeg, features: dict[str, Tensor], flags: tuple[bool, ...]) -> None:
    names = net.present_names(flags)
    expected = net.equations({m: features[m] for m in names})
    output = net.fuse(features, flags, attention=True)
    torch.testing.assert_close(output.logits, net.head(expected.fused), atol=1e-5, rtol=1e-5)
    assert tuple(output.attention) == names
    for m in names:
        weight = expected.weights[m].mean(dim=1, keepdim=True)
        torch.testing.assert_close(output.attention[m], weight, atol=1e-5, rtol=1e-5)
    assert net.fuse(features, flags).attention == {}
    (fused,) = net.fusion.fuse_subsets(features, [names], averages=True)
    torch.testing.assert_close(fused.average, expected.average, atol=1e-5, rtol=1e-5)
    assert next(net.fusion.fuse_subsets(features, [names])).average is None


def test_attention_is_float32_and_sums_to_one_in_bf16(net: A2FSeg, features: dict[str, Tensor]) -> None:
    """The mean over the channels is taken in float32: bf16 would round the share of each modality to 1/256."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net.fuse({m: value.bfloat16() for m, value in features.items()}, SUBSETS[-1], attention=True)
    weights = torch.stack(list(found.attention.values()))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 1, 5, 6, 7), atol=4e-3, rtol=0)
    exact = net.fuse(features, SUBSETS[-1], attention=True)
    for m, weight in exact.attention.items():
        torch.testing.assert_close(found.attention[m], weight, atol=5e-3, rtol=0)


def test_autograd_changes_nothing(net: A2FSeg, features: dict[str, Tensor]) -> None:
    """The path of training, which overwrites nothing, gives the same; and features are left as they were."""
    flags, before = SUBSETS[-1], {m: value.clone() for m, value in features.items()}
    plain = net.fuse(features, flags, attention=True)
    assert all(torch.equal(value, before[m]) for m, value in features.items())
    with torch.enable_grad():
        net.head.requires_grad_(True)
        training = net.fuse(features, flags, attention=True)
        net.head.requires_grad_(False)
    torch.testing.assert_close(training.logits, plain.logits, atol=1e-6, rtol=1e-5)
    for m, weight in plain.attention.items():
        torch.testing.assert_close(training.attention[m], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("flags", SUBSETS, ids=name_of)
def test_attention_sums_to_one_within_its_bounds(
    net: A2FSeg, features: dict[str, Tensor], flags: tuple[bool, ...]
) -> None:
    """No modality can dominate: 1 / (1 + (N - 1) e) <= What_m <= e / (e + N - 1)."""
    weights = torch.stack(list(net.fuse(features, flags, attention=True).attention.values()))
    n = sum(flags)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 1, 5, 6, 7))
    assert weights.min().item() >= 1 / (1 + (n - 1) * math.e) - 1e-6
    assert weights.max().item() <= math.e / (math.e + n - 1) + 1e-6


def test_bounds_are_reached_by_saturated_sigmoids() -> None:
    """W = 1 for t1 and 0 for the other three: e / (e + 3) = 0.4754 and 1 / (e + 3) = 0.1749 each."""
    fusion = AdaptiveFusion(CONFIG.modalities, channels=2, kernel_size=1).requires_grad_(False)
    for m in CONFIG.modalities:
        fusion.f[m].weight.zero_()  # type: ignore[union-attr, operator]
        fusion.f[m].bias.fill_(100 if m == "t1" else -100)  # type: ignore[union-attr, operator]
    features = {m: torch.full((1, 2, 1, 1, 1), 10.0**i) for i, m in enumerate(CONFIG.modalities)}
    own = {m: fusion.maps(feature, own=[m])[0][m] for m, feature in features.items()}
    context = fusion.maps(average(list(features.values())), context=CONFIG.modalities)[1]
    fused, what = fusion.fuse(features, own, {m: [one] for m, one in context.items()}, attention=True)
    assert what["t1"].flatten().tolist() == pytest.approx([0.47537] * 2, abs=1e-5)
    assert what["flair"].flatten().tolist() == pytest.approx([0.17488] * 2, abs=1e-5)
    assert fused.flatten().tolist() == pytest.approx([(math.e + 1110) / (math.e + 3)] * 2, rel=1e-5)


@pytest.mark.parametrize("name", CONFIG.modalities)
def test_one_modality_is_itself(net: A2FSeg, features: dict[str, Tensor], name: str) -> None:
    output = net.fuse({name: features[name]}, CONFIG.presence([name]), attention=True)
    assert torch.equal(output.logits, net.head(features[name]))
    assert torch.equal(output.attention[name], torch.ones(2, 1, 5, 6, 7))
    (fused,) = net.fusion.fuse_subsets({name: features[name]}, [(name,)], averages=True)
    assert fused.average is features[name]
    assert fused.features is features[name]
    literal = net.equations({name: features[name]})
    assert torch.equal(literal.fused, features[name])
    assert torch.equal(literal.average, features[name])


def test_average_is_the_plain_mean() -> None:
    one, two, six = (torch.full((1, 1, 1, 1, 1), value) for value in (1.0, 2.0, 6.0))
    assert average([one, two, six]).item() == 3
    assert average([one, two]).item() == 1.5
    assert average([six]) is six


@pytest.mark.parametrize(
    "subsets", [SUBSETS, SUBSETS[::-1], [SUBSETS[-1]], SUBSETS[:7], [SUBSETS[0], SUBSETS[3]]], ids=len
)
def test_sharing_changes_nothing(net: A2FSeg, features: dict[str, Tensor], subsets: list[tuple[bool, ...]]) -> None:
    chosen, flags = [net.present_names(subset) for subset in subsets], [True] * len(subsets)
    together = list(net.fusion.fuse_subsets(features, chosen, averages=True, attention=flags))
    assert len(together) == len(subsets)
    for names, shared in zip(chosen, together, strict=True):
        alone = net.equations({m: features[m] for m in names})
        torch.testing.assert_close(shared.features, alone.fused, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(shared.average, alone.average, atol=1e-4, rtol=1e-4)
        assert list(shared.weights) == list(alone.weights)
        for m, weight in alone.weights.items():
            torch.testing.assert_close(shared.weights[m], weight, atol=1e-4, rtol=1e-4)


def test_all_fifteen_subsets_take_twenty_half_convolutions(
    net: A2FSeg, features: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four B_m(F_m) and sixteen A_m(F_k), as four convolutions from 4 to 20 channels; the rest are heads."""
    pairs_of_channels = []
    convolve = F.conv3d

    def counted(x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        if weight.shape[2] == 3:
            pairs_of_channels.append((weight.shape[1], weight.shape[0]))
        return convolve(x, weight, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "conv3d", counted)
    list(net.fuse_subsets(features, SUBSETS))
    assert sorted(pairs_of_channels) == [(4, 20)] * 4
    pairs_of_channels.clear()
    net.fuse(features, SUBSETS[-1])
    assert sorted(pairs_of_channels) == [(4, 4)] * 4 + [(4, 16)]


def test_features_of_absent_modalities_are_not_asked_for(net: A2FSeg, features: dict[str, Tensor]) -> None:
    two = {m: features[m] for m in ("t1", "t2")}
    masks = [CONFIG.presence(["t1"]), CONFIG.presence(["t1", "t2"])]
    (first, second) = net.fuse_subsets(two, masks, attention=[False, True])
    assert list(first.attention) == []
    assert list(second.attention) == ["t1", "t2"]
    with pytest.raises(KeyError):
        net.fuse(two, CONFIG.presence(["t1", "flair"]))

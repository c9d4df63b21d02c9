"""Parts of A2FSeg left out, as Table 2 of its paper does: what is left follows from the equations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig, all_subsets
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.settings import network_and_recipe
from a2fseg_cli.weights.file_format import load_weights, save_weights

CONFIG = ModelConfig(features_per_stage=(4, 8), patch_size=(8, 8, 8))
SUBSETS = [CONFIG.presence(names) for names in all_subsets(CONFIG.modalities)]
ALL = (True,) * 4
ABLATED = [("average-only",), ("no-context",), ("no-modality-heads",), ("average-only", "no-modality-heads")]


def network(*ablation: str) -> A2FSeg:
    torch.manual_seed(0)
    return A2FSeg(replace(CONFIG, ablation=ablation))


def random_images() -> Tensor:
    return torch.randn((1, 4, 8, 8, 8), generator=torch.Generator().manual_seed(7))


def shapes_without(*ablation: str) -> set[str]:
    return set(parameter_shapes(CONFIG)) - set(parameter_shapes(replace(CONFIG, ablation=ablation)))


def test_the_average_alone() -> None:
    """Its head predicts, from the mean of the features and nothing else; there is no attention to ask for."""
    net, images = network("average-only").requires_grad_(False), random_images()
    features = net.encode(images, ALL)
    for present in SUBSETS:
        names = net.present_names(present)
        mean = torch.stack([features[m] for m in names]).mean(dim=0)
        torch.testing.assert_close(net.fuse(features, present).logits, net.average_head(mean))
        torch.testing.assert_close(net(images, present), net.average_head(mean))
    assert not net.has_attention
    assert net.fuse(features, ALL, attention=True).attention == {}
    assert {name.split(".")[0] for name in shapes_without("average-only")} == {"fusion", "head"}
    assert len(net.training_outputs(images, [ALL, SUBSETS[0]]).heads) == 4 + 2  # on each F_m, on F_avg of each subset


def test_attention_without_the_average() -> None:
    """W_m = sigmoid(f_m(F_m)): f_m has half the kernels, and the fast path is the equations."""
    net, images = network("no-context").requires_grad_(False), random_images()
    assert parameter_shapes(net.config)["fusion.f.t1.weight"] == (4, 4, 3, 3, 3)
    assert parameter_shapes(CONFIG)["fusion.f.t1.weight"] == (4, 8, 3, 3, 3)
    features = net.encode(images, ALL)
    for present, output in zip(SUBSETS, net.fuse_subsets(features, SUBSETS, [True] * 15), strict=True):
        names = net.present_names(present)
        exponentials = {m: net.fusion.f[m](features[m]).sigmoid().exp() for m in names}
        total = torch.stack(list(exponentials.values())).sum(dim=0)
        fused = torch.stack([exponentials[m] * features[m] for m in names]).sum(dim=0) / total
        torch.testing.assert_close(output.logits, net.head(fused), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(images, present), output.logits, atol=1e-5, rtol=1e-5)
        assert tuple(output.attention) == names
    assert len(net.training_outputs(images, [ALL, SUBSETS[0]]).heads) == 4 + 2 * 2


def test_no_heads_on_single_modalities() -> None:
    """The prediction is that of the whole network with the same parameters; only the loss has fewer terms."""
    net, whole, images = network("no-modality-heads"), network(), random_images()
    net.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("modality_heads")})
    assert torch.equal(net(images, SUBSETS[6]), whole(images, SUBSETS[6]))
    assert {name.split(".")[0] for name in shapes_without("no-modality-heads")} == {"modality_heads"}
    heads = net.training_outputs(images, [ALL]).heads
    assert [
        torch.equal(*pair) for pair in zip(heads, whole.training_outputs(images, [ALL]).heads[4:], strict=True)
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize("ablation", ABLATED)
def test_every_parameter_learns(ablation: tuple[str, ...]) -> None:
    net = network(*ablation)
    heads = net.training_outputs(random_images(), [ALL, SUBSETS[2]]).heads
    total_loss(heads, torch.zeros(1, 8, 8, 8, dtype=torch.uint8)).backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("ablation", ABLATED)
def test_it_travels_with_the_weights(ablation: tuple[str, ...], tmp_path: Path) -> None:
    net = network(*ablation)
    save_weights(tmp_path / "w.safetensors", net.state_dict(), net.config, {}, dtype="float32")
    weights, tensors = load_weights(tmp_path / "w.safetensors", parameter_shapes)
    assert weights.config == net.config
    assert tensors.keys() == net.state_dict().keys()


def test_a_whole_network_says_nothing_of_it() -> None:
    """So that its file is the same as before there were ablations, and earlier versions read it."""
    assert "ablation" not in CONFIG.to_json()
    assert ModelConfig.from_json(CONFIG.to_json()) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ablation": ("decoder",)}, "expected some of average-only, no-context, no-modality-heads"),
        ({"ablation": ("no-context", "no-context")}, "each once"),
        ({"ablation": ("no-context", "average-only")}, "leaves nothing for no-context"),
        ({"ablation": ("no-context",), "architecture": "rfnet"}, "parts of a2fseg, and the network is rfnet"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_asked_for_in_a_training() -> None:
    assert network_and_recipe("tiny", {"ablation": ["average-only"]})[0].ablation == ("average-only",)
    with pytest.raises(UsageError, match="ablation: parts of a2fseg, and the network is hemis"):
        network_and_recipe("tiny", {"network": "hemis", "ablation": ["no-context"]})

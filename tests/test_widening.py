"""A wider network that starts as the function of a narrower one, and learns more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import WeightsError
from a2fseg_cli.training.initial import initial_weights
from a2fseg_cli.training.widening import widened
from a2fseg_cli.weights.file_format import save_weights

NARROW = ModelConfig(features_per_stage=(3, 5, 6), patch_size=(8, 8, 8), spacing_mm=(2, 2, 2))
WIDE = replace(NARROW, features_per_stage=(7, 9, 6))
MASKS = [(True, True, True, True), (True, False, False, True), (False, True, False, False)]


def trained_a_little(config: ModelConfig) -> A2FSeg:
    """A network whose norms and biases are not those of a new one."""
    torch.manual_seed(1)
    net = A2FSeg(config)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return net.requires_grad_(False)


@pytest.mark.parametrize("ablation", [(), ("average-only",), ("no-context",), ("no-modality-heads",)])
def test_a_widened_network_is_the_same_function(ablation: tuple[str, ...]) -> None:
    narrow, wide = trained_a_little(replace(NARROW, ablation=ablation)), A2FSeg(replace(WIDE, ablation=ablation))
    wide.load_state_dict(widened(narrow.state_dict(), narrow.config, WIDE.features_per_stage))
    wide.requires_grad_(False)
    images = torch.randn(1, 4, 12, 8, 16)
    for mask in MASKS:
        torch.testing.assert_close(wide(images, mask), narrow(images, mask), atol=2e-5, rtol=1e-4)
        heads = wide.training_outputs(images, [mask]).heads
        for old, new in zip(narrow.training_outputs(images, [mask]).heads, heads, strict=True):
            torch.testing.assert_close(new, old, atol=2e-5, rtol=1e-4)


def test_modalities_may_be_called_like_parts_of_the_network() -> None:
    config = replace(NARROW, modalities=("up", "merge", "fusion", "down"))
    narrow, wide = trained_a_little(config), A2FSeg(replace(config, features_per_stage=(7, 9, 6)))
    wide.load_state_dict(widened(narrow.state_dict(), config, (7, 9, 6)))
    images = torch.randn(1, 4, 8, 8, 8)
    torch.testing.assert_close(wide(images, MASKS[0]), narrow(images, MASKS[0]), atol=2e-5, rtol=1e-4)


def test_what_another_ablation_shapes_otherwise_starts_at_random_as_without_more_channels(tmp_path: Path) -> None:
    """f_m without the average reads C channels, with it 2C: 4 of 8 would fit into 8 of 8, and be another function."""
    file = tmp_path / "narrow.safetensors"
    context = replace(NARROW, features_per_stage=(4, 8))
    save_weights(file, trained_a_little(context).state_dict(), context, {})
    for widths in ((4, 8), (8, 8)):
        taken = initial_weights(file, replace(context, features_per_stage=widths, ablation=("no-context",))).tensors
        assert "fusion.f.t1.weight" not in taken
        assert "encoders.t1.up.0.weight" in taken


def test_the_new_channels_learn() -> None:
    torch.manual_seed(0)
    wide = A2FSeg(WIDE)
    wide.load_state_dict(widened(trained_a_little(NARROW).state_dict(), NARROW, WIDE.features_per_stage))
    images, target = torch.randn(1, 4, 16, 16, 16), torch.randint(0, 4, (1, 16, 16, 16))
    optimizer = torch.optim.Adam(wide.parameters(), lr=0.01)
    losses = []
    before = {name: value.detach().clone() for name, value in wide.named_parameters()}
    for _ in range(3):
        loss = total_loss(wide.training_outputs(images, MASKS).heads, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    first = "encoders.t1.down.0.0.0.weight"  # (7, 1, 3, 3, 3), three of them old
    for name in (first, "encoders.t1.merge.1.0.0.weight", "fusion.f.t1.weight"):
        moved = (wide.get_parameter(name).detach() - before[name]).abs().sum(dim=(1, 2, 3, 4))
        assert (moved > 0).all(), name


def test_a_wider_network_starts_from_a_narrower_file_and_not_the_other_way_round(tmp_path: Path) -> None:
    narrow, wide = tmp_path / "narrow.safetensors", tmp_path / "wide.safetensors"
    save_weights(narrow, trained_a_little(NARROW).state_dict(), NARROW, {})
    initial = initial_weights(narrow, WIDE)
    assert {name: tuple(value.shape) for name, value in initial.tensors.items()} == parameter_shapes(WIDE)
    assert "widened to 7,9,6 channels, were 3,5,6" in initial.note
    again = initial_weights(narrow, WIDE).tensors  # what is drawn is drawn alike by every process
    assert all(torch.equal(value, again[name]) for name, value in initial.tensors.items())
    save_weights(wide, dict(initial.tensors), WIDE, {})
    for config in (NARROW, replace(WIDE, features_per_stage=(9, 9, 5)), replace(WIDE, features_per_stage=(7, 9))):
        with pytest.raises(WeightsError, match="features_per_stage"):
            initial_weights(wide, config)


def test_other_classes_modalities_and_blocks_may_come_with_more_channels(tmp_path: Path) -> None:
    file = tmp_path / "narrow.safetensors"
    save_weights(file, trained_a_little(NARROW).state_dict(), NARROW, {})
    classes = ("background", "lesion")
    other = replace(
        WIDE,
        modalities=("flair", "dwi"),
        classes=classes,
        label_values=(0, 1),
        regions=(("all", ("lesion",)),),
        sub_voxels=2,
        patch_size=(16, 16, 16),
    )
    taken = initial_weights(file, other).tensors
    shapes = parameter_shapes(other)
    assert {name: tuple(value.shape) for name, value in taken.items()} == {
        name: shape for name, shape in shapes.items() if "dwi" not in name and "head" not in name
    }

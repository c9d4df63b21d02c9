"""Blocks of voxels as channels: the order of voxels, the start from weights without blocks, training and prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.core.sub_voxels import Head, blocks, offset, unfolded
from a2fseg_cli.errors import WeightsError
from a2fseg_cli.training.initial import in_blocks, initial_weights
from a2fseg_cli.weights.file_format import save_weights

PLAIN = ModelConfig(features_per_stage=(4, 8), patch_size=(8, 8, 8), spacing_mm=(2, 2, 2))
BLOCKS = replace(PLAIN, sub_voxels=2, spacing_mm=(1, 1, 1), patch_size=(16, 16, 16))
MASKS = [(True, True, True, True), (True, False, False, True), (False, True, False, False)]


def test_voxels_of_a_block_become_its_channels_and_come_back() -> None:
    image = torch.arange(4 * 2 * 6, dtype=torch.float32).reshape(1, 1, 4, 2, 6)
    read = blocks(image, 2)
    assert read.shape == (1, 8, 2, 1, 3)
    # voxel (z, y, x) = (3, 1, 4) has the number 3 * 12 + 1 * 6 + 4 = 46; it is (1, 1, 0) in block (1, 0, 2)
    assert offset(6, 2) == (1, 1, 0)
    assert read[0, 6, 1, 0, 2] == 46
    assert torch.equal(unfolded(read[:, None], 2), image)
    assert blocks(image, 1) is image


def test_a_head_writes_each_voxel_of_a_block_where_it_lies() -> None:
    head = Head(3, 4, edge=2)
    features = torch.randn(1, 3, 2, 3, 4)
    whole = head(features)
    assert whole.shape == (1, 4, 4, 6, 8)
    for index in range(8):
        z, y, x = offset(index, 2)
        torch.testing.assert_close(whole[:, :, z::2, y::2, x::2], head.of_one(features, index))
    assert head.bias is not None
    assert head.bias[:8].tolist() == [4.0] * 8
    assert not head.bias[8:].any()


def test_started_from_weights_without_blocks_it_is_the_same_function_of_the_mean_of_each_block() -> None:
    torch.manual_seed(0)
    plain, fine = A2FSeg(PLAIN).requires_grad_(False), A2FSeg(BLOCKS).requires_grad_(False)
    fine.load_state_dict(in_blocks(plain.state_dict(), 2))
    images = torch.randn(1, 4, 16, 16, 16)
    coarse = F.avg_pool3d(images, 2)
    for mask in MASKS:
        expected = plain(coarse, mask).repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
        torch.testing.assert_close(fine(images, mask), expected, atol=2e-5, rtol=1e-4)


def test_the_fast_path_and_the_attention_have_the_grid_of_the_images() -> None:
    torch.manual_seed(0)
    net = A2FSeg(BLOCKS).requires_grad_(False)
    images = torch.randn(1, 4, 16, 24, 16)
    features = net.encode(images, MASKS[0])
    for mask, output in zip(MASKS, net.fuse_subsets(features, MASKS, [True] * 3), strict=True):
        torch.testing.assert_close(output.logits, net(images, mask), atol=1e-5, rtol=1e-5)
        total = torch.stack(list(output.attention.values())).sum(dim=0)
        assert total.shape == (1, 1, 16, 24, 16)
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("ablation", [(), ("average-only",), ("no-modality-heads",)])
def test_the_loss_is_over_one_voxel_of_each_block_drawn_anew(ablation: tuple[str, ...]) -> None:
    net = A2FSeg(replace(BLOCKS, ablation=ablation))
    images, target = torch.randn(1, 4, 16, 16, 16), torch.randint(0, 4, (1, 16, 16, 16))
    starts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        outputs = net.training_outputs(images, MASKS)
        starts.add(tuple(part.start for part in outputs.voxels))
        assert {tuple(head.shape) for head in outputs.heads} == {(1, 4, 8, 8, 8)}
        total_loss(outputs.heads, target[(slice(None), *outputs.voxels)]).backward()
    assert len(starts) == 8
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in net.parameters())
    z, y, x = (part.start for part in outputs.voxels)
    final = net.forward(images, MASKS[2])[:, :, z::2, y::2, x::2]
    torch.testing.assert_close(outputs.heads[-1], final, atol=1e-5, rtol=1e-5)


def test_weights_without_blocks_are_a_start_and_not_the_other_way_round(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file, fine_file = tmp_path / "plain.safetensors", tmp_path / "fine.safetensors"
    save_weights(file, A2FSeg(PLAIN).state_dict(), PLAIN, {})
    initial = initial_weights(file, BLOCKS)
    assert {name: tuple(value.shape) for name, value in initial.tensors.items()} == parameter_shapes(BLOCKS)
    assert "blocks of 2 voxels an edge, were 1" in initial.note
    save_weights(fine_file, dict(initial.tensors), BLOCKS, {})
    assert parameter_shapes(BLOCKS) == {
        n: tuple(v.shape) for n, v in initial_weights(fine_file, BLOCKS).tensors.items()
    }
    with pytest.raises(WeightsError, match="sub_voxels"):
        initial_weights(fine_file, PLAIN)


def test_blocks_are_of_a2fseg_and_their_edges_fit_the_windows() -> None:
    assert (BLOCKS.stride, BLOCKS.smallest_edge, BLOCKS.edge_step) == (4, 8, 4)
    with pytest.raises(ValueError, match="sub_voxels"):
        replace(BLOCKS, architecture="hemis")
    with pytest.raises(ValueError, match="sub_voxels"):
        replace(BLOCKS, sub_voxels=5)
    with pytest.raises(ValueError, match="multiples of 2"):
        A2FSeg(BLOCKS)(torch.zeros(1, 4, 16, 17, 16), MASKS[0])
    assert '"sub_voxels": 2' in BLOCKS.to_json()
    assert ModelConfig.from_json(BLOCKS.to_json()) == BLOCKS
    assert "sub_voxels" not in PLAIN.to_json()

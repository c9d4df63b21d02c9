"""Equations (4) and (5) of the paper, by hand and against torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from a2fseg_cli.core.losses import segmentation_loss, total_loss


def literal_loss(logits: Tensor, target: Tensor, groups: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Cross-entropy by torch, soft Dice group by group; logits (B, classes, D, H, W)."""
    p = logits.softmax(dim=1)
    dice = []
    for group in groups or [(k,) for k in range(1, logits.shape[1])]:
        p_group, g = p[:, list(group)].sum(dim=1), torch.isin(target, torch.tensor(group)).float()
        dice.append((2 * (p_group * g).sum() + 1) / (p_group.sum() + g.sum() + 1))
    return F.cross_entropy(logits, target.long()) + 1 - torch.stack(dice).mean()


def test_two_voxels_by_hand() -> None:
    """Voxel 1 is background with p = (3/4, 1/4), voxel 2 is foreground with p = (1/2, 1/2).

    Cross-entropy -(ln 3/4 + ln 1/2) / 2 = 0.4904; Dice (2 * 1/2 + 1) / (1/4 + 1/2 + 1 + 1) = 2 / 2.75.
    """
    probabilities = torch.tensor([[0.75, 0.5], [0.25, 0.5]])
    logits = probabilities.log().reshape(1, 1, 2, 1, 1, 2)
    target = torch.tensor([0, 1]).reshape(1, 1, 1, 2)
    expected = -(math.log(0.75) + math.log(0.5)) / 2 + 1 - 2 / 2.75
    assert segmentation_loss(logits, target).item() == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.4904 + 0.2727, abs=1e-4)


@pytest.mark.parametrize(("heads", "batch", "classes"), [(1, 1, 2), (3, 2, 4), (2, 1, 7)])
def test_every_head_is_torchs_cross_entropy_plus_literal_dice(heads: int, batch: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(heads, batch, classes, 3, 4, 5, generator=generator)
    target = torch.randint(classes, (batch, 3, 4, 5), generator=generator, dtype=torch.uint8)
    expected = torch.stack([literal_loss(head, target) for head in logits])
    torch.testing.assert_close(segmentation_loss(logits, target), expected, atol=1e-5, rtol=1e-5)


def test_dice_over_nested_regions() -> None:
    """WT, TC and ET; one class taken for another of the same region costs nothing there."""
    generator = torch.Generator().manual_seed(8)
    logits = 3 * torch.randn(2, 2, 4, 4, 5, 6, generator=generator)
    target = torch.randint(4, (2, 4, 5, 6), generator=generator, dtype=torch.uint8)
    groups = ((1, 2, 3), (1, 3), (3,))
    expected = torch.stack([literal_loss(head, target, groups) for head in logits])
    torch.testing.assert_close(segmentation_loss(logits, target, groups=groups), expected, atol=1e-5, rtol=1e-5)
    sure = 50 * F.one_hot(target.long(), 4).permute(0, 4, 1, 2, 3).float()
    swapped = sure[None][:, :, [0, 3, 2, 1]]  # necrosis for enhancing tumour and the reverse
    assert (
        segmentation_loss(swapped, target, groups=groups[:2]) - F.cross_entropy(swapped[0], target.long())
    ).abs() < 1e-5


def test_weight_of_the_foreground_is_torchs() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(2, 2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(3, (2, 4, 5, 6), generator=generator, dtype=torch.uint8)
    plain, weighted = segmentation_loss(logits, target), segmentation_loss(logits, target, foreground_weight=7.0)
    for head, one, other in zip(logits, plain, weighted, strict=True):
        unweighted = F.cross_entropy(head, target.long())
        expected = F.cross_entropy(head, target.long(), weight=torch.tensor([1.0, 7.0, 7.0]))
        assert (other - one).item() == pytest.approx((expected - unweighted).item(), abs=1e-5)
        assert abs((expected - unweighted).item()) > 0.01


def test_total_is_the_sum_of_the_heads() -> None:
    """Equation (5): sum over m of L_m + L_avg + L_adp; of two subsets in one step, the last two of both."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 3, 2, 2, 2, generator=generator) for _ in range(7)]
    target = torch.randint(3, (1, 2, 2, 2), generator=generator)
    losses = torch.stack([literal_loss(head, target) for head in maps])
    one = total_loss(maps[:5], target)
    torch.testing.assert_close(one, losses[:5].sum(), atol=1e-5, rtol=1e-5)
    two = total_loss(maps, target)
    torch.testing.assert_close(two, losses.sum(), atol=1e-5, rtol=1e-5)


def test_perfect_and_wrong_predictions() -> None:
    target = torch.randint(4, (1, 6, 6, 6), generator=torch.Generator().manual_seed(1))
    perfect = 50 * F.one_hot(target, 4).permute(0, 4, 1, 2, 3).float()
    right = segmentation_loss(perfect[None], target).item()
    wrong = segmentation_loss(perfect.roll(1, dims=1)[None], target).item()
    assert right == pytest.approx(0, abs=1e-5)
    assert wrong > 50


def test_a_class_that_is_neither_there_nor_predicted_costs_nothing() -> None:
    target = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    logits = torch.zeros(1, 1, 3, 4, 4, 4)
    logits[:, :, 0] = 60
    assert segmentation_loss(logits, target).item() == pytest.approx(0, abs=1e-5)


def test_bf16_logits_are_summed_in_float32() -> None:
    """32768 voxels: bf16 sums would stop growing at 256."""
    logits = torch.randn(1, 1, 2, 32, 32, 32, generator=torch.Generator().manual_seed(2)).bfloat16().requires_grad_()
    target = (logits[0, :, 1] > 0).to(torch.uint8)
    loss = segmentation_loss(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, segmentation_loss(logits.float(), target))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
    assert bool(logits.grad.isfinite().all())

"""Windows: what a plan promises, and values pushed through every tiling."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.inference.windows import (
    WindowPlan,
    gaussian_importance,
    plan_windows,
    stream_windows,
)

SHAPES = st.tuples(*[st.integers(1, 260)] * 3)
ROUGH_SHAPES = st.tuples(*[st.floats(0.01, 10)] * 3)
SMALL_SHAPES = st.tuples(*[st.integers(1, 20)] * 3)
STRIDES = st.sampled_from([2, 4, 8, 16, 32])
OVERLAPS = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.floats(0, 0.8))


def assert_sound(plan: WindowPlan, stride: int, overlap: float) -> None:
    """Multiples of the stride; windows inside the padded volume, over all of it, overlapping as asked."""
    assert all(edge % stride == 0 and edge >= 2 * stride for edge in plan.window)
    for axis, (length, padded, edge) in enumerate(zip(plan.shape, plan.padded, plan.window, strict=True)):
        starts = sorted({start[axis] for start in plan.starts})
        assert padded == max(length, edge)
        assert starts[0] == 0
        assert starts[-1] + edge == padded
        for one, following in itertools.pairwise(starts):
            assert following - one <= max(1, edge * (1 - overlap) + 1e-6)
    axes = [sorted({start[axis] for start in plan.starts}) for axis in range(3)]
    assert list(plan.starts) == list(itertools.product(*axes))


@given(ROUGH_SHAPES, STRIDES, OVERLAPS, st.sampled_from([math.inf, 1.0, 1.3, 3.0, 20.0]))
def test_planned_windows_are_sound(
    strides: tuple[float, float, float], stride: int, overlap: float, room: float
) -> None:
    """`strides`: the volume's edges in strides. `room`: how many smallest windows fit into memory."""
    depth, height, width = (math.ceil(stride * edge) for edge in strides)
    most = room * (2 * stride) ** 3
    plan = plan_windows((depth, height, width), 2 * stride, stride, max_voxels=most, overlap=overlap)
    assert_sound(plan, stride, overlap)
    assert math.prod(plan.window) <= most
    assert plan.voxels == len(plan.starts) * math.prod(plan.window)


@given(SHAPES, STRIDES, OVERLAPS, st.tuples(*[st.integers(1, 200)] * 3))
def test_windows_asked_for_are_sound(
    shape: tuple[int, int, int], stride: int, overlap: float, window: tuple[int, int, int]
) -> None:
    plan = plan_windows(shape, 2 * stride, stride, overlap=overlap, window=window)
    assert_sound(plan, stride, overlap)
    assert all(0 <= edge - max(asked, 2 * stride) < stride for edge, asked in zip(plan.window, window, strict=True))


@given(SHAPES, STRIDES)
def test_with_memory_to_spare_one_window_is_enough(shape: tuple[int, int, int], stride: int) -> None:
    """The volume rounded up to the stride, and never more work than windows of 128 cubed at half overlap."""
    plan = plan_windows(shape, 2 * stride, stride)
    assert plan.starts == ((0, 0, 0),)
    assert plan.window == tuple(max(2 * stride, stride * math.ceil(length / stride)) for length in shape)
    assert plan.voxels <= plan_windows(shape, 2 * stride, stride, window=(128, 128, 128)).voxels


@given(SMALL_SHAPES, st.floats(0, 0.8), st.integers(64, 2000))
def test_no_other_window_needs_less_work(shape: tuple[int, int, int], overlap: float, most: int) -> None:
    """Against every window there is, for stride 2."""
    best = plan_windows(shape, 4, 2, max_voxels=most, overlap=overlap)
    edges = [range(4, max(4, length + length % 2) + 1, 2) for length in shape]
    for window in itertools.product(*edges):
        if math.prod(window) <= most:
            assert best.voxels <= plan_windows(shape, 4, 2, overlap=overlap, window=window).voxels


def test_a_brain_in_one_window() -> None:
    """140 x 175 x 140 with stride 16: one window of 144 x 176 x 144, 3.65 million voxels; 128 cubed needs 8."""
    plan = plan_windows((140, 175, 140), 32, 16)
    assert (plan.window, plan.starts, plan.voxels) == ((144, 176, 144), ((0, 0, 0),), 3_649_536)
    eight = plan_windows((140, 175, 140), 32, 16, window=(128, 128, 128))
    assert (len(eight.starts), eight.voxels) == (8, 16_777_216)


def test_a_whole_volume_in_windows_of_128() -> None:
    """155 x 240 x 240 at half overlap: 2 x 3 x 3 windows, the last flush with the end."""
    plan = plan_windows((155, 240, 240), 32, 16, window=(128, 128, 128))
    assert sorted({start[0] for start in plan.starts}) == [0, 27]
    assert sorted({start[1] for start in plan.starts}) == [0, 56, 112]
    assert len(plan.starts) == 18


def test_too_little_memory_makes_windows_smaller() -> None:
    plans = [plan_windows((140, 175, 140), 32, 16, max_voxels=most) for most in (4e6, 2e6, 1e6, 3e5, 4e4)]
    windows = [math.prod(plan.window) for plan in plans]
    assert windows == sorted(windows, reverse=True)
    assert len(set(windows)) == 5
    assert [plan.voxels for plan in plans] == sorted(plan.voxels for plan in plans)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 2.0, math.nan])
def test_refuses_an_overlap_out_of_range(overlap: float) -> None:
    with pytest.raises(ValueError, match="overlap"):
        plan_windows((64, 64, 64), 32, 16, overlap=overlap)


def test_refuses_when_the_smallest_window_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"at least \(32, 32, 32\)"):
        plan_windows((64, 64, 64), 32, 16, max_voxels=32**3 - 1)


def test_an_overlap_close_to_one_is_planned_in_time() -> None:
    plan = plan_windows((40, 8, 8), 4, 2, max_voxels=1000, overlap=0.99999)
    assert_sound(plan, 2, 0.99999)


def test_importance_by_hand() -> None:
    """Standard deviation edge / 8 = 2: exp(-(0.5 / 2)^2 / 2) at each of the 8 voxels around the centre of 16."""
    importance = gaussian_importance((16, 16, 16))
    assert importance[7, 7, 8].item() == pytest.approx(math.exp(-3 / 32), rel=1e-6)
    assert importance[7, 7, 12].item() == pytest.approx(math.exp(-2 / 32 - 4.5**2 / 8), rel=1e-6)
    assert importance.min().item() == pytest.approx(1e-3)
    torch.testing.assert_close(importance, importance.flip(0).transpose(1, 2))


@given(SMALL_SHAPES, st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.integers(64, 3000), st.integers(0, 9))
def test_an_identity_returns_the_input(shape: tuple[int, int, int], overlap: float, most: int, seed: int) -> None:
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    plan = plan_windows(shape, 4, 2, max_voxels=most, overlap=overlap)
    (same,) = stream_windows(lambda window: [window], images, plan)
    torch.testing.assert_close(same, images, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("most", [math.inf, 500, 64])
def test_a_constant_stays_constant(most: float) -> None:
    plan = plan_windows((11, 13, 10), 4, 2, max_voxels=most)
    (result,) = stream_windows(lambda window: [torch.full_like(window, 5000)], torch.zeros(1, 11, 13, 10), plan)
    assert result.shape == (1, 11, 13, 10)
    assert result.sub(5000).abs().max().item() < 0.01


def test_two_windows_blend_by_importance() -> None:
    """Windows 0 to 3 and 2 to 5 say 1 and 3. At voxel 2 the distances from the centres are 0.5 and 1.5."""
    plan = plan_windows((4, 4, 6), 4, 2, window=(4, 4, 4))
    assert plan.starts == ((0, 0, 0), (0, 0, 2))
    answers = iter([1.0, 3.0])
    (result,) = stream_windows(lambda window: [torch.full_like(window, next(answers))], torch.zeros(1, 4, 4, 6), plan)
    near, far = math.exp(-0.5 * (0.5 / 0.5) ** 2), math.exp(-0.5 * (1.5 / 0.5) ** 2)
    middle = result[0, 1, 1]
    assert middle[[0, 1, 4, 5]].tolist() == [1, 1, 3, 3]
    # In y and z the voxel lies 0.5 from the centre: the floor of 1e-3 is not reached.
    assert middle[2].item() == pytest.approx((near + 3 * far) / (near + far), rel=1e-4)


@pytest.mark.parametrize("most", [math.inf, 256])
def test_several_results_keep_their_order_and_type(most: float) -> None:
    images = torch.randn(2, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    plan = plan_windows((9, 8, 7), 4, 2, max_voxels=most)
    assert (len(plan.starts) > 1) == (most == 256)

    def predict(window: Tensor) -> Iterator[Tensor]:
        yield window[:, :1].bfloat16()
        yield torch.cat([window, 2 * window], dim=1)

    first, second = stream_windows(predict, images, plan)
    assert (first.dtype, first.shape, second.shape) == (torch.float32, (1, 9, 8, 7), (4, 9, 8, 7))
    torch.testing.assert_close(first, images[:1], atol=0.02, rtol=0.01)
    torch.testing.assert_close(second, torch.cat([images, 2 * images]), atol=1e-5, rtol=1e-5)
    for streamed, whole in zip(stream_windows(predict, images, plan), (first, second), strict=True):
        assert torch.equal(streamed, whole)


def test_padding_is_zero_and_at_the_far_end() -> None:
    plan = plan_windows((3, 5, 6), 4, 2)
    seen = []
    (result,) = stream_windows(lambda window: [seen.append(window) or window], torch.ones(1, 3, 5, 6), plan)  # type: ignore[func-returns-value]
    assert seen[0].shape == (1, 1, 4, 6, 6)
    assert seen[0].sum().item() == 3 * 5 * 6
    assert seen[0][0, 0, :3, :5].min().item() == 1
    assert result.shape == (1, 3, 5, 6)


def test_refuses_a_plan_for_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(8, 8, 8\).*\(8, 8, 9\)"):
        next(stream_windows(lambda window: [window], torch.zeros(1, 8, 8, 9), plan_windows((8, 8, 8), 4, 2)))


def network() -> A2FSeg:
    torch.manual_seed(0)
    return A2FSeg(ModelConfig(features_per_stage=(4, 8, 16), patch_size=(16, 16, 16))).requires_grad_(False)


def test_monai_gives_the_same() -> None:
    """Windows of 16 at half overlap start at 0, 8 (and 16) in both; the same Gaussian, the same network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inferers = pytest.importorskip("monai.inferers")
    net, images = network(), torch.randn(4, 24, 32, 24, generator=torch.Generator().manual_seed(1))
    present = (True, False, True, True)
    plan = plan_windows((24, 32, 24), 8, 4, window=(16, 16, 16))
    assert len(plan.starts) == 2 * 3 * 2
    (ours,) = stream_windows(lambda window: [net(window, present)], images, plan)
    theirs = inferers.sliding_window_inference(
        images[None], (16, 16, 16), 1, lambda window: net(window, present), overlap=0.5, mode="gaussian"
    )[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.cuda
def test_windows_on_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net, images = network(), torch.randn(4, 24, 32, 24, generator=torch.Generator().manual_seed(1))
    plan = plan_windows((24, 32, 24), 8, 4, max_voxels=16**3)
    (expected,) = stream_windows(lambda window: [net(window, [True] * 4)], images, plan)
    net = net.cuda()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        (found,) = stream_windows(lambda window: [net(window, [True] * 4)], images, plan, "cuda")
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)

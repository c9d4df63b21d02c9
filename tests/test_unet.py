"""The U-Net and its norm, against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.unet import InstanceNorm, UNet

FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("batch", [1, 2])
def test_instance_norm_is_torchs(batch: int, layout: str) -> None:
    generator = torch.Generator().manual_seed(batch)
    ours, theirs = InstanceNorm(5), nn.InstanceNorm3d(5, affine=True)
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = torch.randn(5, generator=generator)
            getattr(ours, name).copy_(values)
            getattr(theirs, name).copy_(values)
    x = (3 * torch.randn(batch, 5, 4, 6, 3, generator=generator) + 7).contiguous(memory_format=FORMATS[layout])
    direction = torch.randn(x.shape, generator=generator)
    results, gradients = [], []
    for norm in (ours, theirs):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = norm(leaf)
        (y * direction).sum().backward()
        results.append(y)
        gradients.append((leaf.grad, norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)
    assert results[0].is_contiguous(memory_format=FORMATS[layout])


def test_instance_norm_by_hand() -> None:
    """Voxels 1 and 3: mean 2, variance 1, so -1 and 1; with weight 2 and bias 5, 3 and 7."""
    norm = InstanceNorm(1)
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(5)
        y = norm(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 1, 2))
    torch.testing.assert_close(y.flatten(), torch.tensor([3.0, 7.0]), atol=1e-4, rtol=0)


def literal_two_stages(net: UNet, x: Tensor) -> Tensor:
    """The U-Net with two stages, written out with torch's functions."""

    def block(weights: nn.Module, x: Tensor, stride: int = 1) -> Tensor:
        convolution, norm = weights[0], weights[1]  # type: ignore[index]
        x = F.conv3d(x, convolution.weight, stride=stride, padding=1)
        return F.leaky_relu(F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5), 0.01)

    fine, coarse, merge = net.down[0], net.down[1], net.merge[0]
    skip = block(fine[1], block(fine[0], x))  # type: ignore[index]
    deep = block(coarse[1], block(coarse[0], skip, stride=2))  # type: ignore[index]
    up = F.conv_transpose3d(deep, net.up[0].weight, stride=2)  # type: ignore[arg-type]
    up = up[:, :, : x.shape[2], : x.shape[3], : x.shape[4]]
    return block(merge[1], block(merge[0], torch.cat([up, skip], dim=1)))  # type: ignore[index]


@pytest.mark.parametrize("edges", [(6, 4, 8), (5, 7, 3)], ids=["even", "odd"])
@pytest.mark.parametrize("batch", [1, 2])
def test_two_stages_written_out(batch: int, edges: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    net = UNet((3, 5))
    x = torch.randn(batch, 1, *edges)
    with torch.no_grad():
        torch.testing.assert_close(net(x), literal_two_stages(net, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("features", [(4, 8, 16), (1, 2), (1, 1, 1, 3)])
def test_features_come_at_the_inputs_resolution(features: tuple[int, ...]) -> None:
    stride = 2 ** (len(features) - 1)
    for edges in ((2 * stride, 3 * stride, 4 * stride), (2 * stride + 1, 3 * stride - 1, 4 * stride)):
        with torch.no_grad():
            assert UNet(features)(torch.randn(2, 1, *edges)).shape == (2, features[0], *edges)


@pytest.mark.parametrize("batch", [1, 2])
def test_channels_last_is_kept_on_the_fast_path(batch: int) -> None:
    """In bf16: for one small fp32 window torch takes a plain convolution of its own that is contiguous."""
    net = UNet((4, 8, 16)).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    seen: list[tuple[str, bool]] = []
    for name, module in net.named_modules():
        if isinstance(module, InstanceNorm):
            module.register_forward_hook(
                lambda _, __, y, name=name: seen.append((name, y.is_contiguous(memory_format=torch.channels_last_3d)))
            )
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(torch.randn(batch, 1, 8, 8, 8))
    assert len(seen) == 10
    assert all(kept for _, kept in seen), seen
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert not y.is_contiguous()


def test_parameters_by_hand() -> None:
    """Widths (4, 8): two blocks down at each stage, one transposed convolution, two blocks up."""
    norms = 2 * (4 + 4 + 8 + 8 + 4 + 4)
    convolutions = 27 * (1 * 4 + 4 * 4 + 4 * 8 + 8 * 8 + 8 * 4 + 4 * 4)
    transposed = 8 * (8 * 4)
    assert sum(p.numel() for p in UNet((4, 8)).parameters()) == norms + convolutions + transposed

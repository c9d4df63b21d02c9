"""The optimisers a recipe can name. Muon, the one of the CPU presets, is written here: torch's takes no 3D kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from a2fseg_cli.training.recipe import Recipe

# Matrices with fewer values than this are the first layer's, the heads' and the norms': Adam suits them better.
_SMALLEST_MATRIX = 1024


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for the parameters."""
    chosen = list(parameters)
    if recipe.optimizer == "muon":
        return Muon(chosen, recipe.learning_rate, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(chosen, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.Adam(chosen, lr=recipe.learning_rate, fused=True)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    A convolution kernel is the matrix (out, in * edge^3). Its Nesterov momentum is replaced by the nearest
    matrix with all singular values near 1, so that rare directions move as far as common ones. Everything that
    is not a large kernel is left to Adam, at a tenth of the learning rate.

    Args:
        parameters: Of the network.
        lr: Length of a step of the orthogonalised update.
        weight_decay: Of the kernels, decoupled, times lr.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        kernels: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for parameter in parameters:
            large = parameter.ndim == 5 and parameter.numel() >= _SMALLEST_MATRIX
            (kernels if large else rest).append(parameter)
        defaults = {"lr": lr, "weight_decay": weight_decay}
        super().__init__([{"params": kernels, "orthogonal": True}, {"params": rest, "orthogonal": False}], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            (self._orthogonal if group["orthogonal"] else self._adam)(moving, group)

    def _orthogonal(self, kernels: list[Tensor], group: dict[str, Any], momentum: float = 0.95) -> None:
        alike = defaultdict(list)  # the U-Nets of the modalities have the same shapes: one batch of matrices each
        for kernel in kernels:
            assert kernel.grad is not None
            mean = self.state[kernel].setdefault("momentum", torch.zeros_like(kernel))
            mean.lerp_(kernel.grad, 1 - momentum)
            direction = kernel.grad.lerp(mean, momentum)
            alike[kernel.shape].append((kernel, direction.reshape(len(kernel), -1)))
        for pairs in alike.values():
            updates = orthogonalised(torch.stack([matrix for _, matrix in pairs]))
            scale = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
            for (kernel, _), update in zip(pairs, updates, strict=True):
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.sub_(update.reshape(kernel.shape), alpha=group["lr"] * scale)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any], beta1: float = 0.9, beta2: float = 0.999) -> None:
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
            state["step"] += 1
            state["mean"].lerp_(gradient, 1 - beta1)
            state["square"].lerp_(gradient.square(), 1 - beta2)
            mean = state["mean"] / (1 - beta1 ** state["step"])
            root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(1e-8)
            parameter.addcdiv_(mean, root, value=-0.1 * group["lr"])


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return the matrices (N, rows, columns) with their singular values brought to 0.7 to 1.2, in float32.

    Five Newton-Schulz iterations with Jordan's quintic, whose slope at 0 is large: small singular values grow
    3.4-fold an iteration, those near 1 stay near 1. In bfloat16, which is accurate enough for a direction.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide: Tensor = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x: Tensor = (wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.float()
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT

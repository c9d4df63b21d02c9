"""The optimisers: what they move, and Muon's orthogonalised step by hand and against an SVD."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from a2fseg_cli.training.optimizers import Muon, make_optimizer, orthogonalised
from a2fseg_cli.training.recipe import Recipe


@pytest.mark.parametrize("shape", [(3, 16, 54), (1, 40, 24), (2, 8, 8)], ids=str)
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    """Directions stay (U and V of the matrix), lengths become 0.6 to 1.3, though they differed a hundredfold."""
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    spread = u @ torch.diag_embed(torch.logspace(0, -2, s.shape[1]).expand_as(s)) @ v
    found = u.mT @ orthogonalised(spread) @ v.mT
    lengths = found.diagonal(dim1=1, dim2=2)
    assert bool(((lengths > 0.6) & (lengths < 1.3)).all()), lengths
    torch.testing.assert_close(found - torch.diag_embed(lengths), torch.zeros_like(found), atol=0.1, rtol=0)


def test_a_first_step_by_hand() -> None:
    """A gradient with one direction, 3 e1 e1': the kernel moves by lr sqrt(64 / 32) along it; decay 1 - lr wd."""
    kernel = nn.Parameter(torch.ones(64, 32, 1, 1, 1))
    optimizer = Muon([kernel], lr=0.1, weight_decay=0.5)
    kernel.grad = torch.zeros_like(kernel)
    kernel.grad[0, 0] = 3
    optimizer.step()
    expected = torch.full_like(kernel, 1 - 0.1 * 0.5)
    moved = (expected - kernel)[0, 0].item()
    assert 0.65 < moved / (0.1 * 2**0.5) < 1.25  # singular values are brought near 1, not to 1
    expected[0, 0] -= moved
    torch.testing.assert_close(kernel.detach(), expected.detach(), atol=1e-6, rtol=0)


def test_small_parameters_are_adams_at_a_tenth_of_the_rate() -> None:
    parameters = [nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.randn(4, 2, 1, 1, 1))]
    twins = [nn.Parameter(p.detach().clone()) for p in parameters]
    ours, torchs = Muon(parameters, lr=0.1, weight_decay=0.0), torch.optim.Adam(twins, lr=0.01)
    random = torch.Generator().manual_seed(1)
    for _ in range(5):
        for one, other in zip(parameters, twins, strict=True):
            one.grad = torch.randn(one.shape, generator=random)
            other.grad = one.grad.clone()
        ours.step()
        torchs.step()
    for one, other in zip(parameters, twins, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), atol=1e-6, rtol=1e-5)


def test_what_has_no_gradient_stays() -> None:
    """An encoder whose modality the patient lacks: neither its weights nor their momentum move."""
    for name in ("muon", "adam", "adamw"):
        parameters = [nn.Parameter(torch.ones(64, 32, 1, 1, 1)), nn.Parameter(torch.ones(3))]
        optimizer = make_optimizer(parameters, Recipe(optimizer=name))
        optimizer.step()
        assert all(bool((p == 1).all()) for p in parameters)
        assert not optimizer.state_dict()["state"]


def test_every_name_of_a_recipe_is_an_optimizer() -> None:
    kinds = {name: type(make_optimizer([nn.Parameter(torch.ones(3))], Recipe(optimizer=name))) for name in
             ("adam", "adamw", "muon")}  # fmt: skip
    assert kinds == {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}

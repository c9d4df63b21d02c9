"""The yardstick: the same network as a user would write it, in plain PyTorch, fp32, contiguous, nn.InstanceNorm3d."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.unet import InstanceNorm


class PlainA2FSeg(nn.Module):
    """A2FSeg as the paper's equations read, with the weights of one of ours.

    Args:
        ours: Whose weights are copied.
    """

    def __init__(self, ours: A2FSeg) -> None:
        super().__init__()
        self.config = ours.config
        self.net = A2FSeg(ours.config)
        self.net.load_state_dict(ours.state_dict())
        for module in list(self.net.modules()):
            for name, child in module.named_children():
                if isinstance(child, InstanceNorm):
                    norm = nn.InstanceNorm3d(len(child.weight), affine=True)
                    norm.load_state_dict(child.state_dict())
                    setattr(module, name, norm)

    def heads(self, images: Tensor, subsets: Sequence[Sequence[bool]]) -> list[Tensor]:
        """Return the logits of the head on every F_m, then of each subset's average and fused features."""
        names = self.config.modalities
        features = {m: self.net.encoders[m](images[:, i : i + 1]) for i, m in enumerate(names)}
        logits = [self.net.modality_heads[m](feature) for m, feature in features.items()]
        for flags in subsets:
            present = {m: features[m] for m, flag in zip(names, flags, strict=True) if flag}
            mean = torch.stack(list(present.values())).mean(dim=0)
            w = {m: torch.sigmoid(self.net.fusion.f[m](torch.cat([mean, f], dim=1))) for m, f in present.items()}
            weights = torch.stack(list(w.values())).softmax(dim=0)
            fused = (weights * torch.stack(list(present.values()))).sum(dim=0)
            logits += [self.net.average_head(mean), self.net.head(fused)]
        return logits

    def forward(self, images: Tensor, present: Sequence[bool]) -> Tensor:
        """Return the logits (B, classes, D, H, W) of images (B, M, D, H, W); every encoder runs."""
        return self.heads(images, [present])[-1]

    def loss(self, images: Tensor, subsets: Sequence[Sequence[bool]], target: Tensor) -> Tensor:
        """Return equation (5): cross-entropy plus soft Dice of every head."""
        total = images.new_zeros(())
        onehot = F.one_hot(target.long(), len(self.config.classes)).movedim(-1, 1).float()
        for logits in self.heads(images, subsets):
            p = logits.softmax(dim=1)
            overlap, size = ((p * onehot).sum(dim=(0, 2, 3, 4)), (p + onehot).sum(dim=(0, 2, 3, 4)))
            dice = (2 * overlap + 1) / (size + 1)
            total = total + F.cross_entropy(logits, target.long()) + 1 - dice[1:].mean()
        return total

"""The yardstick: the same network as a user would write it, in plain PyTorch, fp32, contiguous, nn.InstanceNorm3d.

The fusion is `A2FSeg.equations`, the paper's word for word.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    def forward(self, images: Tensor, present: Sequence[bool]) -> Tensor:
        """Return the logits (B, classes, D, H, W) of images (B, M, D, H, W)."""
        logits: Tensor = self.net(images, present)
        return logits

    def heads(self, images: Tensor, subsets: Sequence[Sequence[bool]]) -> list[Tensor]:
        """Return the logits of the head on every F_m, then of each subset's average and fused features."""
        net = self.net
        features = net.encode(images, subsets[0])
        logits = [net.modality_heads[m](f_m) for m, f_m in features.items()]
        for present in subsets:
            fused = net.equations({m: features[m] for m in net.present_names(present)})
            logits += [net.average_head(fused.average), net.head(fused.fused)]
        return logits

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

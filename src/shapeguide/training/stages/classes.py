"""Class indices, masks and class probabilities: from one to the other."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Class indices (B, I, J, K) to one-hot float32 (B, count, I, J, K)."""
    wanted = torch.arange(count, device=classes.device, dtype=classes.dtype)
    return (classes[:, None] == wanted[None, :, None, None, None]).float()


def with_background(masks: Tensor) -> Tensor:
    """Masks (B, S, I, J, K) to probabilities (B, 1 + S, I, J, K); overlaps are shared out."""
    background = (1 - masks.sum(1, keepdim=True)).clamp(min=0)
    everything = torch.cat([background, masks], dim=1)
    return everything / everything.sum(1, keepdim=True)

"""What is drawn or measured alike wherever something is made wrong: smooth noise, balls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def smooth_noise(
    like: Tensor, cells: Sequence[int], *, align_corners: bool, generator: torch.Generator
) -> Tensor:
    """Noise of standard deviation about 1, drawn in cells and interpolated between them.

    Args:
        like: Gives batch size, spatial shape and device, shape (B, ..., I, J, K).
        cells: How many there are along each axis.
        align_corners: The outermost cells lie on the outermost voxels, and not half a cell inside.
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (B, 1, I, J, K).
    """
    noise = torch.randn((len(like), 1, *cells), generator=generator).to(like.device)
    return functional.interpolate(
        noise, size=list(like.shape[-3:]), mode="trilinear", align_corners=align_corners
    )


def ball_radius_mm(volume_mm3: float) -> float:
    """Radius of the ball of that volume."""
    return float((volume_mm3 * 3 / (4 * math.pi)) ** (1 / 3))

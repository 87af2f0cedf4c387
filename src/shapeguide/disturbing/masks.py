"""Masks made wrong on purpose: what a segmenter's mistakes look like to the shape network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shapeguide.disturbing.fields import smooth_noise

SHRINK_OR_GROW_VOXELS = 1.5
ROUGHNESS = 0.35
NOISE_VOXELS = 4
"""Size of the cells of the noise that roughens an edge."""
MOST_TRUNCATED = 0.35


def corrupt(masks: Tensor, *, generator: torch.Generator) -> Tensor:
    """Erode or dilate, roughen, truncate and add a stray blob, each with random size and chance.

    Args:
        masks: Binary masks, shape (B, S, I, J, K).
        generator: Source of all randomness, on the CPU.

    Returns:
        Binary masks, same shape, float32. Every structure of an item has its own corruption.
    """
    flat = masks.float().flatten(0, 1)[:, None]
    chosen = torch.rand((4, len(flat)), generator=generator).to(flat.device) < 0.4
    # An item without any corruption would be a same-case pair: it gets the first.
    chosen[0] |= ~chosen.any(0)
    level = _level_set(flat)
    grown = _uniform(len(flat), generator, flat.device) * SHRINK_OR_GROW_VOXELS * chosen[0]
    cells = [max(2, length // NOISE_VOXELS) for length in flat.shape[2:]]
    noise = smooth_noise(flat, cells, align_corners=False, generator=generator)
    rough = noise * ROUGHNESS * 3 * chosen[1][:, None, None, None, None]
    corrupted = (level + grown[:, None, None, None, None] + rough > 0).float()
    _truncate(corrupted, chosen[2].tolist(), generator)
    _add_ball(corrupted, chosen[3].tolist(), generator)
    # Nothing left is no shape: such an item stays as it was.
    left = corrupted.flatten(1).any(1)[:, None, None, None, None]
    return torch.where(left, corrupted, flat).reshape(masks.shape)


def soften(masks: Tensor, *, generator: torch.Generator) -> Tensor:
    """Binary masks (B, S, I, J, K) to probabilities with an edge of random softness."""
    flat = masks.float().flatten(0, 1)[:, None]
    softness = torch.rand(len(flat), generator=generator).to(flat.device) * 0.8 + 0.2
    soft = torch.sigmoid(_level_set(flat) / softness[:, None, None, None, None])
    # Far from the edge a prediction is certain.
    return (soft * (_blur(flat) > 0)).reshape(masks.shape)


def _level_set(masks: Tensor) -> Tensor:
    """Signed distance to the edge, in voxels, about and within two of them; positive inside."""
    grown, shrunk = masks, masks
    level = masks - 0.5
    for _ in range(2):
        grown, shrunk = _dilated(grown), 1 - _dilated(1 - shrunk)
        level = level + shrunk - (1 - grown)
    return _blur(level)


def _dilated(masks: Tensor) -> Tensor:
    """Largest value among the 27 neighbours; axis by axis, which is far faster than pooling."""
    for axis in (2, 3, 4):
        length = masks.shape[axis]
        wide = masks.clone()
        low, high = wide.narrow(axis, 0, length - 1), wide.narrow(axis, 1, length - 1)
        torch.maximum(low, masks.narrow(axis, 1, length - 1), out=low)
        torch.maximum(high, masks.narrow(axis, 0, length - 1), out=high)
        masks = wide
    return masks


def _blur(masks: Tensor) -> Tensor:
    """Mean of the 27 neighbours, or of those that exist; axis by axis, as `_dilated`."""
    for axis in (2, 3, 4):
        length = masks.shape[axis]
        low, high = masks.narrow(axis, 0, length - 1), masks.narrow(axis, 1, length - 1)
        total, shape = masks.clone(), [1] * masks.ndim
        total.narrow(axis, 0, length - 1).add_(high)
        total.narrow(axis, 1, length - 1).add_(low)
        places = torch.arange(length, device=masks.device)
        neighbours = 1 + (places > 0).float() + (places < length - 1).float()
        shape[axis] = length
        masks = total.div_(neighbours.reshape(shape))
    return masks


def _truncate(masks: Tensor, chosen: Sequence[bool], generator: torch.Generator) -> None:
    """Cut a random share off each chosen mask, by a plane of random direction, in place."""
    directions = torch.randn((len(masks), 3), generator=generator).to(masks.device)
    shares = (torch.rand(len(masks), generator=generator) * MOST_TRUNCATED).tolist()
    x, y, z = _positions(masks)
    for item in (place for place, cut in enumerate(chosen) if cut):
        along = directions[item]
        height = along[0] * x + along[1] * y + along[2] * z
        inside = height[masks[item, 0] > 0]
        if len(inside):
            sample = inside[:: max(1, len(inside) // 4096)]
            masks[item, 0] *= height <= torch.quantile(sample, 1 - shares[item])


def _add_ball(masks: Tensor, chosen: Sequence[bool], generator: torch.Generator) -> None:
    """Add a ball anywhere to each chosen mask, of 0.5 to 8 % of its volume, in place."""
    count, device = len(masks), masks.device
    lengths = torch.tensor(masks.shape[2:], device=device)
    centres = (torch.rand((count, 3), generator=generator).to(device) - 0.5) * lengths * 0.9
    shares = torch.rand(count, generator=generator).to(device) * 0.075 + 0.005
    radii = (masks.flatten(1).sum(1) * shares * 0.75 / torch.pi) ** (1 / 3)
    x, y, z = _positions(masks)
    for item in (place for place, added in enumerate(chosen) if added):
        i, j, k = centres[item]
        inside = (x - i).square() + (y - j).square() + (z - k).square() <= radii[item] ** 2
        masks[item, 0].masked_fill_(inside, 1.0)


def _positions(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Voxel positions from the middle of the grid: (I, 1, 1), (1, J, 1) and (1, 1, K)."""
    i, j, k = (torch.arange(n, device=masks.device) - (n - 1) / 2 for n in masks.shape[2:])
    return i[:, None, None], j[None, :, None], k[None, None, :]


def _uniform(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return (torch.rand(count, generator=generator) * 2 - 1).to(device)

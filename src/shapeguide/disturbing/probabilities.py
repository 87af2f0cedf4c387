"""Maps spoilt on purpose, the way segmenters err and scans lose slabs.

The stray shapes and missing parts are ours. Lengths are in units of the size of a structure: a
unit is a ninth of the radius of the ball of its mean volume, about 1 mm for a hippocampus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shapeguide.disturbing.fields import ball_radius_mm, smooth_noise

UNITS_PER_RADIUS = 9.0
WAVES = ((5.0, 1.5, 0.7), (9.0, 2.5, 0.6), (18.0, 2.5, 0.4))
"""Cell size and largest amplitude of the noise that moves an edge, units, and its chance."""
LEVEL_SHIFT, LEVEL_CHANCE = 1.5, 0.4
SOFTNESS = (0.4, 1.8)
SLAB_CHANCE, SLAB_SHARE = 0.5, 0.25
ERASED_CHANCE, LARGEST_REMNANT = 0.5, 0.6
BALL_CHANCE, BALL_RADIUS, BALL_SOFTNESS = 0.4, (1.5, 5.5), 0.6


def unit_mm(mean_volume_mm3: float) -> float:
    """Length of the unit of a structure of that mean volume; 1 mm for one that is never there."""
    radius_mm = ball_radius_mm(mean_volume_mm3)
    return radius_mm / UNITS_PER_RADIUS if radius_mm > 0 else 1.0


def spoil(
    distances_mm: Tensor,
    *,
    spacing_mm: Sequence[float],
    units_mm: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Probabilities of structures with waving, shifted, soft edges, lost slabs and stray balls.

    Args:
        distances_mm: Signed distances to the edge, positive inside, shape (B, S, I, J, K).
        spacing_mm: Voxel spacing.
        units_mm: Unit of each structure, see `unit_mm`.
        generator: Source of all randomness, on the CPU.

    Returns:
        Probabilities of each structure in [0, 1], same shape. Every structure of an item is
        spoilt on its own but for the slab, which they lose together.
    """
    spoilt = torch.stack(
        [
            _soft_edge(distances_mm[:, place], spacing_mm, unit, generator)
            for place, unit in enumerate(units_mm)
        ],
        dim=1,
    )
    spoilt = lose_slab(spoilt, chance=SLAB_CHANCE, generator=generator)
    balls = [_balls(spoilt[:, 0], spacing_mm, unit, generator) for unit in units_mm]
    return torch.maximum(spoilt, torch.stack(balls, dim=1))


def lose_slab(maps: Tensor, *, chance: float, generator: torch.Generator) -> Tensor:
    """Maps (B, S, I, J, K) of which items lose a slab across a random axis.

    The slab is up to a quarter of the axis thick and alike for all structures of an item; half of
    the slabs are erased, the others keep a random share of their values.

    Args:
        maps: Masks or probabilities of structures.
        chance: That an item loses a slab, in [0, 1].
        generator: Source of all randomness, on the CPU; takes six numbers for each item.
    """
    maps = maps.clone()
    for item in maps:
        lost, axis, share, place, erased, kept = torch.rand(6, generator=generator).tolist()
        if lost >= chance:
            continue
        direction = 1 + min(2, int(3 * axis))
        length = item.shape[direction]
        thickness = max(1, int(share * SLAB_SHARE * length))
        first = int(place * (length - thickness + 1))
        remnant = 0.0 if erased < ERASED_CHANCE else kept * LARGEST_REMNANT
        item.narrow(direction, first, thickness).mul_(remnant)
    return maps


def _soft_edge(
    distances_mm: Tensor, spacing_mm: Sequence[float], unit: float, generator: torch.Generator
) -> Tensor:
    """Distances (B, I, J, K) of one structure to probabilities whose edge waves and moves."""
    count, device = len(distances_mm), distances_mm.device

    def drawn(low: float, high: float, chance: float = 1.0) -> Tensor:
        values, luck = torch.rand((2, count), generator=generator)
        values = (values * (high - low) + low) * (luck < chance)
        placed: Tensor = values.to(device)[:, None, None, None]
        return placed

    moved = distances_mm / unit
    for cell, amplitude, chance in WAVES:
        cells = _cells(distances_mm, spacing_mm, cell * unit)
        waves = smooth_noise(distances_mm, cells, align_corners=True, generator=generator)
        moved = moved + drawn(0, amplitude, chance) * waves[:, 0]
    moved = moved + drawn(-LEVEL_SHIFT, LEVEL_SHIFT, LEVEL_CHANCE)
    return torch.sigmoid(moved / drawn(*SOFTNESS))


def _cells(like: Tensor, spacing_mm: Sequence[float], cell_mm: float) -> list[int]:
    return [
        max(2, min(length, round(length * step / cell_mm)))
        for length, step in zip(like.shape[1:], spacing_mm, strict=True)
    ]


def _balls(
    like: Tensor, spacing_mm: Sequence[float], unit: float, generator: torch.Generator
) -> Tensor:
    """A soft stray ball anywhere in the grid of some items, else zeros; shape (B, I, J, K)."""
    balls = torch.zeros_like(like)
    for ball in balls:
        i, j, k, radius, probability, luck = torch.rand(6, generator=generator).tolist()
        if luck >= BALL_CHANCE:
            continue
        smallest, largest = BALL_RADIUS
        squares = torch.zeros((), device=like.device)
        for axis, place in enumerate((i, j, k)):
            length = like.shape[1 + axis]
            offsets = torch.arange(length, device=like.device) + 0.5 - place * length
            shape = [length if other == axis else 1 for other in range(3)]
            squares = squares + (offsets * (spacing_mm[axis] / unit)).square().view(shape)
        inside = smallest + (largest - smallest) * radius - squares.sqrt()
        ball.copy_(torch.sigmoid(inside / BALL_SOFTNESS) * probability)
    return balls

"""Swelling: what is darker than a level grows or shrinks, as ventricles do with age.

The displacements are found on a coarse grid, in a few milliseconds. They follow from the image
itself, so they are found in training, where the image is, from what was drawn before.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from shapeguide.geometry.warp import warp_images

Spacing: TypeAlias = tuple[float, float, float]

EVENED_SHARE = 0.5
LEVELS = (0.15, 0.85)
"""Between the darkest and the brightest of an image; outside of these hardly anything lies."""
DARKEST, BRIGHTEST = 0.02, 0.98
"""Shares of the voxels that are darker than what counts as darkest, and as brightest."""
LEVEL_WIDTH = 0.08
"""Over so much of the range of an image, darker goes over into brighter."""
EDGE_WIDTH = 0.03
"""The same, where dark parts are evened."""
FAINT_STEP = 0.05
"""Steps between darker and brighter that are fainter than this over two cells move little."""
SQUARINGS = 4
"""The flow is followed in 2 to the power of so many steps; it folds nowhere."""


class Swellings(NamedTuple):
    """How each item swells, each of shape (B,)."""

    levels: Tensor
    """What counts as dark, from 0, the darkest of the image, to 1, the brightest."""
    amounts_mm: Tensor
    """How far the surface of the dark parts moves, towards the bright ones where positive."""
    fills: Tensor
    """How bright dark parts are at most, from 0, the darkest of the image, to 1, the level; 1 or
    more leaves them as they are."""

    def chosen(self, which: Tensor) -> Swellings:
        """Those of some of the items, bool (B,)."""
        return Swellings(*(part[which] for part in self))


def draw_swellings(
    most_mm: float, *, count: int, share: float, generator: torch.Generator
) -> Swellings:
    """Draw how items swell.

    Half of the dark parts that grow are evened: a ventricle is as dark as it is wide, and a slit
    that is drawn out would stay grey.

    Args:
        most_mm: Largest amount.
        count: Number of items, B.
        share: Chance of each item to swell, in [0, 1].
        generator: Source of all randomness, on the CPU.
    """
    numbers = torch.rand(4, count, generator=generator)
    lowest, highest = LEVELS
    amounts = most_mm * (2 * numbers[1] - 1) * (numbers[2] < share)
    fills = numbers[3] / EVENED_SHARE
    return Swellings(
        lowest + (highest - lowest) * numbers[0], amounts, torch.where(amounts > 0, fills, 1.0)
    )


def swelling_field(images: Tensor, swellings: Swellings, *, spacing_mm: Spacing) -> Tensor:
    """Where the voxels of swollen images are read, beside their own places.

    The surface between dark and bright is blurred over a few voxels, and everything near it moves
    along its normal: so this is for coarse images, of voxels of about 3 mm.

    Args:
        images: Coarse images, shape (B, 1, I, J, K).
        swellings: One for each.
        spacing_mm: Of the coarse images.

    Returns:
        Displacements in mm along the axes, shape (B, 3, I, J, K), at most as long as the amounts;
        none where an image is all alike.
    """
    dark = _darkness(images.float(), swellings.levels.to(images.device))
    steps = torch.tensor(spacing_mm, dtype=torch.float32, device=images.device).view(3, 1, 1, 1)
    slopes = _slopes(_blurred(dark)) / steps * steps.mean()
    normals = slopes / (slopes.square().sum(1, keepdim=True) + FAINT_STEP**2).sqrt()
    amounts = swellings.amounts_mm.to(images.device).view(-1, 1, 1, 1, 1)
    flow_mm: Tensor = amounts * _blurred(_blurred(normals)) / 2**SQUARINGS
    for _ in range(SQUARINGS):
        flow_mm = flow_mm + moved(flow_mm, flow_mm, spacing_mm=spacing_mm)
    return flow_mm


def evened(images: Tensor, swellings: Swellings, *, every: int) -> Tensor:
    """Images whose dark parts are no brighter than the fill of each.

    Args:
        images: Shape (B, 1, I, J, K).
        swellings: One for each.
        every: Darkest and brightest are told by every so many voxels along each axis.
    """
    some = images[..., ::every, ::every, ::every].float()
    darkest, brightest = (part.view(-1, 1, 1, 1, 1) for part in _ends(some))
    levels, fills = (
        part.to(images.device).view(-1, 1, 1, 1, 1) for part in (swellings.levels, swellings.fills)
    )
    span = brightest - darkest
    level = darkest + span * levels
    width = (EDGE_WIDTH * span).clamp(min=torch.finfo(torch.float32).tiny)
    dark = torch.sigmoid((level - images) / width)
    filled = images + dark * (darkest + (level - darkest) * fills - images)
    return torch.where(fills < 1, torch.minimum(images, filled), images)


def moved(fields: Tensor, displacements_mm: Tensor, *, spacing_mm: Spacing) -> Tensor:
    """Fields (B, C, I, J, K) read beside each place; beyond the grid the nearest voxel goes on."""
    still = torch.eye(3, 4, dtype=torch.float64).expand(len(fields), 3, 4)
    return warp_images(fields, still, spacing_mm=spacing_mm, displacements_mm=displacements_mm)


def _darkness(images: Tensor, levels: Tensor) -> Tensor:
    """1 where an image is darker than its level, 0 where it is brighter, smooth between."""
    darkest, brightest = _ends(images)
    span = brightest - darkest
    level = darkest + span * levels
    width = (LEVEL_WIDTH * span).clamp(min=torch.finfo(torch.float32).tiny)
    column = (-1, 1, 1, 1, 1)
    return torch.sigmoid((level.view(column) - images) / width.view(column))


def _ends(images: Tensor) -> tuple[Tensor, Tensor]:
    """What counts as the darkest and the brightest of each image, each of shape (B,)."""
    ordered = images.flatten(1).sort(dim=1).values
    last = ordered.shape[1] - 1
    return ordered[:, round(DARKEST * last)], ordered[:, round(BRIGHTEST * last)]


def _blurred(images: Tensor) -> Tensor:
    return F.avg_pool3d(images, 3, stride=1, padding=1, count_include_pad=False)


def _slopes(images: Tensor) -> Tensor:
    """Difference of the two neighbours along each axis, shape (B, 3, I, J, K)."""
    wide = F.pad(images, (1,) * 6, mode="replicate")
    i, j, k = images.shape[2:]
    return torch.cat(
        [
            wide[:, :, 2:, 1:-1, 1:-1] - wide[:, :, :i, 1:-1, 1:-1],
            wide[:, :, 1:-1, 2:, 1:-1] - wide[:, :, 1:-1, :j, 1:-1],
            wide[:, :, 1:-1, 1:-1, 2:] - wide[:, :, 1:-1, 1:-1, :k],
        ],
        dim=1,
    )

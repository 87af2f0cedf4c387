"""How training images are varied: drawn first, on the CPU, and applied after, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from shapeguide.disturbing.scanner import bent
from shapeguide.geometry.warp import (
    displacement_field,
    draw_affine_warps,
    draw_displacements,
    warp_classes,
    warp_images,
)
from shapeguide.geometry.warp_limits import WarpLimits

VARIED_SHARE = 0.5
ELASTIC_CELL_MM = 16.0
"""About how far apart elastic displacements are drawn."""


class Warps(NamedTuple):
    """A random affine warp for each item, and which of them are warped."""

    matrices: Tensor
    """Shape (B, 3, 4), float64, as `draw_affine_warps` gives them."""
    chosen: Tensor
    """Bool (B,)."""
    displacements_mm: Tensor | None = None
    """Elastic displacements on top, as `draw_displacements` gives them."""


def draw_warps(
    limits: WarpLimits, *, count: int, share: float, generator: torch.Generator
) -> Warps:
    """Warps for a share of so many items.

    Args:
        limits: Ranges of the warps.
        count: Items, B.
        share: Chance of each item to be warped, in [0, 1].
        generator: Source of all randomness, on the CPU.
    """
    matrices = draw_affine_warps(limits, count=count, generator=generator)
    return Warps(matrices, torch.rand(count, generator=generator) < share)


def warp_batch(
    images: Tensor,
    classes: Tensor,
    warps: Warps,
    *,
    spacing_mm: tuple[float, float, float],
    context: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Tensor, Tensor]:
    """The chosen items under their warps, the same for image and labels.

    Args:
        images: Shape (B, C, I, J, K).
        classes: Class indices, shape (B, I, J, K).
        warps: One for each item.
        spacing_mm: Voxel spacing.
        context: Voxels at both ends of each axis that are left out: warps bring in what is there.
    """
    chosen = warps.chosen
    i, j, k = (
        slice(off, length - off) for off, length in zip(context, classes.shape[1:], strict=True)
    )
    varied = images[..., i, j, k], classes[..., i, j, k]
    if not chosen.any():
        return varied
    matrices = warps.matrices[chosen]
    field = None
    if warps.displacements_mm is not None:
        field = displacement_field(warps.displacements_mm[chosen], varied[1].shape[1:])
    found, labels = (tensor.clone(memory_format=torch.contiguous_format) for tensor in varied)
    found[chosen] = warp_images(
        images[chosen], matrices, spacing_mm=spacing_mm, margin=context, displacements_mm=field
    )
    labels[chosen] = warp_classes(
        classes[chosen], matrices, spacing_mm=spacing_mm, margin=context, displacements_mm=field
    )
    return found, labels


def with_displacements(
    warps: Warps,
    *,
    deviation_mm: float,
    extent_mm: Sequence[float],
    generator: torch.Generator,
) -> Warps:
    """The warps with elastic displacements on top.

    Args:
        warps: Affine ones.
        deviation_mm: Standard deviation of a displacement along an axis.
        extent_mm: Of the images.
        generator: Source of all randomness, on the CPU.
    """
    cells = [max(1, round(length / ELASTIC_CELL_MM)) for length in extent_mm]
    drawn = draw_displacements(
        deviation_mm, count=len(warps.chosen), cells=cells, generator=generator
    )
    return warps._replace(displacements_mm=drawn)


class Intensities(NamedTuple):
    """How the intensities of each item change, each of shape (B,); and its noise."""

    chosen: Tensor
    """Which items change at all, bool."""
    contrast: Tensor
    brightness: Tensor
    log_gamma: Tensor
    blur: Tensor
    """Share of the mean of the neighbours; none where negative."""
    noise: Tensor
    """Shape (B, 1, I, J, K)."""
    noise_deviation: Tensor
    """None where negative."""


def draw_intensities(shape: torch.Size, *, generator: torch.Generator) -> Intensities:
    """Random changes of images of this shape; what differs between scanners.

    Args:
        shape: Shape of the images, (B, 1, I, J, K).
        generator: Source of all randomness, on the CPU.
    """
    count = shape[0]

    def drawn(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    return Intensities(
        chosen=torch.rand(count, generator=generator) < VARIED_SHARE,
        contrast=drawn(0.75, 1.25),
        brightness=drawn(-0.3, 0.3),
        log_gamma=drawn(-0.35, 0.35),
        blur=drawn(-0.4, 0.8),
        # One draw of noise for a volume is costly; the sign keeps it symmetric.
        noise=torch.randn(shape, generator=generator),
        noise_deviation=drawn(-0.1, 0.25),
    )


def vary_intensities(images: Tensor, changes: Intensities) -> Tensor:
    """Change contrast, brightness and gamma, blur, and add noise.

    Args:
        images: Mean about 0 and standard deviation about 1, shape (B, 1, I, J, K).
        changes: Those of each item.

    Returns:
        Same shape. Half of the items come back as they were, so that most of what the network
        learns is still how scans look undisturbed.
    """
    chosen, contrast, brightness, log_gamma, blur, deviation = (
        part[:, None, None, None, None]
        for part in (
            changes.chosen,
            changes.contrast,
            changes.brightness,
            changes.log_gamma,
            changes.blur,
            changes.noise_deviation,
        )
    )
    low, high = images.amin((1, 2, 3, 4), keepdim=True), images.amax((1, 2, 3, 4), keepdim=True)
    varied = bent(images, log_gamma.exp(), low=low, high=high)
    varied = varied * contrast + brightness
    blurred = functional.avg_pool3d(varied, 3, stride=1, padding=1, count_include_pad=False)
    varied = torch.lerp(varied, blurred, blur.clamp(min=0))
    varied = varied + changes.noise * deviation.clamp(min=0)
    return torch.where(chosen, varied, images)

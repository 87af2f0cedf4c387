"""How training images are varied: drawn first, on the CPU, and applied after, wherever they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from shapeguide.disturbing.scanner import bent
from shapeguide.disturbing.swelling import Swellings, draw_swellings, evened, moved, swelling_field
from shapeguide.geometry.warp import (
    displacement_field,
    draw_displacements,
    draw_warps_of,
    warp_classes,
    warp_images,
)
from shapeguide.geometry.warp_limits import WarpLimits

VARIED_SHARE = 0.5
ELASTIC_CELL_MM = 16.0
"""About how far apart elastic displacements are drawn."""
SWELLING_CELL_MM = 3.0
"""About the voxels of the coarse images that swellings follow from."""


class Warps(NamedTuple):
    """A random affine warp for each item, and which of them are warped."""

    matrices: Tensor
    """Shape (B, 3, 4), float64, as `draw_warps_of` gives them."""
    chosen: Tensor
    """Bool (B,)."""
    displacements_mm: Tensor | None = None
    """Elastic displacements on top, as `draw_displacements` gives them."""
    swellings: Swellings | None = None
    """How the warped images swell."""


def draw_warps(
    limits: WarpLimits,
    classes: Tensor,
    *,
    spacing_mm: tuple[float, float, float],
    share: float,
    generator: torch.Generator,
) -> Warps:
    """Warps for a share of the items.

    Args:
        limits: Ranges of the warps.
        classes: Class indices of the items, with their context, shape (B, I, J, K).
        spacing_mm: Voxel spacing.
        share: Chance of each item to be warped, in [0, 1].
        generator: Source of all randomness, on the CPU.
    """
    matrices = draw_warps_of(limits, classes, spacing_mm=spacing_mm, generator=generator)
    return Warps(matrices, torch.rand(len(classes), generator=generator) < share)


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
    swellings = None if warps.swellings is None else warps.swellings.chosen(chosen)
    if swellings is not None and swellings.amounts_mm.any():
        field = _swollen(
            images[chosen, :1],
            matrices,
            swellings,
            field,
            spacing_mm=spacing_mm,
            context=context,
        )
    found, labels = (tensor.clone(memory_format=torch.contiguous_format) for tensor in varied)
    found[chosen] = warp_images(
        images[chosen], matrices, spacing_mm=spacing_mm, margin=context, displacements_mm=field
    )
    labels[chosen] = warp_classes(
        classes[chosen], matrices, spacing_mm=spacing_mm, margin=context, displacements_mm=field
    )
    if swellings is not None:
        found[chosen, :1] = evened(found[chosen, :1], swellings, every=_swelling_cell(spacing_mm))
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


def with_swellings(
    warps: Warps, *, most_mm: float, share: float, generator: torch.Generator
) -> Warps:
    """The warps with swellings on top.

    Args:
        warps: With or without elastic displacements.
        most_mm: How far the surfaces of what swells move at most.
        share: Chance of each item to swell, in [0, 1].
        generator: Source of all randomness, on the CPU.
    """
    drawn = draw_swellings(most_mm, count=len(warps.chosen), share=share, generator=generator)
    return warps._replace(swellings=drawn)


def _swollen(
    images: Tensor,
    matrices: Tensor,
    swellings: Swellings,
    field: Tensor | None,
    *,
    spacing_mm: tuple[float, float, float],
    context: tuple[int, int, int],
) -> Tensor:
    """Displacements (B, 3, I, J, K) of images that are warped and swell as they are after it.

    Args:
        images: Shape (B, 1, I, J, K), with context.
        matrices: Affine warps.
        swellings: One for each image.
        field: Displacements beside the affine warps; None for none.
        spacing_mm: Voxel spacing.
        context: Voxels at both ends of each axis that are left out.
    """
    cell = _swelling_cell(spacing_mm)
    coarse_mm = (cell * spacing_mm[0], cell * spacing_mm[1], cell * spacing_mm[2])
    shape = [n - 2 * off for n, off in zip(images.shape[2:], context, strict=True)]
    if field is None:
        field = images.new_zeros(len(images), 3, *shape, dtype=torch.float32)
    middles = [
        (torch.arange(-(-n // cell)) * cell + (cell - 1) // 2).clamp(max=n - 1) for n in shape
    ]
    beside = field[:, :, middles[0]][:, :, :, middles[1]][..., middles[2]]
    coarse = warp_images(
        images,
        matrices,
        spacing_mm=spacing_mm,
        coarsening=cell,
        margin=context,
        displacements_mm=beside,
    )
    swelling = swelling_field(coarse, swellings, spacing_mm=coarse_mm)
    # The warp takes the place that a voxel is read from to the image as it is stored.
    back = torch.linalg.inv(matrices[:, :, :3]).to(swelling)
    read = torch.einsum("bxy,byijk->bxijk", back, swelling)
    read = read + moved(beside, swelling, spacing_mm=coarse_mm)
    read = functional.interpolate(read, scale_factor=cell, mode="trilinear", align_corners=False)
    i, j, k = shape
    return read[..., :i, :j, :k]


def _swelling_cell(spacing_mm: tuple[float, float, float]) -> int:
    """Voxels along an edge of a cell of the coarse images."""
    return max(1, round(SWELLING_CELL_MM / math.prod(spacing_mm) ** (1 / 3)))


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

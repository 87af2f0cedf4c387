"""Faults of scanners in training images: drawn first, on the CPU, and made after, where images are.

Each is what the studies degrade test images by, from mild to about the middle of their severities;
the slab is here often faint instead of missing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shapeguide.disturbing.scanner import (
    BIAS_TERMS,
    biased,
    ghosted,
    in_thick_slices,
    rician,
    without_slab,
)

FAULTS = ("bias", "ghosts", "thick", "noise", "slab")
BIAS_LOG_GAIN = (0.2, 1.0)
GHOST_STRENGTH = (0.2, 0.8)
SLICE_MM = (2.0, 5.0)
NOISE_DEVIATION = (0.2, 1.0)
"""In standard deviations of the image."""
SLAB_SHARE = (0.03, 0.2)
"""Thickness, as a share of the extent along its axis."""
ERASED_CHANCE, LARGEST_REMNANT = 0.5, 0.8


class Faults(NamedTuple):
    """The faults of each item, and how bad each would be."""

    chosen: Tensor
    """Bool, shape (B, 5), in the order of `FAULTS`."""
    axes: Tensor
    """Axis of ghosts, slices and slab, 0 to 2, shape (B, 3)."""
    bias_weights: Tensor
    """Shape (B, 9), see `biased`."""
    sizes: Tensor
    """Largest logarithm of the gain, strength of ghosts, thickness of slices in mm, deviation of
    noise, thickness of the slab as a share; shape (B, 5), in the order of `FAULTS`."""
    slab: Tensor
    """Where it begins, as a share of where it can, and the share of the signal that it keeps;
    shape (B, 2)."""
    noise: Tensor
    """The noise of both channels, shape (B, 2, I, J, K); a single voxel when no item has any."""


def draw_faults(shape: torch.Size, *, share: float, generator: torch.Generator) -> Faults:
    """Faults for images of this shape.

    Args:
        shape: Shape of the images, (B, 1, I, J, K).
        share: Chance of each fault of an item, in [0, 1].
        generator: Source of all randomness, on the CPU.
    """
    count = shape[0]
    chosen = torch.rand((count, len(FAULTS)), generator=generator) < share
    axes = torch.randint(3, (count, 3), generator=generator)
    bias_weights = torch.randn((count, BIAS_TERMS), generator=generator)
    ranges = torch.tensor([BIAS_LOG_GAIN, GHOST_STRENGTH, SLICE_MM, NOISE_DEVIATION, SLAB_SHARE])
    low, high = ranges.unbind(1)
    sizes = low + (high - low) * torch.rand((count, len(FAULTS)), generator=generator)
    place, erased, kept = torch.rand((3, count), generator=generator)
    slab = torch.stack([place, kept * LARGEST_REMNANT * (erased >= ERASED_CHANCE)], dim=1)
    noisy = bool(chosen[:, FAULTS.index("noise")].any())
    extent = tuple(shape[2:]) if noisy else (1, 1, 1)
    noise = torch.randn((count, 2, *extent), generator=generator)
    return Faults(chosen, axes, bias_weights, sizes, slab, noise)


def make_faulty(
    images: Tensor, faults: Faults, *, spacing_mm: tuple[float, float, float]
) -> Tensor:
    """The images with the faults that were chosen for each.

    The least intensity of a channel is taken for no signal.

    Args:
        images: Standard deviation about 1, shape (B, 1, I, J, K).
        faults: Those of each item.
        spacing_mm: Voxel spacing.

    Returns:
        Same shape; items without a fault as they were.
    """
    if not faults.chosen.any():
        return images
    items = zip(
        images,
        faults.chosen.tolist(),
        faults.axes.tolist(),
        faults.bias_weights.tolist(),
        faults.sizes.tolist(),
        faults.slab.tolist(),
        faults.noise,
        strict=True,
    )
    made = []
    for image, chosen, axes, bias_weights, sizes, slab, noise in items:
        has = dict(zip(FAULTS, chosen, strict=True))
        log_gain, strength, slice_mm, deviation, slab_share = sizes
        ghost_axis, slice_axis, slab_axis = axes
        floor = image.amin((1, 2, 3), keepdim=True)
        if has["bias"]:
            image = biased(image, bias_weights, log_gain=log_gain, floor=floor)
        if has["ghosts"]:
            image = ghosted(image, ghost_axis, strength=strength)
        if has["thick"]:
            thickness = slice_mm / spacing_mm[slice_axis]
            image = in_thick_slices(image, slice_axis, thickness=thickness)
        if has["noise"]:
            real, imaginary = deviation * noise
            image = rician(image, (real, imaginary), floor=floor)
        if has["slab"]:
            length = image.shape[1 + slab_axis]
            thickness = max(1, round(slab_share * length))
            place, kept = slab
            first = int(place * (length - thickness + 1))
            image = without_slab(image, slab_axis, (first, thickness), kept=kept, floor=floor)
        made.append(image)
    return torch.stack(made)

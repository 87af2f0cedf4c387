"""What a scanner can do to an image, each by numbers that were drawn before; nothing is drawn here.

Every function takes images as tensors whose last three axes are I, J, K, changes nothing in place,
and works wherever the tensor is. `floor` is the intensity of no signal at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor as whole_part

import torch
from torch import Tensor

BIAS_TERMS = 9
"""Weights of a quadratic polynomial without its constant: i, j, k, ii, jj, kk, ij, ik, jk."""
GHOST_PERIOD = 3
SMALLEST = 1e-12


def biased(
    images: Tensor, weights: Sequence[float], *, log_gain: float, floor: Tensor | float
) -> Tensor:
    """Smooth gain: the exponential of a quadratic polynomial over the volume.

    Args:
        images: Shape (..., I, J, K).
        weights: Of the terms of the polynomial, `BIAS_TERMS` numbers.
        log_gain: Largest absolute logarithm of the gain, whose mean logarithm is 0.
        floor: Intensity that is no signal.
    """
    i, j, k = (
        torch.linspace(-1, 1, length, device=images.device).view(
            [length if other == axis else 1 for other in range(3)]
        )
        for axis, length in enumerate(images.shape[-3:])
    )
    a, b, c, aa, bb, cc, ab, ac, bc = weights
    # Two axes at a time: the last one is added over the whole volume once.
    plane = i * (a + aa * i + ab * j) + j * (b + bb * j)
    field = plane + k * (c + cc * k + ac * i + bc * j)
    field = field - field.mean()
    field *= log_gain / field.abs().amax().clamp(min=SMALLEST)
    return (images - floor) * field.exp() + floor


def ghosted(images: Tensor, axis: int, *, strength: float) -> Tensor:
    """Ghosts of periodic motion: every third line of k-space along one axis loses strength.

    The copies lie a third of the field of view apart; the lines in the middle, which hold the mean
    intensity, are kept.

    Args:
        images: Shape (..., I, J, K).
        axis: 0, 1 or 2.
        strength: Share of those lines that is lost, in [0, 1].
    """
    dim = axis - 3
    length = images.shape[dim]
    lines = torch.ones(length // 2 + 1, device=images.device)
    lines[GHOST_PERIOD::GHOST_PERIOD] -= strength
    spectrum = torch.fft.rfft(images.float(), dim=dim)
    shape = [len(lines) if other == axis else 1 for other in range(3)]
    ghosts: Tensor = torch.fft.irfft(spectrum * lines.view(shape), n=length, dim=dim)
    return ghosts


def without_slab(
    images: Tensor, axis: int, slab: tuple[int, int], *, kept: float, floor: Tensor | float
) -> Tensor:
    """A slab across one axis that keeps a share of its signal.

    Args:
        images: Shape (..., I, J, K).
        axis: 0, 1 or 2.
        slab: First voxel and thickness.
        kept: Share of the signal, 0 for none.
        floor: Intensity that is no signal.
    """
    images = images.clone()
    inside = images.narrow(axis - 3, *slab)
    inside.copy_((inside - floor) * kept + floor)
    return images


def in_thick_slices(images: Tensor, axis: int, *, thickness: float) -> Tensor:
    """Thick slices across one axis: averaged over their thickness, then interpolated linearly.

    Args:
        images: Shape (..., I, J, K).
        axis: 0, 1 or 2.
        thickness: And distance of the slices, in voxels, fractions allowed; 1 and less changes
            nothing.
    """
    if thickness <= 1:
        return images
    length = images.shape[axis - 3]
    averaged = _boxcar(images, thickness, axis - 3)
    centres = torch.arange((thickness - 1) / 2, length, thickness)
    slices = _between(averaged, centres, axis - 3)
    return _between(slices, (torch.arange(length) - centres[0]) / thickness, axis - 3)


def rician(images: Tensor, noise: tuple[Tensor, Tensor], *, floor: Tensor | float) -> Tensor:
    """Rician noise: the magnitude of a complex signal with normal noise in both channels.

    Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", 1995.

    Args:
        images: Shape (..., I, J, K).
        noise: That of the real and that of the imaginary channel, same shape.
        floor: Intensity that is no signal.
    """
    real, imaginary = noise
    return torch.hypot(images - floor + real, imaginary) + floor


def bent(
    images: Tensor, gamma: Tensor | float, *, low: Tensor | float, high: Tensor | float
) -> Tensor:
    """A gamma curve between two intensities, and on above: tissues move together or apart.

    Args:
        images: Shape (..., I, J, K).
        gamma: Exponent.
        low: Intensity that stays; what is below is raised to it.
        high: The other one that stays.
    """
    reach = torch.as_tensor(high - low).clamp(min=1e-6)
    return ((images - low) / reach).clamp(min=0) ** gamma * reach + low


def _boxcar(images: Tensor, width: float, dim: int) -> Tensor:
    """Mean over `width` voxels, fractions allowed, around every voxel; the edge goes on."""
    half = (width - 1) / 2
    whole = whole_part(half)
    places = torch.arange(images.shape[dim], device=images.device)
    total = torch.zeros_like(images)
    for offset in range(-whole - 1, whole + 2):
        share = (half - whole if abs(offset) > whole else 1.0) / width
        if share > 0:
            source = (places + offset).clamp(0, len(places) - 1)
            total += share * images.index_select(dim, source)
    return total


def _between(images: Tensor, places: Tensor, dim: int) -> Tensor:
    """Linear interpolation at fractional indices along one axis; the edge goes on."""
    last = images.shape[dim] - 1
    places = places.to(images).clamp(0, last)
    lower = places.floor().long().clamp(max=max(last - 1, 0))
    upper = (lower + 1).clamp(max=last)
    shape = [1] * images.ndim
    shape[dim] = len(places)
    share = (places - lower).view(shape)
    return torch.lerp(images.index_select(dim, lower), images.index_select(dim, upper), share)

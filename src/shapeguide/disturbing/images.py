"""Scans made worse on purpose: what noise, motion and other scanners do to a test image.

Every degradation is a pure function of a volume, a severity and a generator. The severities 1 to 3
of one seed are the same draw (the same noise, the same place of the slab, the same field) at rising
strength. The grid stays, so the label map of the case stays too.

Background is what `foreground_mask` leaves out: exact zeros around a scan that was stripped or
padded after it was taken. What a scanner does to its signal stops there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from shapeguide.data.intensities import foreground_mask
from shapeguide.disturbing.scanner import (
    BIAS_TERMS,
    bent,
    biased,
    ghosted,
    in_thick_slices,
    rician,
    without_slab,
)
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Volume
from shapeguide.vocabulary import SEVERITIES, Corruption

Degradation: TypeAlias = Callable[[Volume, int, np.random.Generator], Volume]
Image: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

NOISE_DEVIATIONS = (0.4, 0.8, 1.2)
"""Standard deviation of each channel of the noise, in standard deviations of the foreground."""
BLUR_MM = (0.8, 1.2, 2.0)
"""Standard deviation of the blur."""
BIAS_LOG_GAIN = (0.4, 0.8, 1.2)
"""Largest absolute logarithm of the gain."""
GHOST_STRENGTH = (0.35, 0.65, 0.95)
"""Share of every third line of k-space that is lost."""
SLAB_SHARE = (0.06, 0.12, 0.2)
"""Thickness of the missing slab, as a share of the extent along its axis."""
SLICE_MM = (2.5, 4.0, 6.0)
"""Thickness and distance of the slices."""
LOG_GAMMA = (0.4, 0.8, 1.2)
"""Absolute logarithm of the exponent of the contrast curve."""
CONTRAST_PERCENTILES = (0.5, 99.5)


def degrade(volume: Volume, name: str, severity: int, *, seed: tuple[int, ...]) -> Volume:
    """A degraded copy of a volume, on the same grid.

    Args:
        volume: The image as it was taken.
        name: One of `DEGRADATIONS`.
        severity: 1 mild to 3 severe; 0 is the volume itself.
        seed: Numbers that the draw depends on, besides the name; not negative.

    Raises:
        ConfigError: If the name or the severity is unknown.
    """
    if name not in DEGRADATIONS:
        raise ConfigError(f"unknown degradation {name!r}; choose from {', '.join(DEGRADATIONS)}")
    if severity not in (0, *SEVERITIES):
        raise ConfigError(f"severities are 0 to {SEVERITIES[-1]}, found {severity}")
    if severity == 0:
        return volume
    generator = np.random.default_rng([zlib.crc32(name.encode()), *seed])
    return DEGRADATIONS[name](volume, severity, generator)


def add_noise(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Rician noise."""
    foreground = foreground_mask(volume.data)
    sigma = NOISE_DEVIATIONS[severity - 1] * float(volume.data[foreground].std())
    image = torch.from_numpy(volume.data)
    drawn = torch.from_numpy(generator.standard_normal((2, *image.shape), dtype=np.float32))
    real, imaginary = sigma * drawn
    noisy = rician(image, (real, imaginary), floor=_no_signal(volume.data))
    return _inside(volume, noisy, foreground)


def blur(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Gaussian blur, equally wide in mm along every axis; nothing is drawn."""
    del generator
    widths = BLUR_MM[severity - 1] / np.array(volume.grid.spacing_mm)
    blurred = ndimage.gaussian_filter(volume.data, widths, mode="nearest")
    return _inside(volume, torch.from_numpy(blurred))


def add_bias_field(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Smooth gain, random over the volume."""
    weights = generator.normal(size=BIAS_TERMS).tolist()
    gained = biased(
        torch.from_numpy(volume.data),
        weights,
        log_gain=BIAS_LOG_GAIN[severity - 1],
        floor=_no_signal(volume.data),
    )
    return _inside(volume, gained)


def add_ghosts(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Ghosts of periodic motion along one axis."""
    axis = int(generator.integers(3))
    image = torch.from_numpy(volume.data)
    return _inside(volume, ghosted(image, axis, strength=GHOST_STRENGTH[severity - 1]))


def lose_slab(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """A slab across one axis without signal, somewhere in the middle four fifths."""
    axis = int(generator.integers(3))
    length = volume.data.shape[axis]
    thickness = max(1, round(SLAB_SHARE[severity - 1] * length))
    middle = generator.uniform(0.1, 0.9) * length
    start = int(np.clip(round(middle - thickness / 2), 0, length - thickness))
    data = torch.from_numpy(volume.data)
    lost = without_slab(data, axis, (start, thickness), kept=0.0, floor=_no_signal(volume.data))
    return replace(volume, data=lost.numpy())


def thicken_slices(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Thick slices across one axis."""
    axis = int(generator.integers(3))
    thickness = SLICE_MM[severity - 1] / volume.grid.spacing_mm[axis]
    if thickness <= 1:
        return volume
    image = torch.from_numpy(volume.data)
    return _inside(volume, in_thick_slices(image, axis, thickness=float(thickness)))


def change_contrast(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """A gamma curve over the range of the foreground."""
    sign = 1 if generator.random() < 0.5 else -1
    gamma = float(np.exp(sign * LOG_GAMMA[severity - 1]))
    foreground = foreground_mask(volume.data)
    low, high = np.percentile(volume.data[foreground], CONTRAST_PERCENTILES)
    image = torch.from_numpy(volume.data)
    return _inside(volume, bent(image, gamma, low=float(low), high=float(high)), foreground)


DEGRADATIONS: dict[Corruption, Degradation] = {
    "noise": add_noise,
    "blur": blur,
    "bias": add_bias_field,
    "ghosts": add_ghosts,
    "slab": lose_slab,
    "thick": thicken_slices,
    "contrast": change_contrast,
}


def _inside(volume: Volume, data: Tensor, foreground: Mask | None = None) -> Volume:
    """The volume with other intensities, its background kept."""
    chosen = foreground_mask(volume.data) if foreground is None else foreground
    return replace(volume, data=np.where(chosen, data.numpy(), volume.data))


def _no_signal(data: Image) -> float:
    """0, which is no signal, and the smallest value of a shifted image."""
    return min(0.0, float(data.min()))

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
from numpy.typing import NDArray
from scipy import ndimage

from shapeguide.data.intensities import foreground_mask
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Volume
from shapeguide.vocabulary import SEVERITIES, Corruption

Degradation: TypeAlias = Callable[[Volume, int, np.random.Generator], Volume]
Image: TypeAlias = NDArray[np.float32]

NOISE_DEVIATIONS = (0.4, 0.8, 1.2)
"""Standard deviation of each channel of the noise, in standard deviations of the foreground."""
BLUR_MM = (0.8, 1.2, 2.0)
"""Standard deviation of the blur."""
BIAS_LOG_GAIN = (0.4, 0.8, 1.2)
"""Largest absolute logarithm of the gain."""
GHOST_STRENGTH = (0.35, 0.65, 0.95)
"""Share of every third line of k-space that is lost."""
GHOST_PERIOD = 3
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
    """Rician noise: the magnitude of a complex signal with normal noise in both channels.

    Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", 1995.
    """
    foreground = foreground_mask(volume.data)
    sigma = NOISE_DEVIATIONS[severity - 1] * float(volume.data[foreground].std())
    signal, floor = _magnitude(volume.data)
    real, imaginary = generator.standard_normal((2, *signal.shape), dtype=np.float32)
    noisy = np.hypot(signal + sigma * real, sigma * imaginary) + floor
    return _with(volume, np.where(foreground, noisy, volume.data))


def blur(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Gaussian blur, equally wide in mm along every axis; nothing is drawn."""
    del generator
    widths = BLUR_MM[severity - 1] / np.array(volume.grid.spacing_mm)
    blurred = ndimage.gaussian_filter(volume.data, widths, mode="nearest")
    return _with(volume, np.where(foreground_mask(volume.data), blurred, volume.data))


def add_bias_field(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Smooth gain: the exponential of a random quadratic polynomial over the volume."""
    field = np.zeros(volume.data.shape)
    i, j, k = np.ix_(*[np.linspace(-1, 1, length) for length in volume.grid.spatial_shape])
    terms = (i, j, k, i * i, j * j, k * k, i * j, i * k, j * k)
    for weight, term in zip(generator.normal(size=len(terms)), terms, strict=True):
        field += weight * term
    field -= field.mean()
    field *= BIAS_LOG_GAIN[severity - 1] / max(float(np.abs(field).max()), 1e-12)
    signal, floor = _magnitude(volume.data)
    gained = signal * np.exp(field) + floor
    return _with(volume, np.where(foreground_mask(volume.data), gained, volume.data))


def add_ghosts(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Ghosts of periodic motion: every third line of k-space along one axis loses strength.

    The copies lie a third of the field of view apart; the lines in the middle, which hold the mean
    intensity, are kept.
    """
    axis = int(generator.integers(3))
    length = volume.data.shape[axis]
    lines = np.ones(length // 2 + 1)
    lines[GHOST_PERIOD::GHOST_PERIOD] -= GHOST_STRENGTH[severity - 1]
    shape = [1, 1, 1]
    shape[axis] = len(lines)
    spectrum = np.fft.rfft(volume.data, axis=axis) * lines.reshape(shape)
    ghosted = np.fft.irfft(spectrum, n=length, axis=axis)
    return _with(volume, np.where(foreground_mask(volume.data), ghosted, volume.data))


def lose_slab(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """A slab across one axis without signal, somewhere in the middle four fifths."""
    axis = int(generator.integers(3))
    length = volume.data.shape[axis]
    thickness = max(1, round(SLAB_SHARE[severity - 1] * length))
    middle = generator.uniform(0.1, 0.9) * length
    start = int(np.clip(round(middle - thickness / 2), 0, length - thickness))
    data = volume.data.copy()
    data[_across(axis, slice(start, start + thickness))] = _background(volume.data)
    return _with(volume, data)


def thicken_slices(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """Thick slices across one axis: averaged over their thickness, then interpolated linearly."""
    axis = int(generator.integers(3))
    thickness = SLICE_MM[severity - 1] / volume.grid.spacing_mm[axis]
    length = volume.data.shape[axis]
    if thickness <= 1:
        return volume
    averaged = _boxcar(volume.data, thickness, axis)
    centres = np.arange((thickness - 1) / 2, length, thickness)
    slices = _between(averaged, centres, axis)
    thick = _between(slices, (np.arange(length) - centres[0]) / thickness, axis)
    return _with(volume, np.where(foreground_mask(volume.data), thick, volume.data))


def change_contrast(volume: Volume, severity: int, generator: np.random.Generator) -> Volume:
    """A gamma curve over the range of the foreground: tissues move together or apart."""
    sign = 1 if generator.random() < 0.5 else -1
    gamma = float(np.exp(sign * LOG_GAMMA[severity - 1]))
    foreground = foreground_mask(volume.data)
    low, high = np.percentile(volume.data[foreground], CONTRAST_PERCENTILES)
    reach = max(float(high - low), 1e-12)
    shares = np.clip((volume.data - low) / reach, 0, None)
    return _with(volume, np.where(foreground, shares**gamma * reach + low, volume.data))


DEGRADATIONS: dict[Corruption, Degradation] = {
    "noise": add_noise,
    "blur": blur,
    "bias": add_bias_field,
    "ghosts": add_ghosts,
    "slab": lose_slab,
    "thick": thicken_slices,
    "contrast": change_contrast,
}


def _with(volume: Volume, data: NDArray[np.floating]) -> Volume:
    return replace(volume, data=np.ascontiguousarray(data, dtype=np.float32))


def _magnitude(data: Image) -> tuple[Image, float]:
    """The signal from 0 up, and what was taken off: images that were shifted may be negative."""
    floor = min(0.0, float(data.min()))
    return data - np.float32(floor), floor


def _background(data: Image) -> float:
    """0 where that is the background, and the smallest value of a shifted image."""
    return min(0.0, float(data.min()))


def _across(axis: int, extent: slice | NDArray[np.intp]) -> tuple[slice | NDArray[np.intp], ...]:
    index: list[slice | NDArray[np.intp]] = [slice(None)] * 3
    index[axis] = extent
    return tuple(index)


def _boxcar(data: Image, width: float, axis: int) -> NDArray[np.float64]:
    """Mean over `width` voxels, fractions allowed, around every voxel; the edge goes on."""
    half = (width - 1) / 2
    whole = int(np.floor(half))
    kernel = np.ones(2 * whole + 3)
    kernel[[0, -1]] = half - whole
    return np.asarray(
        ndimage.convolve1d(data.astype(np.float64), kernel / kernel.sum(), axis, mode="nearest")
    )


def _between(data: NDArray[np.floating], places: NDArray[np.floating], axis: int) -> Image:
    """Linear interpolation at fractional indices along one axis; the edge goes on."""
    places = np.clip(places, 0, data.shape[axis] - 1)
    lower = np.minimum(np.floor(places).astype(np.intp), max(data.shape[axis] - 2, 0))
    upper = np.minimum(lower + 1, data.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = len(places)
    share = (places - lower).reshape(shape)
    below, above = data[_across(axis, lower)], data[_across(axis, upper)]
    return np.asarray(below + (above - below) * share, dtype=np.float32)

"""Intensities to mean 0 and standard deviation 1."""

from __future__ import annotations

from math import frexp, isfinite

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import DataError
from shapeguide.vocabulary import Normalisation

BACKGROUND_SHARE = 0.01
CLIP_PERCENTILES = (0.5, 99.5)
LARGEST_EXPONENT = 126
"""Powers of two up to this one, and their inverses, are float32 numbers of full precision."""
WAY_OUT = "export it again, or leave the case out"
SMALLEST_DEVIATION = float(np.finfo(np.float32).tiny)


def foreground_mask(data: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a volume differs from its exact background value 0.

    Everywhere, if less than 1 % of the voxels are exactly 0: then 0 is a value like any other.
    """
    foreground: NDArray[np.bool_] = data != 0
    if foreground.mean() > 1 - BACKGROUND_SHARE:
        foreground[:] = True
    return foreground


def normalise_intensities(data: NDArray[np.float32], method: Normalisation) -> NDArray[np.float32]:
    """Shift and scale intensities.

    Args:
        data: Finite intensities, any shape.
        method: "volume", as published: mean 0 and standard deviation 1 over all voxels.
            "foreground": over the voxels of `foreground_mask`, after clipping those to their
            0.5 and 99.5 percentiles; the background keeps its own value.

    Returns:
        Same shape, float32; always finite.

    Raises:
        DataError: If the volume is constant, varies too little for float32, or holds NaN or
            infinite voxels.
    """
    lowest, highest = float(data.min()), float(data.max())
    if not (isfinite(lowest) and isfinite(highest)):
        raise DataError(
            "the image holds voxels that are NaN or infinite; set them, for instance with "
            "numpy.nan_to_num"
        )
    if lowest == highest:
        raise DataError(f"the image is constant: every voxel is {lowest:g}; {WAY_OUT}")
    # A power of two changes no digit, and what follows neither overflows nor vanishes.
    exponent = frexp(max(-lowest, highest))[1]
    exponent = min(max(exponent, -LARGEST_EXPONENT), LARGEST_EXPONENT)
    values: NDArray[np.float32] = data.astype(np.float32)
    values *= np.float32(2.0**-exponent)
    chosen: NDArray[np.float32] = values.ravel()
    if method == "foreground":
        foreground = foreground_mask(values)
        clipped = _clipped(values[foreground])
        if _varies(clipped):
            values[foreground] = chosen = clipped
    # float64 sums: a mean over millions of float32 values loses digits.
    mean = chosen.mean(dtype=np.float64)
    deviation = chosen.std(dtype=np.float64)
    if deviation < SMALLEST_DEVIATION:
        raise DataError(f"the image is constant: its foreground hardly varies; {WAY_OUT}")
    values -= np.float32(mean)
    values /= np.float32(deviation)
    return values


def _clipped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not values.size:
        return values
    low, high = np.percentile(values, CLIP_PERCENTILES)
    return np.clip(values, np.float32(low), np.float32(high))


def _varies(values: NDArray[np.float32]) -> bool:
    return bool(values.size) and float(values.max()) > float(values.min())

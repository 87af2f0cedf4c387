"""The working space: the spacing, shape and intensities that networks see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf, prod

import numpy as np

from shapeguide.data.case import Case, naming
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.grid import SMALLEST_SPACING_MM, Grid
from shapeguide.geometry.resample import LARGEST_WORKING_VOXELS, check_working_shape, ras_grid
from shapeguide.vocabulary import Centre, Normalisation

ROUNDING_VOXELS = 1e-2
"""A working voxel that would hold less than this of a volume is not added."""


@dataclass(frozen=True)
class WorkingSpace:
    """What every case is brought to; axes run to right, anterior, superior.

    Raises:
        ConfigError: If a spacing or length is not positive, or there are more than 512^3 voxels.
    """

    spacing_mm: tuple[float, float, float]
    spatial_shape: tuple[int, int, int]
    centre: Centre = "volume"
    """What the spatial shape is centred on: the volume, the bounding box of all that is not
    background in the image, or the bounding box of the structures."""
    normalisation: Normalisation = "foreground"

    def __post_init__(self) -> None:
        lengths = [*self.spacing_mm, *self.spatial_shape]
        if len(lengths) != 6 or not all(0 < length < inf for length in lengths):
            raise ConfigError(f"a working space needs three positive lengths each, found {self}")
        if prod(self.spatial_shape) > LARGEST_WORKING_VOXELS:
            raise ConfigError(
                f"a working space has at most {LARGEST_WORKING_VOXELS:,} voxels (512 x 512 x 512), "
                f"found the spatial shape {self.spatial_shape}; state a smaller shape or a coarser "
                "spacing"
            )


def choose_working_space(
    cases: Iterable[Case],
    *,
    spacing_mm: Sequence[float] | None = None,
    spatial_shape: Sequence[int] | None = None,
    largest_shape: Sequence[int] | None = None,
    centre: Centre = "volume",
    normalisation: Normalisation = "foreground",
    divisor: int = 16,
) -> WorkingSpace:
    """Working space for these training cases, from the headers of their images alone.

    Args:
        cases: A dataset, or any cases.
        spacing_mm: Along R, A, S; the median of the cases when not given.
        spatial_shape: Along R, A, S; when not given, the smallest multiple of `divisor` that
            holds every case whole.
        largest_shape: Lengths that the shape does not exceed where none is given.
        centre: What the spatial shape is centred on.
        normalisation: How intensities are normalised.
        divisor: Every length of the shape is a multiple of it.

    Raises:
        ConfigError: If a stated or largest shape is not a multiple of the divisor, or lengths are
            not positive.
        DataError: If there are no cases, or a header cannot be read.
        GeometryError: If one case needs more than 512^3 voxels to be held whole.
    """
    cases = list(cases)
    grids = [ras_grid(case.read_grid()) for case in cases]
    if not grids:
        raise DataError("a working space is chosen from the headers of cases, found none")
    if spacing_mm is None:
        median = np.median([grid.spacing_mm for grid in grids], axis=0)
        spacing_mm = [round(float(step), 6) for step in median]
    if spatial_shape is None:
        needed = [lengths_at(grid, spacing_mm) for grid in grids]
        if largest_shape is not None:
            _check_multiple(largest_shape, divisor)
            needed = [_at_most(lengths, largest_shape) for lengths in needed]
        for case, grid, lengths in zip(cases, grids, needed, strict=True):
            with naming(case.id):
                check_working_shape(lengths, spacing_mm, grid)
        spatial_shape = [
            ceil(max(along) / divisor) * divisor for along in zip(*needed, strict=True)
        ]
    else:
        _check_multiple(spatial_shape, divisor)
    if len(spacing_mm) != 3 or len(spatial_shape) != 3:
        raise ConfigError(
            f"three lengths each expected, found {tuple(spacing_mm)} and {tuple(spatial_shape)}"
        )
    spacing, shape = tuple(map(float, spacing_mm)), tuple(map(int, spatial_shape))
    return WorkingSpace(
        (spacing[0], spacing[1], spacing[2]), (shape[0], shape[1], shape[2]), centre, normalisation
    )


def _check_multiple(spatial_shape: Sequence[int], divisor: int) -> None:
    if any(length % divisor for length in spatial_shape):
        raise ConfigError(
            f"spatial shape {tuple(spatial_shape)}: each length must be a multiple of {divisor}, "
            f"for instance {tuple(ceil(length / divisor) * divisor for length in spatial_shape)}"
        )


def _at_most(lengths: tuple[int, int, int], largest: Sequence[int]) -> tuple[int, int, int]:
    i, j, k = map(min, lengths, largest)
    return i, j, k


def lengths_at(grid: Grid, spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Voxels of this spacing that it takes to hold a grid with RAS-ordered axes.

    Raises:
        ConfigError: If a spacing is not positive.
    """
    if not all(SMALLEST_SPACING_MM <= step < inf for step in spacing_mm):
        raise ConfigError(f"working spacing must be positive, found {tuple(spacing_mm)} mm")
    i, j, k = (
        max(1, ceil(length * own / wanted - ROUNDING_VOXELS))
        for length, own, wanted in zip(grid.spatial_shape, grid.spacing_mm, spacing_mm, strict=True)
    )
    return i, j, k

"""Channels of one image, such as T1 and T2: brought to the grid of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import resample_volume
from shapeguide.geometry.volume import Volume
from shapeguide.storage.names import few

SAME_GRID_VOXELS = 0.05
"""Grids of equal shape that agree this well, in voxels, differ only by rounding."""
SMALLEST_OVERLAP = 0.5
TRIED_ALONG = 32
"""Points along an axis by which it is told how far two grids overlap."""


def on_grid_of_first(channels: Sequence[Volume]) -> tuple[Volume, ...]:
    """Every channel on the grid of the first, through the affines.

    Args:
        channels: At least one.

    Raises:
        GeometryError: If less than half of the smaller of two channels lies inside the other.
    """
    first, *others = channels
    return (first, *(_on_grid(channel, first.grid) for channel in others))


def is_same_grid(grid: Grid, other: Grid) -> bool:
    """Whether two grids differ by rounding only."""
    return grid.matches(other, tolerance_mm=SAME_GRID_VOXELS * min(other.spacing_mm))


def share_inside(grid: Grid, points_mm: NDArray[np.float64]) -> float:
    """Share of the points, shape (N, 3), that lie in the voxels of a grid."""
    found = grid.to_index(points_mm)
    inside = (found >= -0.5) & (found <= np.array(grid.spatial_shape) - 0.5)
    return float(inside.all(axis=-1).mean())


def chosen_channels(
    channels: Sequence[Volume], names: Sequence[str], wanted: Sequence[str]
) -> tuple[Volume, ...]:
    """The channels that a model was trained on: by name where all of them are named, or as given.

    Args:
        channels: Those of a scan.
        names: What they are called; empty where nobody says.
        wanted: Names of those of the training.

    Raises:
        DataError: If there are more or fewer, and their names do not tell which to take.
    """
    unique = len(set(names)) == len(names) == len(channels) and len(set(wanted)) == len(wanted)
    if unique and set(wanted) <= set(names):
        return tuple(channels[names.index(name)] for name in wanted)
    if len(channels) != len(wanted):
        found = few(list(names)) if names else f"{len(channels)} channels without names"
        raise DataError(
            f"the segmenter was trained on the channels {few(list(wanted))}, found {found}; give "
            "an image of each of them, in this order"
        )
    return tuple(channels)


def _on_grid(channel: Volume, grid: Grid) -> Volume:
    if is_same_grid(channel.grid, grid):
        return replace(channel, grid=grid)
    overlap = _overlap(grid, channel.grid)
    if overlap < SMALLEST_OVERLAP:
        raise GeometryError(
            f"two channels do not overlap: {overlap:.0%} of the smaller lies inside the other; "
            "they are of two persons or sessions, or the affine of one of them is wrong; correct "
            f"that\nfirst: {grid}\nother: {channel.grid}"
        )
    return resample_volume(channel, grid)


def _overlap(grid: Grid, other: Grid) -> float:
    """Share of the smaller of two grids that lies inside the other, nearly."""
    sizes = [prod(one.spatial_shape) * one.voxel_volume_mm3 for one in (grid, other)]
    shape = np.array(grid.spatial_shape)
    steps = [np.linspace(-0.5, length - 0.5, 2 * TRIED_ALONG + 1)[1::2] for length in shape]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return share_inside(other, grid.to_world(points)) * sizes[0] / min(sizes)

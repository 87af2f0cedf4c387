"""Volumes and label maps on other grids: to RAS, to a working grid, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import prod
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from shapeguide.errors import GeometryError
from shapeguide.geometry.boxes import Box
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.sampling import index_map, sample
from shapeguide.geometry.volume import LabelMap, Volume

LARGEST_WORKING_VOXELS = 512**3
"""Half a GiB for each channel. A working grid of more voxels is refused before it takes memory."""
SAME_SPACING = 1e-3
"""Relative difference below which two spacings count as equal."""
TIE_SHIFT_VOXELS = 1e-3
"""A voxel that lies exactly half in a structure is decided to the same side everywhere."""
EQUAL_OCCUPANCY = 1.5e-3
"""Relative difference that counts as none: more than the shift takes from the rim of a sheet,
less than what it puts between two layers that share a sheet."""
LEAST_OCCUPANCY = 1e-4
LARGEST_DENSE_ID = 65535
"""Above it label ids are ranked first: a box is looked for up to the largest id."""
KEPT_SHARE = 0.7
"""A structure that a threshold of one half would shrink below this share counts as thin."""

_Placed = TypeVar("_Placed", Volume, LabelMap)
_Box: TypeAlias = tuple[slice, ...]


def ras_grid(grid: Grid) -> Grid:
    """The same voxels with axes that run most nearly to right, anterior, superior."""
    axes, flips = _ras_axes(grid)
    shape = tuple(grid.spatial_shape[axis] for axis in axes)
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, axes] * np.where(flips, -1, 1)
    first = np.zeros(3)
    first[axes] = np.where(flips, np.array(shape) - 1, 0)
    affine[:3, 3] = grid.to_world(first)
    return Grid((shape[0], shape[1], shape[2]), affine)


def to_ras(item: _Placed) -> _Placed:
    """Swap and flip axes until they run most nearly to right, anterior, superior.

    Lossless; an oblique grid stays oblique. The placement of the file is dropped when anything
    moves, since it describes the old axes.
    """
    axes, flips = _ras_axes(item.grid)
    if axes.tolist() == [0, 1, 2] and not flips.any():
        return item
    data = np.flip(item.data.transpose(axes), axis=tuple(np.flatnonzero(flips).tolist()))
    return replace(item, data=np.ascontiguousarray(data), grid=ras_grid(item.grid), placement=None)


def working_grid(
    grid: Grid,
    spacing_mm: Sequence[float],
    spatial_shape: tuple[int, int, int],
    centre_mm: ArrayLike,
) -> Grid:
    """A grid along the RAS-ordered axes of `grid`, with its obliqueness.

    Along an axis that already has the asked spacing, the centre moves by up to half a voxel so
    that the voxels of both grids coincide and nothing is blurred.

    Args:
        grid: Grid of the input.
        spacing_mm: Wanted spacing along the RAS-ordered axes.
        spatial_shape: Wanted shape along the same axes.
        centre_mm: World position of the middle of the new grid, shape (3,).

    Raises:
        GeometryError: If a length or spacing is not positive, or there would be more than 512^3
            voxels.
    """
    if min(spacing_mm) <= 0:
        raise GeometryError(f"working spacing must be positive, found {tuple(spacing_mm)} mm")
    check_working_shape(spatial_shape, spacing_mm, grid)
    ordered = ras_grid(grid)
    own_spacing_mm = np.array(ordered.spacing_mm)
    affine = ordered.affine.copy()
    affine[:3, :3] *= np.array(spacing_mm) / own_spacing_mm
    middle = (np.array(spatial_shape) - 1) / 2
    first_mm = np.asarray(centre_mm, dtype=np.float64) - affine[:3, :3] @ middle
    first = ordered.to_index(first_mm)
    same = np.abs(np.array(spacing_mm) / own_spacing_mm - 1) < SAME_SPACING
    snapped = np.where(same, np.floor(first + 0.5 + 1e-6), first)
    affine[:3, 3] = ordered.to_world(snapped)
    return Grid(spatial_shape, affine)


def check_working_shape(
    spatial_shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid
) -> None:
    """Refuse a working grid that would take gigabytes.

    Args:
        spatial_shape: Shape of the working grid.
        spacing_mm: Its spacing, for the message.
        grid: Grid of the input, for the message.

    Raises:
        GeometryError: If it has more than 512^3 voxels.
    """
    if prod(spatial_shape) > LARGEST_WORKING_VOXELS:
        own_mm = tuple(float(f"{step:.4g}") for step in grid.spacing_mm)
        raise GeometryError(
            f"{grid.spatial_shape} voxels of {own_mm} mm would become {tuple(spatial_shape)} "
            f"working voxels of {tuple(spacing_mm)} mm, and at most {LARGEST_WORKING_VOXELS:,} "
            "(512 x 512 x 512) are worked on; correct the voxel size that the header states, crop "
            "the scan, or train with a coarser spacing"
        )


def resample_volume(volume: Volume, grid: Grid, *, outside: float | None = None) -> Volume:
    """Intensities on another grid; linear, averaged where the grid is coarser.

    Args:
        volume: Intensities on their grid.
        grid: The grid to read them on.
        outside: Value beyond the volume; its minimum when not given.
    """
    beyond = float(volume.data.min()) if outside is None else outside
    mapping = index_map(volume.grid, grid)
    return Volume(sample(volume.data, mapping, grid.spatial_shape, outside=beyond), grid)


def resample_channels(
    channels: NDArray[np.float32], source_grid: Grid, target_grid: Grid
) -> NDArray[np.float32]:
    """Channels such as probabilities on another grid, one at a time; 0 beyond the source.

    Args:
        channels: Shape (C, I, J, K) with the spatial shape of `source_grid`.
        source_grid: Grid of the channels.
        target_grid: Grid to read them on.

    Returns:
        Shape (C, *target_grid.spatial_shape), float32.

    Raises:
        GeometryError: If the channels do not have the shape of the source grid.
    """
    if channels.shape[1:] != source_grid.spatial_shape:
        raise GeometryError(
            f"channels of shape {channels.shape} on a grid of shape {source_grid.spatial_shape}"
        )
    mapping = index_map(source_grid, target_grid)
    shape = target_grid.spatial_shape
    resampled = np.empty((len(channels), *shape), dtype=np.float32)
    for channel, target in zip(channels, resampled, strict=True):
        target[:] = sample(channel, mapping, shape, outside=0.0)
    return resampled


def resample_label_map(label_map: LabelMap, grid: Grid) -> LabelMap:
    """Label ids on another grid: no new id, and thin structures survive.

    Each voxel goes to the id that fills most of it, if that is at least half of the voxel. An id
    that this rule would shrink below 70 % of its volume (a sheet thinner than the new voxels)
    gets the lower threshold that keeps its volume, and at least one voxel of the grid it touches.

    Args:
        label_map: With structures, only their ids are kept and all others become background;
            without, every id is kept.
        grid: The grid to bring them to; it may be a crop.
    """
    pieces = [
        piece
        for label_id, box in _label_boxes(label_map)
        if (piece := _resampled_piece(label_map, label_id, box, grid)) is not None
    ]
    pieces.sort(key=lambda piece: -piece.wanted_count)
    data = np.zeros(grid.spatial_shape, dtype=label_map.data.dtype)
    best = np.zeros(grid.spatial_shape, dtype=np.float32)
    for piece in pieces:
        wins = (piece.score >= 1) & (piece.score > best[piece.box])
        data[piece.box][wins] = piece.label_id
        best[piece.box][wins] = piece.score[wins]
    for piece in pieces:  # what larger neighbours have swallowed, the smallest last
        if (data[piece.box] == piece.label_id).sum() < piece.wanted_count / 2:
            data[piece.box][piece.score >= 1] = piece.label_id
    return LabelMap(data, grid, label_map.structures)


@dataclass(frozen=True, eq=False)
class _Piece:
    """One label id inside its bounding box on the new grid."""

    label_id: int
    box: _Box
    score: NDArray[np.float32]
    """Occupancy over the threshold of this id; at least 1 where the id claims the voxel."""
    wanted_count: int


def _resampled_piece(label_map: LabelMap, label_id: int, box: _Box, grid: Grid) -> _Piece | None:
    mapping = index_map(label_map.grid, grid)
    margins = np.ceil(np.linalg.norm(mapping[:3, :3], axis=1)).astype(int) + 1
    widths = [(int(margin), int(margin)) for margin in margins]
    mask = np.pad(label_map.data[box] == label_id, widths).astype(np.float32)
    first = np.array([extent.start for extent in box]) - margins
    target_box = _box_on(grid, label_map.grid, first, mask.shape)
    lengths = [extent.stop - extent.start for extent in target_box]
    if min(lengths) < 1:
        return None
    mapping[:3, 3] += mapping[:3, :3] @ [extent.start for extent in target_box] - first
    mapping[:3, 3] += TIE_SHIFT_VOXELS
    occupancy = sample(mask, mapping, (lengths[0], lengths[1], lengths[2]), outside=0.0)
    if occupancy.max() < LEAST_OCCUPANCY:
        return None
    wanted_count = max(1, round(float(occupancy.sum(dtype=np.float64))))
    threshold = 0.5 * (1 - EQUAL_OCCUPANCY)
    if (occupancy >= threshold).sum() < KEPT_SHARE * wanted_count:
        smallest_kept = float(np.sort(occupancy, axis=None)[-wanted_count])
        threshold = max(smallest_kept * (1 - EQUAL_OCCUPANCY), LEAST_OCCUPANCY)
    return _Piece(label_id, target_box, occupancy / np.float32(threshold), wanted_count)


def _label_boxes(label_map: LabelMap) -> list[tuple[int, _Box]]:
    """Bounding box of every label id that is to be kept and is present."""
    kept = {label_id for item in label_map.structures for label_id in item.label_ids}
    data = label_map.data
    largest = int(data.max(initial=0))
    ids = np.arange(1, min(largest, LARGEST_DENSE_ID) + 1)
    if largest > LARGEST_DENSE_ID:
        ids, ranks = np.unique(np.append(data, 0), return_inverse=True)
        ids, data = ids[1:], ranks[:-1].reshape(data.shape)
    boxes: Sequence[_Box | None] = ndimage.find_objects(data)
    return [
        (int(label_id), box)
        for label_id, box in zip(ids, boxes, strict=True)
        if box is not None and (int(label_id) in kept or not label_map.structures)
    ]


def covering_box(grid: Grid, other: Grid) -> Box:
    """The voxels of a grid that lie within another one, with a margin of one voxel; maybe none."""
    i, j, k = (
        slice(part.start, max(part.start, part.stop))
        for part in _box_on(grid, other, np.zeros(3, dtype=np.int64), other.spatial_shape)
    )
    return i, j, k


def _box_on(grid: Grid, source: Grid, first: NDArray[np.integer], lengths: tuple[int, ...]) -> _Box:
    """Slices of `grid` that hold a box of source voxels, with a margin of one voxel."""
    ends = [
        (start - 0.5, start + length - 0.5) for start, length in zip(first, lengths, strict=True)
    ]
    corners = grid.to_index(source.to_world(np.stack(np.meshgrid(*ends), axis=-1)))
    lower = np.floor(corners.min(axis=(0, 1, 2))).astype(int) - 1
    upper = np.ceil(corners.max(axis=(0, 1, 2))).astype(int) + 2
    return tuple(
        slice(max(0, low), min(length, high))
        for low, high, length in zip(
            lower.tolist(), upper.tolist(), grid.spatial_shape, strict=True
        )
    )


def _ras_axes(grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each RAS axis: the axis of `grid` that follows it most nearly, and if it runs back."""
    directions = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    closeness = np.abs(directions)
    axes = max(permutations(range(3)), key=lambda order: closeness[range(3), order].sum())
    return np.array(axes), directions[range(3), axes] < 0

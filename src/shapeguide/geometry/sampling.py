"""Reading an array at the voxels of another grid: one matrix per axis where axes are parallel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapeguide.errors import GeometryError
from shapeguide.geometry.grid import Grid

LARGEST_RATIO = 100
"""How many source voxels a target voxel may be wide: beyond it the units of one grid are wrong."""
LARGEST_WEIGHTS = 2**24
"""Entries of the matrix that reads one axis, its two lengths multiplied: 4096 from 4096 voxels."""
PARALLEL_TOLERANCE_VOXELS = 1e-3
EDGE_TOLERANCE_VOXELS = 1e-6
BOX_DEVIATION = 12**-0.5  # standard deviation of a box of width 1


def index_map(source: Grid, target: Grid) -> NDArray[np.float64]:
    """Voxel index of `target` to (fractional) voxel index of `source`, shape (4, 4).

    Raises:
        GeometryError: If a voxel of the target is more than a hundred voxels of the source wide,
            for which neither time nor memory would do.
    """
    mapping = np.linalg.solve(source.affine, target.affine).astype(np.float64)
    widest = float(np.linalg.norm(mapping[:3, :3], axis=1).max())
    if widest > LARGEST_RATIO:
        raise GeometryError(
            f"voxels of {_millimetres(source)} mm cannot be brought to voxels of "
            f"{_millimetres(target)} mm, {widest:.0f} times as wide, and at most {LARGEST_RATIO} "
            "times is done; correct the voxel size that one of the two states"
        )
    return mapping


def sample(
    data: NDArray[np.float32],
    mapping: NDArray[np.float64],
    spatial_shape: tuple[int, int, int],
    *,
    outside: float,
) -> NDArray[np.float32]:
    """Values of `data` at the voxels of a target grid.

    Linear interpolation; along an axis where the target is coarser, the mean over the target
    voxel instead, so that nothing falls between the samples (for oblique grids a Gaussian of the
    same width stands in for that mean). The array reaches half a voxel beyond its outer centres.

    Args:
        data: Shape (I, J, K).
        mapping: Target index to source index, shape (4, 4), see `index_map`.
        spatial_shape: Shape of the target grid.
        outside: Value of target voxels beyond the array.

    Returns:
        Shape `spatial_shape`, float32; a target that only crops, pads, swaps or flips axes gets
        exact copies.

    Raises:
        GeometryError: If an axis is so long in both that reading one from the other would take
            gigabytes.
    """
    data = data.astype(np.float32, copy=False)
    readings = _parallel_readings(mapping, data.shape, spatial_shape)
    if readings is None:
        return _sample_oblique(data, mapping, spatial_shape, outside)
    data = data.transpose([reading.source_axis for reading in readings])
    # Axes that shrink go first: the rest then has less to do.
    for axis in sorted(range(3), key=lambda axis: spatial_shape[axis] / data.shape[axis]):
        data = _read_axis(data, readings[axis], axis)
    data = np.require(data, requirements=["C", "W", "O"])
    for axis, reading in enumerate(readings):
        if not reading.inside.all():
            data[(slice(None),) * axis + (~reading.inside,)] = outside
    return data


@dataclass(frozen=True, eq=False)
class _AxisReading:
    """How one target axis reads one source axis."""

    source_axis: int
    weights: NDArray[np.float32]
    """Shape (target length, source length); rows sum to 1, or to 0 outside."""
    inside: NDArray[np.bool_]


def _parallel_readings(
    mapping: NDArray[np.float64], source_shape: tuple[int, ...], target_shape: tuple[int, int, int]
) -> list[_AxisReading] | None:
    """One reading per target axis, or None when the axes of the grids are not parallel."""
    steps = mapping[:3, :3]
    source_axes = np.abs(steps).argmax(axis=0)
    if set(source_axes.tolist()) != {0, 1, 2}:
        return None
    drift = np.abs(steps) * np.array(target_shape)
    drift[source_axes, range(3)] = 0
    if drift.sum(axis=1).max() > PARALLEL_TOLERANCE_VOXELS:
        return None
    return [
        _axis_reading(
            int(source), mapping[source, 3], steps[source, axis], target_shape[axis], source_shape
        )
        for axis, source in enumerate(source_axes)
    ]


def _axis_reading(
    source_axis: int, start: float, step: float, count: int, source_shape: tuple[int, ...]
) -> _AxisReading:
    length = source_shape[source_axis]
    if length * count > LARGEST_WEIGHTS:
        raise GeometryError(
            f"an axis of {length} voxels is not resampled to {count}: at most "
            f"{LARGEST_WEIGHTS**0.5:.0f} from as many; crop the scan or use a coarser spacing"
        )
    positions = start + step * np.arange(count)
    edge = 0.5 + EDGE_TOLERANCE_VOXELS
    inside = (positions >= -edge) & (positions <= length - 1 + edge)
    voxels = np.arange(length)
    if abs(step) > 1 + PARALLEL_TOLERANCE_VOXELS:
        half = abs(step) / 2
        upper = np.minimum(positions[:, None] + half, voxels + 0.5)
        weights = np.clip(upper - np.maximum(positions[:, None] - half, voxels - 0.5), 0, None)
    else:
        positions = np.clip(positions, 0, length - 1)
        weights = np.clip(1 - np.abs(positions[:, None] - voxels), 0, None)
    weights[weights < EDGE_TOLERANCE_VOXELS] = 0
    weights[~inside] = 0
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), EDGE_TOLERANCE_VOXELS)
    return _AxisReading(source_axis, weights.astype(np.float32), inside)


def _millimetres(grid: Grid) -> str:
    return " x ".join(f"{step:g}" for step in grid.spacing_mm)


def _read_axis(data: NDArray[np.float32], reading: _AxisReading, axis: int) -> NDArray[np.float32]:
    weights = reading.weights
    if (weights.max(axis=1) == reading.inside).all():  # every voxel is a copy of one voxel
        copied: NDArray[np.float32] = np.take(data, weights.argmax(axis=1), axis=axis)
        return copied
    data = np.ascontiguousarray(data)
    if axis == 1:
        return np.asarray(np.matmul(weights, data), dtype=np.float32)
    # One large product is several times faster than a stack of small ones.
    if axis == 0:
        return (weights @ data.reshape(len(data), -1)).reshape(-1, *data.shape[1:])
    return (data.reshape(-1, data.shape[2]) @ weights.T).reshape(*data.shape[:2], -1)


def _sample_oblique(
    data: NDArray[np.float32],
    mapping: NDArray[np.float64],
    spatial_shape: tuple[int, int, int],
    outside: float,
) -> NDArray[np.float32]:
    widths = np.linalg.norm(mapping[:3, :3], axis=1)  # of a target voxel, in source voxels
    sigmas = BOX_DEVIATION * np.sqrt(np.maximum(widths**2 - 1, 0))
    if sigmas.max() > 0.05:
        data = ndimage.gaussian_filter(data, sigmas, mode="nearest")
    sampled: NDArray[np.float32] = ndimage.affine_transform(
        data,
        mapping[:3, :3],
        mapping[:3, 3],
        output_shape=spatial_shape,
        output=np.float32,
        order=1,
        mode="nearest",
    )
    edge = np.array(data.shape) - 0.5 + EDGE_TOLERANCE_VOXELS
    columns, rows = np.arange(spatial_shape[2]), np.arange(spatial_shape[1])[:, None]
    for i, slab in enumerate(sampled):  # slab by slab: coordinates of all voxels would be large
        for axis in range(3):
            along_i, along_j, along_k, start = mapping[axis]
            positions = start + along_i * i + along_j * rows + along_k * columns
            slab[(positions < -0.5 - EDGE_TOLERANCE_VOXELS) | (positions > edge[axis])] = outside
    return sampled

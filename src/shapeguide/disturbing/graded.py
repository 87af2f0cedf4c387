"""Errors of rising size made in a mask: how wrong each is, is known exactly.

Sizes are relative to the structure, so that one list serves a hippocampus and a liver. Each grade
ranks the voxels by a field and keeps the highest, which gives every grade exactly its volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from shapeguide.disturbing.fields import ball_radius_mm
from shapeguide.errors import DataError
from shapeguide.geometry.boxes import box_ends, foreground_box
from shapeguide.geometry.distance import signed_distance_mm

Mask = NDArray[np.bool_]
Field = NDArray[np.float64]

BLOB_GAP = 1.0
"""Distance of the largest blob's rim from the surface, in radii of the ball of equal volume."""
NOISE_LENGTH = 0.35
"""Correlation length of the roughness, in radii of the ball of equal volume."""
TIE_BREAK = 1e-3


@dataclass(frozen=True, eq=False)
class Shape:
    """A mask and what all errors read from it."""

    mask: Mask
    """Shape (I, J, K); not empty."""
    spacing_mm: tuple[float, float, float]
    depth_mm: Field
    """Distance to the surface, positive inside, shape (I, J, K)."""
    positions_mm: Field
    """Position of every voxel from the centroid, shape (I, J, K, 3)."""

    @property
    def volume(self) -> int:
        """Voxels of the mask."""
        return int(self.mask.sum())

    @property
    def ball_radius_mm(self) -> float:
        """Radius of the ball of equal volume."""
        return ball_radius_mm(self.volume * float(np.prod(self.spacing_mm)))


def shape_of(mask: Mask, *, spacing_mm: tuple[float, float, float]) -> Shape:
    """Prepare a mask (I, J, K), not empty, for errors."""
    depth_mm = signed_distance_mm(mask, spacing_mm=spacing_mm)
    # Voxels that are equally deep go in the order in which a blurred mask would lose them.
    depth_mm += TIE_BREAK * min(spacing_mm) / 2 * gaussian_filter(mask.astype(np.float64), 1.5)
    axes = [np.arange(n) * step for n, step in zip(mask.shape, spacing_mm, strict=True)]
    positions_mm = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    positions_mm -= positions_mm[mask].mean(axis=0)
    return Shape(mask, spacing_mm, depth_mm, positions_mm)


def eroded(shape: Shape, share: float, generator: np.random.Generator) -> Mask:
    """The mask without the outermost `share` of its volume."""
    return _highest(shape.depth_mm, _count(shape, 1 - share))


def dilated(shape: Shape, share: float, generator: np.random.Generator) -> Mask:
    """The mask with the nearest voxels around it, `share` of its volume."""
    return _highest(shape.depth_mm, _count(shape, 1 + share))


def without_tip(shape: Shape, share: float, generator: np.random.Generator) -> Mask:
    """The mask cut off by a plane across its longest axis, at an end drawn at random."""
    inside = shape.positions_mm[shape.mask]
    _, directions = np.linalg.eigh(inside.T @ inside)
    along = inside @ directions[:, -1] * generator.choice([-1.0, 1.0])
    return _without(shape, along, share)


def with_hole(shape: Shape, share: float, generator: np.random.Generator) -> Mask:
    """The mask without the voxels nearest to its deepest one."""
    inside = shape.positions_mm[shape.mask]
    deepest = inside[shape.depth_mm[shape.mask].argmax()]
    return _without(shape, -np.linalg.norm(inside - deepest, axis=1), share)


def with_far_blob(shape: Shape, share: float, generator: np.random.Generator) -> Mask:
    """The mask with a ball of `share` of its volume, away from it in a random direction."""
    direction = generator.standard_normal(3)
    away_mm = (BLOB_GAP + LARGEST_BLOB) * shape.ball_radius_mm
    nearly_mm = max(shape.spacing_mm)
    candidates = shape.positions_mm[np.abs(shape.depth_mm + away_mm) <= nearly_mm]
    sides = candidates @ direction / np.linalg.norm(candidates, axis=1)
    distances = np.linalg.norm(shape.positions_mm - candidates[sides.argmax()], axis=-1)
    return shape.mask | _highest(-distances, _count(shape, share))


def roughened(shape: Shape, amplitude: float, generator: np.random.Generator) -> Mask:
    """The mask with its surface moved by smooth noise of that amplitude, at equal volume.

    Args:
        shape: The mask.
        amplitude: Standard deviation of the noise, in radii of the ball of equal volume.
        generator: Source of randomness.
    """
    radius_mm = shape.ball_radius_mm
    widths = [NOISE_LENGTH * radius_mm / step for step in shape.spacing_mm]
    noise = gaussian_filter(generator.standard_normal(shape.mask.shape), widths)
    moved_mm = amplitude * radius_mm * noise / noise.std()
    return _highest(shape.depth_mm + moved_mm, shape.volume)


@dataclass(frozen=True)
class ErrorKind:
    """One kind of error and its grades, rising."""

    make: Callable[[Shape, float, np.random.Generator], Mask]
    grades: tuple[float, ...]


ERRORS = {
    "erosion": ErrorKind(eroded, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
    "dilation": ErrorKind(dilated, (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)),
    "missing tip": ErrorKind(without_tip, (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)),
    "hole": ErrorKind(with_hole, (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)),
    "far blob": ErrorKind(with_far_blob, (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)),
    "roughness": ErrorKind(roughened, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
}
"""Kinds of errors; a grade is a share of the volume, of roughness an amplitude."""
LARGEST_BLOB = max(ERRORS["far blob"].grades) ** (1 / 3)
"""Radius of the largest blob, in radii of the ball of equal volume."""


def graded_errors(shape: Shape, *, seed: tuple[int, ...]) -> Iterator[tuple[str, float, Mask]]:
    """Every kind and grade of error of a mask: (kind, grade, wrong mask).

    Within a kind, each grade draws the same random numbers, so that only the size changes.

    Args:
        shape: The mask.
        seed: Source of randomness, for instance of the case.
    """
    for number, (name, kind) in enumerate(ERRORS.items()):
        for grade in kind.grades:
            yield name, grade, kind.make(shape, grade, np.random.default_rng([*seed, number]))


def room_for_errors(
    mask: Mask, *, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last index along each axis that an error of this mask may touch.

    Far blobs reach furthest. The indices may lie beyond the grid: it is to be padded then.

    Raises:
        DataError: If the mask is empty.
    """
    box = foreground_box(mask)
    if box is None:
        raise DataError("an empty mask has no errors of rising size; leave it out")
    first, last = box_ends(box)
    radius_mm = ball_radius_mm(int(mask.sum()) * float(np.prod(spacing_mm)))
    reach_mm = (BLOB_GAP + 2 * LARGEST_BLOB) * radius_mm + 2 * max(spacing_mm)
    reach = np.ceil(reach_mm / np.asarray(spacing_mm)).astype(np.int64)
    return first - reach, last + reach


def _count(shape: Shape, share: float) -> int:
    return max(1, round(share * shape.volume))


def _without(shape: Shape, values: Field, share: float) -> Mask:
    """The mask without the `share` of its voxels that has the highest values.

    Args:
        shape: The mask.
        values: One for each voxel of the mask, shape (N,).
        share: In (0, 1).
    """
    mask = shape.mask.copy()
    mask[shape.mask] = _highest(-values, _count(shape, 1 - share))
    return mask


def _highest(field: Field, count: int) -> Mask:
    """The `count` voxels of the highest values, exactly."""
    chosen = np.zeros(field.size, dtype=bool)
    chosen[np.argpartition(field.ravel(), -count)[-count:]] = True
    return chosen.reshape(field.shape)

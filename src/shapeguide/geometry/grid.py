"""The voxel grid: how many voxels there are and where each one lies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import GeometryError

SMALLEST_SPACING_MM = 1e-6
LARGEST_POSITION_MM = 1e6
"""A voxel further than a kilometre from the origin of the world is not believed."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Regular voxel grid placed in world space (mm, RAS+).

    Raises:
        GeometryError: If the shape is not three positive numbers, the affine is not a finite,
            invertible (4, 4) matrix with last row (0, 0, 0, 1), or voxels lie absurdly far away.
    """

    spatial_shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    """Voxel index to world position in mm, shape (4, 4), float64, read-only."""

    def __post_init__(self) -> None:
        shape = tuple(int(length) for length in self.spatial_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a grid needs three positive lengths, found {self.spatial_shape}")
        affine = np.array(self.affine, dtype=np.float64)
        _check_affine(affine, shape)
        affine.setflags(write=False)
        object.__setattr__(self, "spatial_shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel; correct for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """World position of the middle of the grid, shape (3,)."""
        middle = (np.array(self.spatial_shape) - 1) / 2
        return self.to_world(middle)

    def part(self, box: tuple[slice, slice, slice]) -> Grid:
        """The voxels of a box, where they lie.

        Args:
            box: Slices with a start and a stop inside the grid, and no step.
        """
        first = np.array([bounds.start for bounds in box], dtype=np.float64)
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(first)
        i, j, k = (bounds.stop - bounds.start for bounds in box)
        return Grid((i, j, k), affine)

    def to_world(self, indices: NDArray[np.floating]) -> NDArray[np.float64]:
        """Voxel indices (..., 3), fractions allowed, to world positions (..., 3) in mm."""
        moved: NDArray[np.float64] = indices @ self.affine[:3, :3].T + self.affine[:3, 3]
        return moved

    def to_index(self, positions_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """World positions (..., 3) in mm to fractional voxel indices (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        moved: NDArray[np.float64] = positions_mm @ inverse[:3, :3].T + inverse[:3, 3]
        return moved

    def corners_mm(self) -> NDArray[np.float64]:
        """World positions of the centres of the eight corner voxels, shape (8, 3)."""
        ends = [(0.0, length - 1.0) for length in self.spatial_shape]
        return self.to_world(np.array(list(product(*ends))))

    def matches(self, other: Grid, *, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and every corner agrees within the tolerance."""
        if self.spatial_shape != other.spatial_shape:
            return False
        return bool(np.abs(self.corners_mm() - other.corners_mm()).max() <= tolerance_mm)

    def __repr__(self) -> str:
        rows = np.array2string(self.affine[:3], precision=4, suppress_small=True, separator=", ")
        return f"Grid(spatial_shape={self.spatial_shape}, affine={rows})"


def _check_affine(affine: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if affine.shape != (4, 4):
        raise GeometryError(f"an affine has shape (4, 4), found {affine.shape}")
    if not np.isfinite(affine).all():
        raise GeometryError(f"the affine holds values that are not finite:\n{affine}")
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        raise GeometryError(f"the last row of an affine is 0 0 0 1, found {affine[3]}")
    with np.errstate(over="ignore"):
        reach_mm = float((np.abs(affine[:3]) @ np.array([*shape, 1], dtype=np.float64)).max())
    if reach_mm > LARGEST_POSITION_MM:
        raise GeometryError(
            f"voxels lie up to {reach_mm:g} mm from the origin of the world, and at most "
            f"{LARGEST_POSITION_MM:g} mm are believed; correct the affine:\n{affine}"
        )
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing_mm.min() < SMALLEST_SPACING_MM:
        raise GeometryError(f"voxel spacing must be positive, found {spacing_mm} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing_mm)) < 1e-4:
        raise GeometryError(
            f"the affine is singular: two voxel axes point the same way\n{affine}\n"
            "repair the header of the file, for instance with its qform"
        )

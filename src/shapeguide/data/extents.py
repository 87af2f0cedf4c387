"""Where the structures of a case lie in its scan, and how far they reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.case import Case, naming
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import ras_grid, to_ras
from shapeguide.geometry.volume import LabelMap

OUTLINE_DIRECTIONS = 256


@dataclass(frozen=True, eq=False)
class Extent:
    """Where the structures of a case lie, and how far they reach."""

    case: Case
    grid: Grid
    """The scan's."""
    centres_mm: Mapping[str, NDArray[np.float64]]
    """Centre of mass of each structure that is there, by name, world position, shape (3,)."""
    outlines_mm: Mapping[str, NDArray[np.float64]]
    """Outermost points of each along many directions, along R, A, S of the scan's own axes, shape
    (points, 3)."""
    spacing_mm: tuple[float, float, float]

    def along_axes_mm(self, name: str) -> NDArray[np.float64]:
        """Centre of a structure along R, A, S of the scan's own axes."""
        found: NDArray[np.float64] = np.asarray(
            np.linalg.solve(scan_axes(self.grid), self.centres_mm[name]), dtype=np.float64
        )
        return found


def extent_of(case: Case) -> Extent:
    """Measure where the structures of a case lie.

    Raises:
        DataError: If the label map is unusable.
        GeometryError: If it does not overlap its image.
    """
    with naming(case.id):
        label_map = to_ras(case.read_label_map())
        return Extent(
            case,
            label_map.grid,
            centres_of(label_map),
            _outlines_mm(label_map),
            label_map.grid.spacing_mm,
        )


def centres_of(label_map: LabelMap) -> dict[str, NDArray[np.float64]]:
    """Centre of mass of each structure that is there, by name, world position."""
    classes = label_map.class_indices()
    return {
        structure.name: label_map.grid.to_world(np.argwhere(classes == index).mean(axis=0))
        for index, structure in enumerate(label_map.structures, start=1)
        if (classes == index).any()
    }


def scan_axes(grid: Grid) -> NDArray[np.float64]:
    """Directions of the RAS-ordered axes of a grid, as columns of length 1, shape (3, 3)."""
    ordered = ras_grid(grid)
    axes: NDArray[np.float64] = np.divide(ordered.affine[:3, :3], ordered.spacing_mm)
    return axes


def _outlines_mm(label_map: LabelMap) -> dict[str, NDArray[np.float64]]:
    axes, spacing = scan_axes(label_map.grid), np.array(label_map.grid.spacing_mm)
    first = np.linalg.solve(axes, label_map.grid.to_world(np.zeros(3)))
    directions = _directions(OUTLINE_DIRECTIONS)
    classes = label_map.class_indices()
    found = {}
    for index, structure in enumerate(label_map.structures, start=1):
        voxels = np.argwhere(classes == index)
        if len(voxels):
            points = voxels * spacing
            outermost = np.unique((points @ directions.T).argmax(axis=0))
            found[structure.name] = points[outermost] + first
    return found


def _directions(count: int) -> NDArray[np.float64]:
    """Directions spread evenly over the sphere, and along the axes, shape (count + 6, 3)."""
    steps = np.arange(count) + 0.5
    polar, around = np.arccos(1 - 2 * steps / count), np.pi * (1 + 5**0.5) * steps
    spread = np.stack(
        [np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1
    )
    return np.concatenate([spread, np.eye(3), -np.eye(3)])

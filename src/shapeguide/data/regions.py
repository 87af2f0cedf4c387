"""Regions: boxes around groups of structures, in which whole scans are segmented.

A region is laid by the centres of the structures in it, wherever those come from: label maps in
training, a finder in prediction. Its size covers the largest training case, turned as scans may
be, and how far off the centres may be.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from shapeguide.data.case import Case
from shapeguide.data.extents import Extent, scan_axes
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.vocabulary import RegionChoice

logger = logging.getLogger(__name__)

TURN_DEG = 20.0
"""A head lies turned in its scan by no more than this about each axis."""
TURNS = 40
"""Turns of each case that the size of a region is measured on."""
TURNED_SHARE = 0.98
"""Share of the turned cases that a region holds whole; the others lie in its margin, mostly."""
ROUNDING_VOXELS = 0.5
"""Added at both ends: a region is laid on whole voxels, and so up to half a one off."""
WORTH_SHARE = 0.5
"""Regions are worth a finder where all of them have at most this share of a scan's voxels."""
FAR_MM = 25.0
"""A structure this much further from where it lies in the median case is said to be far."""


@dataclass(frozen=True)
class Region:
    """A box around some structures."""

    structures: tuple[str, ...]
    """What it holds whole."""
    offsets_mm: tuple[tuple[float, float, float], ...]
    """From the centre of mass of each of them to the middle of the box, along R, A, S of the scan's
    own axes: the mean of the training cases."""

    def middle_mm(
        self, centres_mm: Mapping[str, NDArray[np.float64]], grid: Grid
    ) -> NDArray[np.float64] | None:
        """World position of its middle, by the structures that are there; None where none is.

        Args:
            centres_mm: Centre of mass of each structure that is there, by name, world position.
            grid: The scan's.
        """
        axes = scan_axes(grid)
        middles = [
            centres_mm[name] + axes @ np.array(offset)
            for name, offset in zip(self.structures, self.offsets_mm, strict=True)
            if name in centres_mm
        ]
        return np.mean(middles, axis=0, dtype=np.float64) if middles else None


@dataclass(frozen=True)
class Regions:
    """The regions that a segmenter works on.

    Raises:
        ConfigError: If a structure is in two of them, or a margin is negative.
    """

    each: tuple[Region, ...]
    spatial_shape: tuple[int, int, int]
    """Voxels of each of them, in the working space."""
    margin_mm: float
    """How far off its middle, along each axis, a region still holds its structures whole."""

    def __post_init__(self) -> None:
        names = [name for region in self.each for name in region.structures]
        if not names or len(set(names)) < len(names) or not self.margin_mm >= 0:
            raise ConfigError(
                f"regions hold each structure once and have a margin of at least 0 mm, found {self}"
            )
        if any(len(region.structures) != len(region.offsets_mm) for region in self.each):
            raise ConfigError(f"regions state one offset for each of their structures: {self}")

    @property
    def voxels(self) -> int:
        """Voxels of all regions together."""
        return len(self.each) * prod(self.spatial_shape)

    def place_of(self, structure: str) -> int:
        """Which of the regions holds a structure whole.

        Raises:
            ConfigError: If none does.
        """
        for place, region in enumerate(self.each):
            if structure in region.structures:
                return place
        raise ConfigError(f"no region holds {structure}")

    def margin_voxels(self, spacing_mm: Sequence[float]) -> tuple[int, int, int]:
        """The margin in whole voxels of this spacing."""
        i, j, k = (int(self.margin_mm / step) for step in spacing_mm)
        return i, j, k


class Places(Protocol):
    """Where in its scan the items of a case lie, each as large as the working space."""

    @property
    def count(self) -> int:
        """Items of each case."""
        ...

    @property
    def off(self) -> tuple[int, int, int]:
        """Voxels that training lays an item off its middle, at most, to either side."""
        ...

    @property
    def room(self) -> tuple[int, int, int]:
        """Voxels that are prepared beyond an item, at both ends of each axis."""
        ...

    def showing(self, structure: str) -> int:
        """Which of the items shows a structure whole."""
        ...

    def middle_mm(self, case: Case, item: int) -> NDArray[np.float64]:
        """World position of the middle of an item of a case."""
        ...


def choose_regions(
    extents: Sequence[Extent],
    *,
    choice: RegionChoice,
    margin_mm: float,
    spacing_mm: Sequence[float],
    divisor: int,
) -> Regions:
    """Regions that hold the structures of all cases.

    Args:
        extents: Those of the training cases, at least one.
        choice: `all`: one region around all structures; `structure`: one around each; `auto`:
            whichever has fewer voxels in all.
        margin_mm: How far off its middle a region still has to hold its structures.
        spacing_mm: Of the working space.
        divisor: Every length of the shape is a multiple of it.
    """
    names = [item.name for item in extents[0].case.structures]
    groupings: dict[str, list[tuple[str, ...]]] = {
        "all": [tuple(names)],
        "structure": [(name,) for name in names],
    }
    candidates: list[Regions] = []
    for groups in groupings.values() if choice == "auto" else [groupings[choice]]:
        each = tuple(_region(group, extents) for group in groups)
        half_mm = np.max([_half_size_mm(region, extents) for region in each], axis=0) + margin_mm
        shape = [
            ceil((2 * half / step + 2 * ROUNDING_VOXELS) / divisor) * divisor
            for half, step in zip(half_mm, spacing_mm, strict=True)
        ]
        candidates.append(Regions(each, (shape[0], shape[1], shape[2]), float(margin_mm)))
    return min(candidates, key=lambda regions: regions.voxels)


def far_from_others(extents: Sequence[Extent]) -> list[str]:
    """Sentences on structures that lie elsewhere than in the other cases, to be looked at.

    What is compared is where structures lie to each other, and in the scan where there is one.
    """
    told = []
    names = [item.name for item in extents[0].case.structures]
    for name in names:
        held = [extent for extent in extents if name in extent.centres_mm]
        others = [other for other in names if other != name]
        places = []
        for extent in held:
            known = [extent.along_axes_mm(other) for other in others if other in extent.centres_mm]
            middle = np.linalg.solve(scan_axes(extent.grid), extent.grid.centre_mm)
            from_mm = np.mean(known, axis=0) if known else middle
            places.append(extent.along_axes_mm(name) - from_mm)
        if len(places) < 3:
            continue
        apart = np.linalg.norm(np.array(places) - np.median(places, axis=0), axis=1)
        told += [
            f"{extent.case.id}: {name} lies {distance:.0f} mm from where it lies in the median "
            "case; look whether its label map is right, or leave the case out"
            for extent, distance in zip(held, apart, strict=True)
            if distance > FAR_MM + np.median(apart)
        ]
    return told


def _region(group: tuple[str, ...], extents: Iterable[Extent]) -> Region:
    """A region around a group; its offsets are the means over the cases that have all of it.

    Where no case has, those that have some of it serve.
    """
    found: dict[str, list[NDArray[np.floating[Any]]]] = {name: [] for name in group}
    extents = list(extents)
    complete = [extent for extent in extents if extent.centres_mm.keys() >= set(group)]
    for extent in complete or extents:
        there = [name for name in group if name in extent.centres_mm]
        if there:
            points = np.concatenate([extent.outlines_mm[name] for name in there])
            middle = (points.min(axis=0) + points.max(axis=0)) / 2
            for name in there:
                found[name].append(middle - extent.along_axes_mm(name))
    offsets = [np.mean(each, axis=0) if each else np.zeros(3) for each in found.values()]
    return Region(group, tuple((float(r), float(a), float(s)) for r, a, s in np.round(offsets, 2)))


def _half_size_mm(region: Region, extents: Iterable[Extent]) -> NDArray[np.float64]:
    """How far the structures reach from the middle of their region, turned as scans may be."""
    turns = Rotation.from_euler(
        "xyz",
        np.random.default_rng(0).uniform(-TURN_DEG, TURN_DEG, size=(TURNS, 3)),
        degrees=True,
    ).as_matrix()
    turns[0] = np.eye(3)
    reaches = []
    for extent in extents:
        there = [name for name in region.structures if name in extent.centres_mm]
        if not there:
            continue
        points = np.concatenate([extent.outlines_mm[name] for name in there])
        centres = np.array([extent.along_axes_mm(name) for name in there])
        chosen = [region.structures.index(name) for name in there]
        offsets = np.array(region.offsets_mm)[chosen]
        middles = (centres @ turns.transpose(0, 2, 1) + offsets).mean(axis=1)  # (turns, 3)
        turned = points @ turns.transpose(0, 2, 1) - middles[:, None]
        reaches.append(np.abs(turned).max(axis=1) + np.array(extent.spacing_mm) / 2)
    upright_mm = np.max([reach[0] for reach in reaches], axis=0)
    turned_mm = np.quantile(np.concatenate(reaches), TURNED_SHARE, axis=0)
    half_mm: NDArray[np.float64] = np.maximum(upright_mm, turned_mm)
    return half_mm

"""Where the regions of cases lie: by their label maps in training, by the finder otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.extents import Extent, extent_of
from shapeguide.data.regions import (
    WORTH_SHARE,
    Regions,
    choose_regions,
    far_from_others,
)
from shapeguide.data.working_space import WorkingSpace
from shapeguide.geometry.grid import Grid
from shapeguide.models.finder_model import Finder
from shapeguide.training.settings.groups import SMALL_WINDOW_VOXELS, DataSettings

logger = logging.getLogger(__name__)

LARGEST_WINDOW_VOXELS = 128**3
"""What would have more voxels is worked on in patches."""
CONTEXT_SHARE = 0.1
"""Room beyond a region, as a share of its shape, from which a warp brings in what lies there."""

Voxels: TypeAlias = tuple[int, int, int]


Located: TypeAlias = tuple[Grid, Mapping[str, NDArray[np.float64]]]
"""The grid of a scan, and where the structures in it are: world positions of their centres."""


@dataclass(frozen=True, eq=False)
class RegionPlaces:
    """Regions, or patches of them, laid by what says where the structures of a case are."""

    regions: Regions
    locate: Callable[[Case], Located]
    """Says where the structures are: `by_label_map` or `by_finder`; asked once for each case."""
    off: Voxels = (0, 0, 0)
    room: Voxels = (0, 0, 0)
    _located: dict[str, Located] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """One item for each region."""
        return len(self.regions.each)

    def showing(self, structure: str) -> int:
        """The region that holds a structure whole."""
        return self.regions.place_of(structure)

    def middle_mm(self, case: Case, item: int) -> NDArray[np.float64]:
        """Where a region lies; in the middle of a scan in which none of its structures is."""
        if case.id not in self._located:
            self._located[case.id] = self.locate(case)
        grid, centres_mm = self._located[case.id]
        middle = self.regions.each[item].middle_mm(centres_mm, grid)
        return grid.centre_mm if middle is None else middle


def by_label_map(case: Case, known: Mapping[str, Extent] | None = None) -> Located:
    """Where the structures are as the label map says; extents that are known are not measured."""
    extent = (known or {}).get(case.id) or extent_of(case)
    return extent.grid, extent.centres_mm


def by_finder(case: Case, finder: Finder) -> Located:
    """Where the finder finds the structures, as in a user's scan: no label map is looked at."""
    volume = case.read_volume()
    found = finder.find(volume)
    return volume.grid, {name: np.array(one.centre_mm) for name, one in found.items()}


@dataclass(frozen=True, eq=False)
class PatchPlaces:
    """Patches of whole scans, laid anywhere in them."""

    off: Voxels
    room: Voxels

    count: int = 1

    def showing(self, structure: str) -> int:
        """Every structure is looked for in all patches."""
        return 0

    def middle_mm(self, case: Case, item: int) -> NDArray[np.float64]:
        """The middle of the scan."""
        return case.read_grid().centre_mm


@dataclass(frozen=True, eq=False)
class RegionPlan:
    """What regions are chosen from; how exact the finder is decides on their size in the end."""

    extents: tuple[Extent, ...]
    settings: DataSettings
    whole: WorkingSpace
    """The space that would hold whole scans."""
    divisor: int

    def laid(self, margin_mm: float) -> tuple[Regions, WorkingSpace]:
        """Regions that may be laid so far off, and the space of what is seen of them at once."""
        regions = choose_regions(
            self.extents,
            choice=self.settings.region,
            margin_mm=margin_mm,
            spacing_mm=self.whole.spacing_mm,
            divisor=self.divisor,
        )
        window = window_of(regions.spatial_shape, self.divisor)
        if self.settings.spatial_shape is not None:
            window = self.whole.spatial_shape
            i, j, k = map(max, regions.spatial_shape, window)
            regions = replace(regions, spatial_shape=(i, j, k))
        return regions, replace(self.whole, spatial_shape=window, centre="structure")

    def true_places(self, regions: Regions, space: WorkingSpace) -> RegionPlaces:
        """Places by label maps, laid off as training lays them."""
        beyond = _beyond(regions.spatial_shape, space.spatial_shape)
        margin = regions.margin_voxels(space.spacing_mm)
        i, j, k = (most + off for most, off in zip(beyond, margin, strict=True))
        known = {extent.case.id: extent for extent in self.extents}
        locate = partial(by_label_map, known=known)
        return RegionPlaces(regions, locate, (i, j, k), _with_context((i, j, k), space))

    def found_places(self, regions: Regions, space: WorkingSpace, finder: Finder) -> RegionPlaces:
        """Places as a finder finds them, prepared whole."""
        room = _beyond(regions.spatial_shape, space.spatial_shape)
        return RegionPlaces(regions, partial(by_finder, finder=finder), room=room)


def plan_regions(
    cases: Iterable[Case], settings: DataSettings, *, whole: WorkingSpace, divisor: int
) -> RegionPlan | None:
    """Whether regions are segmented instead of whole scans, and what they are chosen from.

    Args:
        cases: Those to train on; their label maps are read where regions may be worth it.
        settings: What the user wants.
        whole: The space that holds whole scans.
        divisor: Every length of a region's shape is a multiple of it.

    Raises:
        DataError: If a label map cannot be used.
    """
    automatic = settings.region == "auto"
    if settings.region == "none" or (automatic and is_fixed(settings)):
        return None
    if automatic and prod(whole.spatial_shape) <= SMALL_WINDOW_VOXELS:
        return None
    plan = RegionPlan(tuple(map(extent_of, cases)), settings, whole, divisor)
    for sentence in far_from_others(plan.extents):
        logger.warning("%s", sentence)
    regions, space = plan.laid(settings.region_margin_mm)
    share = regions.voxels / prod(whole.spatial_shape)
    if automatic and share > WORTH_SHARE:
        logger.info(
            "scans are worked on whole: regions around the structures would have %.0f%% of their "
            "voxels, so no finder is trained",
            100 * share,
        )
        return None
    logger.info("%s", described(regions, space))
    return plan


def is_fixed(settings: DataSettings) -> bool:
    """Whether the user has said what is seen of a scan."""
    stated = (settings.spatial_shape, settings.largest_shape)
    return stated != (None, None) or settings.centre != "volume"


def undivided(settings: DataSettings, space: WorkingSpace) -> str:
    """Why there are no regions, in words, where there are none."""
    if settings.region == "none":
        return "none: whole scans are asked for (data.region none)"
    if is_fixed(settings):
        return (
            "none: what is seen of a scan is stated (data.spatial_shape, largest_shape or centre)"
        )
    if prod(space.spatial_shape) <= SMALL_WINDOW_VOXELS:
        return "none: the scans are about as large as a region"
    return "none: regions around the structures would not be much smaller than the scans"


def patches_of(whole: WorkingSpace, divisor: int) -> tuple[WorkingSpace, PatchPlaces] | None:
    """The space of patches of scans that are too large to be seen at once; None where none is.

    Args:
        whole: The space that holds whole scans.
        divisor: Every length of a patch is a multiple of it.
    """
    window = window_of(whole.spatial_shape, divisor)
    if window == whole.spatial_shape:
        return None
    space = replace(whole, spatial_shape=window)
    off = _beyond(whole.spatial_shape, window)
    logger.info(
        "scans of up to %s voxels are worked on in patches of %s",
        " x ".join(map(str, whole.spatial_shape)), " x ".join(map(str, window)),
    )  # fmt: skip
    return space, PatchPlaces(off, _with_context(off, space))


def window_of(spatial_shape: Voxels, divisor: int) -> Voxels:
    """What is seen at once of so many voxels: all, or a patch with the longest sides shortened."""
    lengths = list(spatial_shape)
    while prod(lengths) > LARGEST_WINDOW_VOXELS and max(lengths) > divisor:
        longest = lengths.index(max(lengths))
        lengths[longest] = (lengths[longest] - 1) // divisor * divisor
    return lengths[0], lengths[1], lengths[2]


def described(regions: Regions, space: WorkingSpace) -> str:
    """What is segmented, in words."""
    size = " x ".join(
        f"{length * step:.0f}"
        for length, step in zip(regions.spatial_shape, space.spacing_mm, strict=True)
    )
    around = "; ".join(", ".join(region.structures) for region in regions.each)
    each = "one region" if len(regions.each) == 1 else f"{len(regions.each)} regions, each"
    told = f"{each} of {size} mm around {around}, found first, up to {regions.margin_mm:.1f} mm off"
    if space.spatial_shape != regions.spatial_shape:
        told += f"; seen in patches of {' x '.join(map(str, space.spatial_shape))} voxels"
    return told


def _beyond(whole: Voxels, window: Voxels) -> Voxels:
    """Voxels that a whole has beyond a window in its middle, at both ends of each axis."""
    i, j, k = (
        max(0, ceil((length - seen) / 2)) for length, seen in zip(whole, window, strict=True)
    )
    return i, j, k


def _with_context(off: Voxels, space: WorkingSpace) -> Voxels:
    i, j, k = (
        most + ceil(CONTEXT_SHARE * length)
        for most, length in zip(off, space.spatial_shape, strict=True)
    )
    return i, j, k

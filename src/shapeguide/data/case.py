"""One case: an image, perhaps a label map, and whom they show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from shapeguide.data.channels import (
    SMALLEST_OVERLAP,
    is_same_grid,
    on_grid_of_first,
    share_inside,
)
from shapeguide.data.nifti import read_grid, read_label_map, read_volume, read_volumes
from shapeguide.data.scan_files import stored_files
from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import resample_label_map
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.storage.names import name_fault, shown

logger = logging.getLogger(__name__)

Rows: TypeAlias = tuple[tuple[float, ...], ...]

POINTS_TRIED = 100_000


@dataclass(frozen=True)
class Case:
    """Files of one scan; nothing is read before it is asked for.

    Raises:
        DataError: If the id cannot be the name of a file, see `name_fault`.
    """

    id: str
    image: Path
    """The image; of a label map without one, the label map itself, which gives the grid then."""
    label_map: Path | None = None
    group: str | None = None
    """Cases of one group, such as scans of one person, stay on one side of every split."""
    structures: tuple[Structure, ...] = ()
    orientation: str | None = None
    """Directions of the voxel axes such as "RAS", for files that state none."""
    named_ids: frozenset[int] = frozenset()
    """Label ids that the description names; empty when it names none."""
    label_to_image: Rows | None = None
    """Voxel index of the label map to voxel index of the image, (4, 4), where their headers do not
    say how they lie to each other; it replaces what the header of the label map states."""
    further_channels: tuple[Path, ...] = ()
    """Other images of the same person and session, such as T2 beside T1; on grids of their own."""
    channel_names: tuple[str, ...] = ()
    """What the channels are called, in their order, where the description says so."""
    stacked: int = 1
    """How many channels the file of the image holds, along its fourth axis."""

    def __post_init__(self) -> None:
        fault = name_fault(self.id)
        if fault:
            raise DataError(
                f"{shown(self.image.name)}: its case id cannot be {shown(self.id)}: {fault}; files "
                'are named after cases, so rename the scan or state another "id" in the dataset '
                "description"
            )

    @property
    def person(self) -> str:
        """Whom the scan shows: the group, or the case itself where it has none."""
        return self.id if self.group is None else self.group

    @property
    def files(self) -> list[Path]:
        """Every file of the case, those that lie beside headers too."""
        label_map = () if self.label_map is None else (self.label_map,)
        paths = dict.fromkeys((self.image, *self.further_channels, *label_map))
        return [file for path in paths for file in stored_files(path)]

    @property
    def has_image(self) -> bool:
        """Whether there is more than a label map."""
        return self.image != self.label_map

    def without_image(self) -> Case:
        """The label map alone, on its own grid.

        Raises:
            DataError: If there is none.
        """
        if self.label_map is None:
            raise DataError(f"{self.id}: this case has no label map; choose labelled cases")
        return replace(
            self, image=self.label_map, label_to_image=None, further_channels=(), stacked=1
        )

    @property
    def channel_count(self) -> int:
        """How many channels the image has."""
        return self.stacked + len(self.further_channels)

    def read_grid(self) -> Grid:
        """Grid of the image, from its header alone; raises as `read_volume`."""
        with naming(self.id):
            return self._grid()

    def read_channels(self) -> tuple[Volume, ...]:
        """Every channel of the image, on the grid of the first.

        One on another grid is brought there through the affines, with a line in the log.

        Raises:
            DataError: If a file is missing, damaged or holds voxels that are not finite.
            GeometryError: If one states no usable grid, or less than half of the smaller of two
                channels lies inside the other.
        """
        with naming(self.id):
            self._check_image()
            if self.stacked > 1:
                return read_volumes(self.image, count=self.stacked, orientation=self.orientation)
            first = self.read_volume()
            others = [read_volume(p, orientation=self.orientation) for p in self.further_channels]
            for path, other in zip(self.further_channels, others, strict=True):
                if not is_same_grid(other.grid, first.grid):
                    grids = f"{self.image}: {first.grid}\n{path}: {other.grid}"
                    _warn_once(path, f"{self.id}: channels lie on different grids\n{grids}")
            try:
                return on_grid_of_first([first, *others])
            except GeometryError as error:
                names = ", ".join(path.name for path in (self.image, *self.further_channels))
                raise GeometryError(f"{names}: {error}") from error

    def _grid(self) -> Grid:
        return read_grid(self.image, orientation=self.orientation, count=self.stacked)

    def read_volume(self) -> Volume:
        """The image, of which there is one channel or the first is wanted.

        Raises:
            DataError: If the file is missing, damaged or holds voxels that are not finite.
            GeometryError: If it states no usable grid.
        """
        with naming(self.id):
            self._check_image()
            return read_volumes(self.image, count=self.stacked, orientation=self.orientation)[0]

    def read_label_map(self) -> LabelMap:
        """The label map, on the grid of the image.

        On another grid it is resampled through the affines, with a warning in the log; only ids
        of the structures are kept then. Label ids that no structure names are background.

        Raises:
            DataError: If there is none, it is damaged, or it holds ids that the description of
                the dataset does not name.
            GeometryError: If less than half of what is labelled lies inside the image.
        """
        with naming(self.id):
            label_map = self.read_stored_label_map()
            self._check_ids(label_map)
            grid = self._grid()
            if self.label_to_image is not None:
                affine = grid.affine @ np.array(self.label_to_image)
                label_map = replace(label_map, grid=Grid(label_map.grid.spatial_shape, affine))
            return _on_grid(label_map, grid, self)

    def read_stored_label_map(self) -> LabelMap:
        """The label map as its file holds it: on its own grid, with every id there is.

        Raises:
            DataError: If there is none, or it is damaged.
            GeometryError: If it states no usable grid.
        """
        with naming(self.id):
            if self.label_map is None:
                raise DataError("this case has no label map; choose labelled cases")
            return read_label_map(
                self.label_map, structures=self.structures, orientation=self.orientation
            )

    def _check_image(self) -> None:
        if not self.has_image:
            raise DataError(
                f"{self.image}: this case has no image beside its label map; choose cases with "
                "images"
            )

    def _check_ids(self, label_map: LabelMap) -> None:
        if not self.named_ids:
            return
        allowed = {0, *self.named_ids, *(one for item in self.structures for one in item.label_ids)}
        unknown = [label_id for label_id in label_map.voxels_of_ids() if label_id not in allowed]
        if unknown:
            raise DataError(
                f"{self.label_map}: label ids {', '.join(map(str, unknown[:10]))} are not named in "
                'the dataset description; name them under "labels" or correct the label map'
            )


@contextmanager
def naming(case_id: str) -> Iterator[None]:
    """Errors of the block name the case, once."""
    try:
        yield
    except (DataError, GeometryError, ConfigError) as error:
        if str(error).startswith(f"{case_id}: "):
            raise
        raise type(error)(f"{case_id}: {error}") from error


def _on_grid(label_map: LabelMap, grid: Grid, case: Case) -> LabelMap:
    if is_same_grid(label_map.grid, grid):
        return replace(label_map, grid=grid)
    grids = f"\nimage: {grid}\nlabel map: {label_map.grid}"
    share = _share_inside(label_map, grid)
    if share < SMALLEST_OVERLAP:
        raise GeometryError(
            f"image and label map do not overlap: {share:.0%} of what is labelled lies inside the "
            f"image; correct the affine of one of them{grids}"
        )
    _warn_once(case.image, f"{case.id}: label map resampled to the grid of its image{grids}")
    return resample_label_map(label_map, grid)


@cache
def _warn_once(image: Path, message: str) -> None:
    """Warn of a case when it is first read; a training reads each of them several times."""
    del image
    logger.warning("%s", message)


def _share_inside(label_map: LabelMap, grid: Grid) -> float:
    """Share of the labelled voxels, or of all if none is, whose centres the grid holds."""
    labelled = np.flatnonzero(label_map.data)
    if not labelled.size:
        labelled = np.arange(label_map.data.size)
    labelled = labelled[:: 1 + labelled.size // POINTS_TRIED]
    indices = np.stack(np.unravel_index(labelled, label_map.data.shape), axis=-1)
    return share_inside(grid, label_map.grid.to_world(indices.astype(np.float64)))

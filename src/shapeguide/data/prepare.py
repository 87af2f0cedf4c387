"""One volume or case is brought to the working space: RAS, one spacing, one shape, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.case import Case, naming
from shapeguide.data.intensities import foreground_mask, normalise_intensities
from shapeguide.data.label_ids import listed_ids
from shapeguide.data.working_space import WorkingSpace, lengths_at
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.boxes import Box, box_ends, foreground_box
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import (
    ras_grid,
    resample_label_map,
    resample_volume,
    working_grid,
)
from shapeguide.geometry.volume import LabelMap, Structure, Volume

EDGE_VOXELS = 1e-3
Image: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PreparedLabelMap:
    """The label map of a case on exactly the spatial shape of the working space."""

    id: str
    classes: NDArray[np.uint8]
    """Class index of each voxel, shape (I, J, K): 0 background, n for the n-th structure."""
    grid: Grid
    volumes_mm3: tuple[float, ...]
    """Volume of each structure in the whole scan, of which a region may show a part."""

    def without(self, margin: tuple[int, int, int]) -> PreparedLabelMap:
        """The middle of it, without so many voxels at both ends of each axis."""
        if not any(margin):
            return self
        grid, box = _middle(self.grid, margin)
        return replace(self, classes=self.classes[box], grid=grid)


@dataclass(frozen=True, eq=False)
class PreparedCase(PreparedLabelMap):
    """A case with its image on exactly the spatial shape of the working space."""

    image: Image
    """Normalised intensities, shape (C, I, J, K)."""

    def without(self, margin: tuple[int, int, int]) -> PreparedCase:
        """The middle of it, without so many voxels at both ends of each axis."""
        if not any(margin):
            return self
        grid, box = _middle(self.grid, margin)
        image = self.image[(slice(None), *box)]
        return replace(self, classes=self.classes[box], image=image, grid=grid)


def prepare_volume(volume: Volume, space: WorkingSpace) -> Volume:
    """A volume in the working spacing, whole, for prediction.

    The result covers all of the volume and is at least as large as the spatial shape of the
    space; what is added around it has the volume's smallest value. Intensities are normalised by
    the whole volume, as `prepare_case` does before it crops.

    Raises:
        DataError: If the volume is constant, or its voxels are not finite.
        GeometryError: If the result would have more than 512^3 voxels.
    """
    whole = lengths_at(ras_grid(volume.grid), space.spacing_mm)
    i, j, k = map(max, whole, space.spatial_shape)
    grid = working_grid(volume.grid, space.spacing_mm, (i, j, k), volume.grid.centre_mm)
    return resample_volume(normalised(volume, space), grid)


def prepare_channels(channels: Sequence[Volume], space: WorkingSpace) -> tuple[Grid, Image]:
    """Channels of one grid as `prepare_volume` gives each of them.

    Returns:
        Their grid in the working space, and intensities of shape (C, I, J, K).
    """
    prepared = [prepare_volume(channel, space) for channel in channels]
    return prepared[0].grid, np.stack([one.data for one in prepared])


def normalised(volume: Volume, space: WorkingSpace) -> Volume:
    """A volume with the intensities of the working space, on its own grid.

    Raises:
        DataError: If it is constant, or its voxels are not finite.
    """
    return Volume(normalise_intensities(volume.data, space.normalisation), volume.grid)


def prepare_case(
    case: Case, space: WorkingSpace, middle_mm: NDArray[np.float64] | None = None
) -> PreparedCase:
    """A labelled case cropped or padded to the working space by its centre rule, for training.

    Args:
        case: The case.
        space: The working space.
        middle_mm: World position of the middle of the crop, which may then show the structures
            in part or not at all; None leaves it to the centre rule of the space.

    Raises:
        DataError: If a file is unusable, the image is constant, no structure is present at all
            (one of several may be absent), or the crop would cut a structure.
        GeometryError: If image and label map do not overlap.
        ConfigError: If the case has no structures.
    """
    with naming(case.id):
        channels = case.read_channels()
        return _with_image(_label_map(case, space, middle_mm, channels[0]), channels, space)


def prepare_label_map(
    case: Case, space: WorkingSpace, middle_mm: NDArray[np.float64] | None = None
) -> PreparedLabelMap:
    """The label map as `prepare_case` gives it, without its image.

    The header of the image is read, and its voxels where they say what the space is centred on.

    Raises:
        DataError: If the label map is unusable, no structure is present at all, or the crop would
            cut a structure.
        GeometryError: If image and label map do not overlap.
        ConfigError: If the case has no structures.
    """
    with naming(case.id):
        return _label_map(case, space, middle_mm, None)


def add_image(label_map: PreparedLabelMap, case: Case, space: WorkingSpace) -> PreparedCase:
    """The image of a case beside its prepared label map; together they are `prepare_case`.

    Raises:
        DataError: If the file is unusable or the image is constant.
    """
    with naming(case.id):
        return _with_image(label_map, case.read_channels(), space)


def _label_map(
    case: Case,
    space: WorkingSpace,
    middle_mm: NDArray[np.float64] | None,
    volume: Volume | None,
) -> PreparedLabelMap:
    if not case.structures:
        raise ConfigError("no structures are chosen; name them, as in hippocampus=1,2")
    label_map = case.read_label_map()
    classes = label_map.class_indices()
    if not classes.any():
        wanted = ", ".join(f"{item.name} {item.label_ids}" for item in case.structures)
        raise DataError(
            f"{case.label_map}: no voxel belongs to a structure, expected {wanted}; correct the "
            "label ids or leave the case out; these are there:\n"
            f"{listed_ids(case.read_stored_label_map(), {})}"
        )
    own, given = label_map.grid, middle_mm is not None
    if middle_mm is None:
        middle_mm = own.centre_mm
        if space.centre == "structure":
            middle_mm = _middle_of(classes > 0, own)
        elif space.centre == "foreground":
            data = (volume or case.read_volume()).data
            middle_mm = _middle_of(foreground_mask(data), own)
    grid = working_grid(own, space.spacing_mm, space.spatial_shape, middle_mm)
    if not given:
        _check_whole(classes, own, grid, space)
    prepared = resample_label_map(_class_map(classes, own, case.structures), grid)
    counts = np.bincount(classes.ravel(), minlength=1 + len(case.structures))[1:]
    return PreparedLabelMap(
        case.id,
        prepared.data.astype(np.uint8, copy=False),
        grid,
        tuple((counts * own.voxel_volume_mm3).tolist()),
    )


def _with_image(
    label_map: PreparedLabelMap, channels: Sequence[Volume], space: WorkingSpace
) -> PreparedCase:
    images = (resample_volume(normalised(one, space), label_map.grid) for one in channels)
    return PreparedCase(**vars(label_map), image=np.stack([one.data for one in images]))


def _middle(grid: Grid, margin: tuple[int, int, int]) -> tuple[Grid, Box]:
    """A grid without a margin at both ends of each axis, and which voxels those are."""
    i, j, k = (
        slice(left_out, length - left_out)
        for left_out, length in zip(margin, grid.spatial_shape, strict=True)
    )
    return grid.part((i, j, k)), (i, j, k)


def _class_map(
    classes: NDArray[np.uint8], grid: Grid, structures: tuple[Structure, ...]
) -> LabelMap:
    """Class indices as a label map: a structure of several label ids is resampled as one."""
    numbered = (Structure(item.name, (n,)) for n, item in enumerate(structures, start=1))
    return LabelMap(classes, grid, tuple(numbered))


def _middle_of(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Middle of the bounding box of a mask, or of the grid where it is empty; mm."""
    box = foreground_box(mask)
    return grid.centre_mm if box is None else grid.to_world(box_ends(box).mean(axis=0))


def _check_whole(
    classes: NDArray[np.uint8], grid: Grid, working: Grid, space: WorkingSpace
) -> None:
    """Refuse a crop that would cut off voxels of a structure."""
    filled = foreground_box(classes > 0)
    if filled is None:
        return
    ends = working.to_index(grid.to_world(box_ends(filled).astype(np.float64)))
    low, high = ends.min(axis=0), ends.max(axis=0)
    shape = np.array(space.spatial_shape)
    edge = 0.5 + EDGE_VOXELS
    if (low >= -edge).all() and (high <= shape - 1 + edge).all():
        return
    # The box joins voxel centres: half a voxel of the file is added at either end.
    own = np.array(ras_grid(grid).spacing_mm)
    size_mm = (high - low) * np.array(space.spacing_mm) + own
    found = (
        f"the structures fill {_times(np.round(size_mm, 1))} mm along R, A, S, working voxels "
        f"{_times(np.round(low, 1))} to {_times(np.round(high, 1))}, and the working shape is "
        f"{_times(shape)} voxels of {_times(space.spacing_mm)} mm"
    )
    if (size_mm > (shape + EDGE_VOXELS) * np.array(space.spacing_mm)).any():
        raise DataError(f"{found}; raise the spatial shape or the spacing")
    raise DataError(
        f'{found}, centred on the {space.centre}; centre it on the "structure" or raise the '
        "spatial shape"
    )


def _times(values: NDArray[np.generic] | tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in np.asarray(values).tolist())

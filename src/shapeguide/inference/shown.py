"""What a segmenter is shown of a volume, and what it sees there: regions, or all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.case import Case, naming
from shapeguide.data.channels import chosen_channels
from shapeguide.data.prepare import normalised, prepare_channels
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import resample_volume, working_grid
from shapeguide.geometry.volume import Volume
from shapeguide.machine import autocast, choose_precision
from shapeguide.models.restoration import Restoration
from shapeguide.models.segmenter import Segmenter
from shapeguide.models.windows import through_windows


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a volume: a region, or all of it."""

    grid: Grid
    """In the working space."""
    structures: tuple[str, ...]
    """Those that the segmenter is asked about; others may be cut by the border."""
    whole: bool
    """Whether it is all of the volume."""


@dataclass(frozen=True, eq=False)
class Shown(Part):
    """What a segmenter is shown of one part of a volume."""

    image: NDArray[np.float32]
    """Normalised intensities, shape (C, I, J, K)."""


@dataclass(frozen=True, eq=False)
class Seen(Part):
    """What the segmenter saw in one part of a volume."""

    probabilities: NDArray[np.float32]
    """Class probabilities, background first, shape (1 + structures, I, J, K)."""
    restoration: Restoration | None = None

    @property
    def restored(self) -> bool:
        """Whether a restorer changed anything."""
        return self.restoration is not None and self.restoration.changes


def channels_for(segmenter: Segmenter, case: Case) -> tuple[Volume, ...]:
    """The channels of a case that a segmenter takes, on the grid of the first.

    They are told by their names where the case has names and all of them are known, and otherwise
    by their order.

    Raises:
        DataError: If the case has other channels, or a file is unusable.
        GeometryError: If channels do not overlap.
    """
    with naming(case.id):
        return chosen_channels(case.read_channels(), case.channel_names, segmenter.image_channels)


def shown_to(segmenter: Segmenter, channels: Sequence[Volume]) -> tuple[Shown, ...]:
    """What a segmenter is shown of a volume; it serves every segmenter of the same training.

    Args:
        segmenter: A trained segmenter.
        channels: The scan, of any orientation and spacing: its channels on one grid.

    Returns:
        All of it, or the regions in which something was found.

    Raises:
        DataError: If the volume cannot be normalised.
    """
    names = tuple(structure.name for structure in segmenter.structures)
    if segmenter.regions is None:
        grid, image = prepare_channels(channels, segmenter.space)
        return (Shown(grid, names, whole=True, image=image),)
    if segmenter.finder is None:
        raise ConfigError(
            "this segmenter works on regions and has no finder to find them; load its run folder"
        )
    found = segmenter.finder.find(channels[0])
    centres_mm = {name: np.array(item.centre_mm) for name, item in found.items()}
    images, shown = [normalised(one, segmenter.space) for one in channels], []
    for region in segmenter.regions.each:
        middle_mm = region.middle_mm(centres_mm, channels[0].grid)
        if middle_mm is not None:
            there = tuple(name for name in region.structures if name in found)
            shown.append(_region_of(images, segmenter, middle_mm, there))
    return tuple(shown)


def seen_in(segmenter: Segmenter, shown: Shown, channels: Sequence[Volume]) -> Seen:
    """What a segmenter sees in what it is shown.

    A region whose structures reach its border is laid around what was found, once.

    Args:
        segmenter: A trained segmenter.
        shown: A part of the volume.
        channels: The volume itself.
    """
    probabilities = prepared_probabilities(segmenter, shown.image)
    if not shown.whole:
        middle_mm = _moved_middle_mm(segmenter, shown, probabilities, channels[0])
        if middle_mm is not None:
            images = [normalised(one, segmenter.space) for one in channels]
            shown = _region_of(images, segmenter, middle_mm, shown.structures)
            probabilities = prepared_probabilities(segmenter, shown.image)
    return Seen(shown.grid, shown.structures, shown.whole, probabilities)


def _region_of(
    images: Sequence[Volume],
    segmenter: Segmenter,
    middle_mm: NDArray[np.float64],
    structures: tuple[str, ...],
) -> Shown:
    shape = segmenter.space.spatial_shape
    if segmenter.regions is not None:
        shape = segmenter.regions.spatial_shape
    grid = working_grid(images[0].grid, segmenter.space.spacing_mm, shape, middle_mm)
    image = np.stack([resample_volume(one, grid).data for one in images])
    return Shown(grid, structures, whole=False, image=image)


def _moved_middle_mm(
    segmenter: Segmenter, shown: Shown, probabilities: NDArray[np.float32], volume: Volume
) -> NDArray[np.float64] | None:
    """Where a region should lie instead, if what it should hold whole reaches its border.

    Where the scan ends there as well, moving shows nothing more.
    """
    classes = probabilities.argmax(axis=0)
    names = [structure.name for structure in segmenter.structures]
    asked = [1 + names.index(name) for name in shown.structures]
    found = np.isin(classes, asked)
    if not _cut(found, shown.grid, volume.grid) or segmenter.regions is None:
        return None
    place = segmenter.regions.place_of(shown.structures[0])
    centres_mm = {
        names[index - 1]: shown.grid.to_world(np.argwhere(classes == index).mean(axis=0))
        for index in asked
        if (classes == index).any()
    }
    return segmenter.regions.each[place].middle_mm(centres_mm, volume.grid)


def _cut(found: NDArray[np.bool_], region: Grid, scan: Grid) -> bool:
    """Whether what was found reaches a border of the region at which the scan goes on."""
    for axis in range(3):
        for end, step in ((0, -1), (region.spatial_shape[axis] - 1, 1)):
            reached = np.argwhere(found.take(end, axis=axis))
            if not len(reached):
                continue
            beyond = np.insert(reached, axis, end + step, axis=1).astype(np.float64)
            inside = scan.to_index(region.to_world(beyond))
            if ((inside >= -0.5) & (inside <= np.array(scan.spatial_shape) - 0.5)).all(1).any():
                return True
    return False


@torch.inference_mode()
def prepared_probabilities(segmenter: Segmenter, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities of an image from `prepare_channels`, in the working space.

    Args:
        segmenter: A trained segmenter.
        image: Normalised intensities in the segmenter's spacing, shape (C, I, J, K).

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.
    """
    device = segmenter.device
    images = torch.from_numpy(np.ascontiguousarray(image)).to(device)[None]
    window = segmenter.space.spatial_shape

    def network(windows: Tensor) -> Tensor:
        with autocast(device, choose_precision("auto", device)):
            logits: Tensor = segmenter.network(windows)
        return logits.float().softmax(dim=1)

    probabilities = through_windows(network, images, window)
    found: NDArray[np.float32] = probabilities[0].cpu().numpy()
    return found

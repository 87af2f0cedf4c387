"""Prediction of one volume, on exactly its grid."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.channels import chosen_channels, on_grid_of_first
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.boxes import Box, is_empty, joined_box, whole_box
from shapeguide.geometry.nesting import made_of
from shapeguide.geometry.resample import (
    covering_box,
    resample_channels,
)
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.inference.run import TrainedRun, as_run
from shapeguide.inference.shown import Seen, Shown, seen_in, shown_to
from shapeguide.metrics.components import keep_largest_component
from shapeguide.models.restoration import Restorer
from shapeguide.models.segmenter import Segmenter

LARGEST_PROBABILITIES_BYTES = 16 * 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one volume; it is brought to the grid of the volume when asked for."""

    volume: Volume
    structures: tuple[Structure, ...]
    parts: tuple[Seen, ...]
    """One that shows all of the volume, or its regions."""
    wholes: tuple[Structure, ...] = ()
    """Structures that are made of several of those."""

    @property
    def seen(self) -> NDArray[np.float32]:
        """Class probabilities of the one part that there is, as the segmenter gave them.

        Raises:
            ConfigError: If there are several regions, or none because nothing was found.
        """
        if len(self.parts) != 1:
            raise ConfigError(
                f"the volume was looked at in {len(self.parts)} regions: take the parts"
            )
        return self.parts[0].probabilities

    @property
    def missed(self) -> tuple[str, ...]:
        """Structures that the finder did not find; they are not segmented."""
        asked = {name for part in self.parts for name in part.structures}
        return tuple(item.name for item in self.structures if item.name not in asked)

    @property
    def restored(self) -> bool:
        """Whether a restorer changed anything."""
        return any(part.restored for part in self.parts)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Class probabilities on the grid of the volume, background first, restored if at all.

        Raises:
            DataError: If they would take too much memory.
        """
        box, near = self._near
        whole = np.zeros((len(near), *self.volume.grid.spatial_shape), dtype=np.float32)
        whole[0] = 1
        whole[(slice(None), *box)] = near
        return whole

    @cached_property
    def _near(self) -> tuple[Box, NDArray[np.float32]]:
        """The part of the volume that was looked at, and class probabilities there, restored."""
        return self._on_grid(restored=True)

    @cached_property
    def changed_mm3(self) -> dict[str, float]:
        """Volume of the voxels that a restorer added to each structure or took from it, by name."""
        if not self.restored:
            return {item.name: 0.0 for item in (*self.wholes, *self.structures)}
        box, probabilities = self._on_grid(restored=False)
        before = label_map_from(probabilities, self.structures, self.volume, box=box)
        after = self.label_map()
        return {
            item.name: int(np.count_nonzero(before.mask(item) != after.mask(item)))
            * self.volume.grid.voxel_volume_mm3
            for item in after.structures
        }

    def probability_of_each(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Name and probability (I, J, K) of each structure, also of those made of others."""
        box, near = self._near

        def of(indices: list[int]) -> NDArray[np.float32]:
            found = np.zeros(self.volume.grid.spatial_shape, dtype=np.float32)
            found[box] = near[indices].sum(axis=0)
            return found

        for index, structure in enumerate(self.structures, start=1):
            yield structure.name, of([index])
        for whole in self.wholes:
            yield whole.name, of([1 + place for place in made_of(whole, self.structures)])

    def label_map(self, *, largest_component: bool = False) -> LabelMap:
        """The most probable class of each voxel, on the grid of the volume and placed as it is.

        Each structure is written with the first of its label ids.

        Args:
            largest_component: Keep only the largest connected component of each structure.
        """
        box, probabilities = self._near
        labels = label_map_from(probabilities, self.structures, self.volume, box=box)
        labels = replace(labels, structures=(*self.wholes, *self.structures))
        return keep_largest_component(labels) if largest_component else labels

    def restored_by(self, restorer: Restorer) -> Prediction:
        """The same prediction, restored.

        Raises:
            ConfigError: If the restorer knows other structures.
        """
        parts = (
            replace(part, restoration=restorer.restore(part.probabilities)) for part in self.parts
        )
        return replace(self, parts=tuple(parts))

    def _on_grid(self, *, restored: bool) -> tuple[Box, NDArray[np.float32]]:
        """What was looked at, and there all classes, each structure by the part asked about it.

        Beyond it, all is background.
        """
        names = [structure.name for structure in self.structures]
        parts = [
            (
                part,
                part.restoration.probabilities
                if restored and part.restoration
                else part.probabilities,
            )
            for part in self.parts
        ]
        grid = self.volume.grid
        if parts and parts[0][0].whole:
            everywhere = whole_box(grid.spatial_shape)
            return everywhere, resample_channels(parts[0][1], parts[0][0].grid, grid)
        boxes = [covering_box(grid, part.grid) for part, _ in parts]
        around = joined_box(boxes)
        lengths = [side.stop - side.start for side in around]
        near = np.zeros((1 + len(names), *lengths), dtype=np.float32)
        for (part, found), box in zip(parts, boxes, strict=True):
            if is_empty(box):
                continue
            asked = [1 + names.index(name) for name in part.structures]
            i, j, k = (
                slice(side.start - start.start, side.stop - start.start)
                for side, start in zip(box, around, strict=True)
            )
            near[asked, i, j, k] = resample_channels(found[asked], part.grid, grid.part(box))
        sums = near[1:].sum(axis=0)
        near[0] = np.maximum(1 - sums, 0)
        near /= np.maximum(sums, 1)
        return around, near


def predict(
    model: Segmenter | TrainedRun,
    volume: Volume | Sequence[Volume],
    *,
    largest_component: bool = False,
) -> LabelMap:
    """Segment a volume, on exactly its grid; of several channels, on that of the first.

    Each structure is written with the first of its label ids.

    Args:
        model: A run from `load_run`, which gives what `shapeguide predict` gives, or a segmenter,
            whose predictions stay as it makes them.
        volume: The scan, of any orientation and spacing; or its channels, in the order of the
            training.
        largest_component: Keep only the largest connected component of each structure.

    Raises:
        DataError: If the volume cannot be normalised, for instance because it is constant, or
            would take too much memory, or has other than the channels of the training.
        GeometryError: If channels do not overlap.
    """
    return predict_volume(model, volume).label_map(largest_component=largest_component)


def predict_volume(model: Segmenter | TrainedRun, volume: Volume | Sequence[Volume]) -> Prediction:
    """Predict a volume: its probabilities, what a restorer changed, and the label map.

    Where the segmenter works on regions, its finder lays them, and what it does not find is not
    segmented; see `missed` of the prediction.

    Args:
        model: A run or a segmenter, as for `predict`.
        volume: The scan or its channels, as for `predict`.

    Raises:
        DataError: As `predict`.
        GeometryError: As `predict`.
    """
    run = as_run(model)
    given = (volume,) if isinstance(volume, Volume) else tuple(volume)
    wanted = run.segmenter.image_channels
    channels = on_grid_of_first(chosen_channels(given, (), wanted))
    shown = shown_to(run.segmenter, channels)
    prediction = predict_shown(run.segmenter, shown, channels)
    return prediction if run.restorer is None else prediction.restored_by(run.restorer)


def predict_shown(
    segmenter: Segmenter, shown: tuple[Shown, ...], channels: Sequence[Volume]
) -> Prediction:
    """Predict what is shown of a volume.

    A region whose structures reach its border is laid around what was found, once.

    Args:
        segmenter: A trained segmenter.
        shown: What `shown_to` gives for it, or for another one of the same training.
        channels: The volume itself: its channels on one grid.

    Raises:
        DataError: If the probabilities would take too much memory.
    """
    volume = channels[0]
    grids = [volume.grid, *(part.grid for part in shown)]
    largest = max(prod(grid.spatial_shape) for grid in grids)
    classes = 1 + len(segmenter.structures)
    if 4 * classes * largest > LARGEST_PROBABILITIES_BYTES:
        raise DataError(
            f"probabilities of {classes} classes on {volume.grid.spatial_shape} voxels take "
            f"{4 * classes * largest / 2**30:.0f} GiB, and at most "
            f"{LARGEST_PROBABILITIES_BYTES // 2**30} GiB are taken; crop the scan"
        )
    return Prediction(
        volume,
        segmenter.structures,
        tuple(seen_in(segmenter, part, channels) for part in shown),
        segmenter.wholes,
    )


def label_map_from(
    probabilities: NDArray[np.float32],
    structures: tuple[Structure, ...],
    volume: Volume,
    *,
    box: Box | None = None,
) -> LabelMap:
    """The most probable class of each voxel as a label map with the placement of the volume.

    Args:
        probabilities: Shape (1 + structures, I, J, K), background first.
        structures: In the order of the channels.
        volume: The input, whose grid and header placement the label map takes.
        box: The part of the volume that they are of, beyond which is background; all of it when
            not given.
    """
    written = np.array([0, *(structure.label_ids[0] for structure in structures)])
    kind = np.min_scalar_type(int(written.max()))
    near = written.astype(kind)[probabilities.argmax(axis=0)]
    if box is None:
        return LabelMap(near, volume.grid, structures, volume.placement)
    data = np.zeros(volume.grid.spatial_shape, dtype=kind)
    data[box] = near
    return LabelMap(data, volume.grid, structures, volume.placement)

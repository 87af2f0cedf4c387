"""Prediction of one volume, on exactly its grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.prepare import prepare_volume
from shapeguide.errors import DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import resample_channels
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.inference.run import TrainedRun, as_run
from shapeguide.machine import autocast, choose_precision
from shapeguide.metrics.components import keep_largest_component
from shapeguide.models.restoration import Restoration, Restorer
from shapeguide.models.segmenter import Segmenter

WINDOW_OVERLAP = 0.25
LARGEST_PROBABILITIES_BYTES = 16 * 2**30


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one volume; it is brought to the grid of the volume when asked for."""

    volume: Volume
    structures: tuple[Structure, ...]
    working_grid: Grid
    seen: NDArray[np.float32]
    """Class probabilities of the segmenter in the working space, background first, shape
    (1 + structures, I, J, K)."""
    restoration: Restoration | None = None

    @property
    def restored(self) -> bool:
        """Whether a restorer changed anything."""
        return self.restoration is not None and self.restoration.changes

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Class probabilities on the grid of the volume, background first, restored if at all.

        Raises:
            DataError: If they would take too much memory.
        """
        found = self.seen if self.restoration is None else self.restoration.probabilities
        return self._on_grid(found)

    @cached_property
    def changed_mm3(self) -> dict[str, float]:
        """Volume of the voxels that a restorer added to each structure or took from it, by name."""
        if not self.restored:
            return {structure.name: 0.0 for structure in self.structures}
        before = label_map_from(self._on_grid(self.seen), self.structures, self.volume)
        after = self.label_map()
        return {
            item.name: int(np.count_nonzero(before.mask(item) != after.mask(item)))
            * self.volume.grid.voxel_volume_mm3
            for item in self.structures
        }

    def label_map(self, *, largest_component: bool = False) -> LabelMap:
        """The most probable class of each voxel, on the grid of the volume and placed as it is.

        Each structure is written with the first of its label ids.

        Args:
            largest_component: Keep only the largest connected component of each structure.
        """
        labels = label_map_from(self.probabilities, self.structures, self.volume)
        return keep_largest_component(labels) if largest_component else labels

    def restored_by(self, restorer: Restorer) -> Prediction:
        """The same prediction, restored.

        Raises:
            ConfigError: If the restorer knows other structures.
        """
        return replace(self, restoration=restorer.restore(self.seen))

    def _on_grid(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        return resample_channels(found, self.working_grid, self.volume.grid)


def predict(
    model: Segmenter | TrainedRun, volume: Volume, *, largest_component: bool = False
) -> LabelMap:
    """Segment a volume, on exactly its grid.

    Each structure is written with the first of its label ids.

    Args:
        model: A run from `load_run`, which gives what `shapeguide predict` gives, or a segmenter,
            whose predictions stay as it makes them.
        volume: The scan, of any orientation and spacing.
        largest_component: Keep only the largest connected component of each structure.

    Raises:
        DataError: If the volume cannot be normalised, for instance because it is constant, or
            would take too much memory.
    """
    return predict_volume(model, volume).label_map(largest_component=largest_component)


def predict_volume(model: Segmenter | TrainedRun, volume: Volume) -> Prediction:
    """Predict a volume: its probabilities, what a restorer changed, and the label map.

    Args:
        model: A run or a segmenter, as for `predict`.
        volume: The scan, of any orientation and spacing.

    Raises:
        DataError: As `predict`.
    """
    run = as_run(model)
    prepared = prepare_volume(volume, run.segmenter.space)
    prediction = predict_prepared(run.segmenter, prepared, volume)
    return prediction if run.restorer is None else prediction.restored_by(run.restorer)


def predict_prepared(segmenter: Segmenter, prepared: Volume, volume: Volume) -> Prediction:
    """Predict a volume that was prepared before.

    Args:
        segmenter: A trained segmenter.
        prepared: The volume as `prepare_volume` gives it for the space of the segmenter.
        volume: The volume itself.

    Raises:
        DataError: If the probabilities would take too much memory.
    """
    largest = max(prod(grid.spatial_shape) for grid in (prepared.grid, volume.grid))
    classes = 1 + len(segmenter.structures)
    if 4 * classes * largest > LARGEST_PROBABILITIES_BYTES:
        raise DataError(
            f"probabilities of {classes} classes on {volume.grid.spatial_shape} voxels take "
            f"{4 * classes * largest / 2**30:.0f} GiB, and at most "
            f"{LARGEST_PROBABILITIES_BYTES // 2**30} GiB are taken; crop the scan"
        )
    seen = prepared_probabilities(segmenter, prepared.data)
    return Prediction(volume, segmenter.structures, prepared.grid, seen)


@torch.inference_mode()
def prepared_probabilities(segmenter: Segmenter, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities of an image from `prepare_volume`, in the working space.

    Args:
        segmenter: A trained segmenter.
        image: Normalised intensities in the segmenter's spacing, shape (I, J, K).

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.
    """
    device = segmenter.device
    images = torch.from_numpy(np.ascontiguousarray(image)).to(device)[None, None]
    window = segmenter.space.spatial_shape

    def network(windows: Tensor) -> Tensor:
        with autocast(device, choose_precision("auto", device)):
            logits: Tensor = segmenter.network(windows)
        return logits.float().softmax(dim=1)

    if images.shape[2:] == window:
        probabilities = network(images)
    else:
        probabilities = _slide(network, images, window)
    found: NDArray[np.float32] = probabilities[0].cpu().numpy()
    return found


def label_map_from(
    probabilities: NDArray[np.float32], structures: tuple[Structure, ...], volume: Volume
) -> LabelMap:
    """The most probable class of each voxel as a label map with the placement of the volume.

    Args:
        probabilities: Shape (1 + structures, I, J, K), background first.
        structures: In the order of the channels.
        volume: The input, whose grid and header placement the label map takes.
    """
    written = np.array([0, *(structure.label_ids[0] for structure in structures)])
    smallest = np.min_scalar_type(int(written.max()))
    data = written.astype(smallest)[probabilities.argmax(axis=0)]
    return LabelMap(data, volume.grid, structures, volume.placement)


def _slide(network: object, images: Tensor, window: tuple[int, int, int]) -> Tensor:
    from monai.inferers import sliding_window_inference

    found = sliding_window_inference(
        images, window, 1, network, overlap=WINDOW_OVERLAP, mode="gaussian"
    )
    if not isinstance(found, Tensor):
        raise TypeError(f"the network gave {type(found)}, expected one tensor of logits")
    return found

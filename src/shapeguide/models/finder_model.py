"""A trained finder: it looks at a whole scan coarsely and says where each structure is."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from shapeguide.data.prepare import prepare_volume
from shapeguide.data.working_space import WorkingSpace
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.machine import choose_device
from shapeguide.models.finder_network import FinderNetwork, finder_divisor
from shapeguide.models.finding import FoundStructure, Place, frame_of, locate
from shapeguide.models.levels import check_lengths
from shapeguide.models.model_files import Length, ModelDescription, load_network, read_description
from shapeguide.models.quality import FindingQuality
from shapeguide.models.windows import through_windows

FINDER_FOLDER = "finder"
"""Folder of the finder inside the run folder of the segmenter that it finds structures for."""
LEAST_SHARE = 0.25
"""Less than this share of the smallest training case's volume is no structure."""
LARGEST_AT_ONCE = 160
"""Edge length, in voxels, of a cube that the network sees at once: 48 cm of 3 mm, larger than any
head. Larger scans are seen in overlapping blocks of that size."""

PositiveMm3: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FinderDescription(ModelDescription):
    """`model.json` of a finder."""

    kind: Literal["finder"] = "finder"
    smallest_mm3: tuple[PositiveMm3, ...]
    """Volume of each structure in the training case that has least of it."""
    quality: tuple[FindingQuality, ...]
    shown_shape: tuple[Length, Length, Length]
    """Voxels that the network is shown at least."""

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        """Voxels that the network sees at once, of a head like those of the training."""
        return self.shown_shape

    @model_validator(mode="after")
    def _check_shape(self) -> FinderDescription:
        check_lengths(self.shown_shape, finder_divisor(self.channels), "finder")
        found = (len(self.smallest_mm3), len(self.quality))
        if found != (len(self.structures),) * 2:
            raise ValueError(
                f"volumes and quality of {found} structures, expected {len(self.structures)}"
            )
        return self


@dataclass(frozen=True, eq=False)
class Finder:
    """Says where in a scan each structure is, and whether it is there at all."""

    network: nn.Module
    """Images (B, 1, I, J, K) in its space to logits (B, 1 + structures, I, J, K)."""
    structures: tuple[Structure, ...]
    space: WorkingSpace
    """Coarse; large enough for every training scan."""
    smallest_mm3: tuple[float, ...]
    """Volume of each structure in the training case that has least of it."""
    quality: tuple[FindingQuality, ...]
    """One row for each structure."""
    shown_shape: tuple[int, int, int]
    """Voxels that the network is shown at least: as many as hold every training head."""
    divisor: int
    """The network takes spatial shapes that are multiples of this."""

    @property
    def error_mm(self) -> float:
        """How far off a centre is, along any axis of the scan, in all but 5 of 100 views.

        Over the views that its quality was measured on, for the structure that it is least exact
        about; those apart that show a structure in part or end beside it. Where nothing was ever
        found it is the longest side of its space.
        """
        largest = [row.most_mm for row in self.quality if row.most_mm is not None]
        sides = zip(self.space.spatial_shape, self.space.spacing_mm, strict=True)
        return max(largest) if largest else max(length * step for length, step in sides)

    def find(self, volume: Volume) -> dict[str, FoundStructure]:
        """Where each structure is, by name; what is not there is not among them.

        A structure cut by the edge of the scan is reported with what is left of it, if that is at
        least a quarter of the smallest in training. In a scan of two heads each structure is taken
        from where most of it is seen.

        Args:
            volume: A scan of any orientation, spacing and size.

        Raises:
            DataError: If the volume is constant, or its voxels are not finite.
            GeometryError: If it has more than 512^3 voxels of the finder's spacing.
        """
        prepared = prepare_volume(volume, self.space)
        found = {}
        for structure, place in zip(self.structures, self.places(prepared.data), strict=True):
            if place is not None:
                i, j, k = prepared.grid.to_world(place.centre).tolist()
                volume_mm3 = place.voxels * prepared.grid.voxel_volume_mm3
                found[structure.name] = FoundStructure((i, j, k), volume_mm3)
        return found

    def places(self, image: NDArray[np.float32]) -> list[Place | None]:
        """Where each structure lies in an image in the finder's space, of any shape (I, J, K)."""
        frame = frame_of(image, self.shown_shape, self.divisor)
        least = np.array(self.smallest_mm3) * LEAST_SHARE / prod(self.space.spacing_mm)
        found = locate(self._probabilities(frame.cut_out(image, image.min())), least.tolist())
        return [place and Place(place.centre + frame.first, place.voxels) for place in found]

    @torch.inference_mode()
    def _probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        device = next(self.network.parameters()).device
        images = torch.from_numpy(image).to(device)[None, None]

        def network(windows: Tensor) -> Tensor:
            logits: Tensor = self.network(windows)
            return logits.float().softmax(dim=1)

        i, j, k = image.shape
        if prod(image.shape) > LARGEST_AT_ONCE**3:
            largest = LARGEST_AT_ONCE // self.divisor * self.divisor
            i, j, k = (min(length, largest) for length in image.shape)
        found = through_windows(network, images, (i, j, k))
        probabilities: NDArray[np.float32] = found[0].cpu().numpy()
        return probabilities


def load_finder(folder: str | Path, *, device: str = "auto") -> Finder:
    """Load the finder of a finished finder stage.

    Args:
        folder: Folder of the finder, `finder` in that of a run.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        CheckpointError: If the stage is not finished, damaged, or the folder of another kind.
        ConfigError: If the device is not available.
    """
    folder = Path(folder)
    description = read_description(FinderDescription, folder)

    def build() -> FinderNetwork:
        return FinderNetwork(1 + len(description.structures), channels=description.channels)

    network = load_network(build, description, folder, "last")
    return Finder(
        network=network.to(choose_device(device)),
        structures=description.structures,
        space=description.space,
        smallest_mm3=description.smallest_mm3,
        quality=description.quality,
        shown_shape=description.shown_shape,
        divisor=network.divisor,
    )

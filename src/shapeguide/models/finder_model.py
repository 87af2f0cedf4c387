"""A trained finder: it looks at a whole scan coarsely and says where each structure is."""

from __future__ import annotations

import logging
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
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.machine import choose_device
from shapeguide.models.finder_network import FinderNetwork, finder_divisor
from shapeguide.models.finding import FoundStructure, Place, frame_of, of_one_head, sightings
from shapeguide.models.levels import check_lengths
from shapeguide.models.model_files import Length, ModelDescription, load_network, read_description
from shapeguide.models.quality import FindingQuality
from shapeguide.models.windows import through_windows

logger = logging.getLogger(__name__)

FINDER_FOLDER = "finder"
"""Folder of the finder inside the run folder of the segmenter that it finds structures for."""
LEAST_SHARE = 0.25
"""Less than this share of the smallest training case's volume is no structure."""
APART_MM = 100.0
"""Two places of one structure that lie this far apart are in two heads."""
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
        least a quarter of the smallest in training. Of two heads in one scan, the one that most is
        seen of is taken, and the log says so.

        Args:
            volume: A scan of any orientation, spacing and size.

        Raises:
            DataError: If the volume is constant, or its voxels are not finite.
            GeometryError: If it has more than 512^3 voxels of the finder's spacing.
        """
        prepared = prepare_volume(volume, self.space)
        sighted = self.sightings(prepared.data)
        places = of_one_head(sighted, self._apart_voxels)
        if any(len(one) > 1 for one in sighted):
            logger.warning("%s", self._of_several_heads(sighted, places, prepared.grid))
        found = {}
        for structure, place in zip(self.structures, places, strict=True):
            if place is not None:
                i, j, k = prepared.grid.to_world(place.centre).tolist()
                volume_mm3 = place.voxels * prepared.grid.voxel_volume_mm3
                found[structure.name] = FoundStructure((i, j, k), volume_mm3)
        return found

    def places(self, image: NDArray[np.float32]) -> list[Place | None]:
        """Where each structure lies in an image in the finder's space, of any shape (I, J, K)."""
        return of_one_head(self.sightings(image), self._apart_voxels)

    def sightings(self, image: NDArray[np.float32]) -> list[list[Place]]:
        """Where each structure may be in such an image; in a scan of two heads twice."""
        frame = frame_of(image, self.shown_shape, self.divisor)
        least = np.array(self.smallest_mm3) * LEAST_SHARE / prod(self.space.spacing_mm)
        probabilities = self._probabilities(frame.cut_out(image, image.min()))
        found = sightings(probabilities, least.tolist(), self._apart_voxels)
        return [[Place(one.centre + frame.first, one.voxels) for one in each] for each in found]

    @property
    def _apart_voxels(self) -> float:
        return APART_MM / min(self.space.spacing_mm)

    def _of_several_heads(
        self, sighted: list[list[Place]], taken: list[Place | None], grid: Grid
    ) -> str:
        several = [
            structure.name
            for structure, places in zip(self.structures, sighted, strict=True)
            if len(places) > 1
        ]
        centre = np.mean([grid.to_world(one.centre) for one in taken if one], axis=0)
        at = ", ".join(f"{value:.0f}" for value in centre)
        return (
            f"{', '.join(several)}: seen in several places more than {APART_MM:g} mm apart, as in "
            f"a scan of two heads; the one around ({at}) mm is taken, for the others crop the scan"
        )

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

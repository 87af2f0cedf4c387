"""A trained shape network with the space it was trained in and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shapeguide.data.working_space import WorkingSpace
from shapeguide.geometry.volume import Structure
from shapeguide.models.model_files import (
    ModelDescription,
    load_network,
    read_description,
)
from shapeguide.models.quality import ShapeQuality
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.vocabulary import Objective, Pose

SHAPE_FOLDER = "shape"
"""Folder of the shape network inside the run folder of the segmenter that it guided."""


class ShapeModelDescription(ModelDescription):
    """`model.json` of a shape network."""

    kind: Literal["shape_network"] = "shape_network"
    objective: Objective
    pose: Pose
    canonical_shape: Annotated[int, Field(ge=8, le=128)]
    trunks: Annotated[int, Field(ge=1, le=255)]
    normalised: bool = False
    """Files of older versions have none that is."""
    quality: tuple[ShapeQuality, ...] = ()

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        """The masks as they are, or their pose."""
        edge = self.canonical_shape
        return self.space.spatial_shape if self.pose == "grid" else (edge, edge, edge)


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """A trained shape network and what belongs to it."""

    network: ShapeNetwork
    structures: tuple[Structure, ...]
    space: WorkingSpace
    objective: str
    quality: tuple[ShapeQuality, ...]
    """One row for each structure."""

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the structures whose shapes the network does not tell apart.

        That its distances have become small is no part of it: see `ShapeQuality.scale`.
        """
        return tuple(row.structure for row in self.quality if row.collapsed)


def load_shape_network(run_dir: str | Path) -> ShapeModel:
    """Load the shape network of a finished shape stage.

    Args:
        run_dir: Folder of the stage, or of a run that has it inside.

    Raises:
        CheckpointError: If the stage is not finished, damaged, or the folder of another kind.
    """
    folder = Path(run_dir)
    if (folder / SHAPE_FOLDER).is_dir():
        folder = folder / SHAPE_FOLDER
    description = read_description(ShapeModelDescription, folder)

    def build() -> ShapeNetwork:
        return ShapeNetwork(
            [item.name for item in description.structures],
            channels=description.channels,
            pose=description.pose,
            canonical_shape=description.canonical_shape,
            trunks=description.trunks,
            normalised=description.normalised,
        )

    network = load_network(build, description, folder, "last")
    return ShapeModel(
        network=network,
        structures=description.structures,
        space=description.space,
        objective=description.objective,
        quality=description.quality,
    )

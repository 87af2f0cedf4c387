"""A trained autoencoder of label maps: its working space, and how well it restores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.models.mask_autoencoder import MaskAutoencoder
from shapeguide.models.model_files import (
    ModelDescription,
    fingerprint,
    load_network,
    read_description,
)
from shapeguide.models.quality import ReconstructionQuality
from shapeguide.models.restoration import Restoration, check_classes
from shapeguide.vocabulary import AutoencoderName

AUTOENCODER_FOLDER = "autoencoder"
"""Folder of the autoencoder inside the run folder of the segmenter that it guided."""


class AutoencoderDescription(ModelDescription):
    """`model.json` of an autoencoder."""

    kind: Literal["autoencoder"] = "autoencoder"
    flavour: AutoencoderName
    code_length: Annotated[int, Field(ge=1, le=4096)]
    quality: tuple[ReconstructionQuality, ...] = ()


@dataclass(frozen=True, eq=False)
class AutoencoderModel:
    """A trained autoencoder and what belongs to it."""

    network: MaskAutoencoder
    flavour: AutoencoderName
    structures: tuple[Structure, ...]
    space: WorkingSpace
    quality: tuple[ReconstructionQuality, ...]
    """One row for each structure."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the structures that it cannot even reproduce."""
        return tuple(row.structure for row in self.quality if not row.good)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides on its restorations, as plain values."""
        return {"autoencoder": fingerprint(self.network)}

    @torch.inference_mode()
    def restore(self, probabilities: NDArray[np.float32]) -> Restoration:
        """Class probabilities as a plausible shape: every voxel is made anew from the code of SRN.

        Args:
            probabilities: In the model's working spacing, background first, (1 + S, I, J, K); the
                spatial shape may be another than that of the training, for the network is
                convolutional.

        Returns:
            Probabilities of the same shape, float32, summing to 1 over the classes.

        Raises:
            ConfigError: If the model is of another flavour, or the classes are not those of the
                model.
        """
        if self.flavour != "srn":
            raise ConfigError(
                f"only an autoencoder of 'srn' restores predictions, found {self.flavour!r}; name "
                "a run that was guided by 'srn'"
            )
        check_classes(self, probabilities)
        device = next(self.network.parameters()).device
        given = torch.from_numpy(np.ascontiguousarray(probabilities, dtype=np.float32))
        restored: NDArray[np.float32] = (
            self.network(given.to(device)[None]).float().softmax(dim=1)[0].cpu().numpy()
        )
        return Restoration(restored, None)


def load_autoencoder(run_dir: str | Path) -> AutoencoderModel:
    """Load the autoencoder of a finished autoencoder stage.

    Raises:
        CheckpointError: If the stage is not finished, damaged, or the folder of another kind.
    """
    folder = Path(run_dir)
    description = read_description(AutoencoderDescription, folder)

    def build() -> MaskAutoencoder:
        return build_autoencoder(
            description.flavour,
            classes=1 + len(description.structures),
            spatial_shape=description.space.spatial_shape,
            channels=description.channels,
            code_length=description.code_length,
        )

    network = load_network(build, description, folder, "last")
    return AutoencoderModel(
        network=network,
        flavour=description.flavour,
        structures=description.structures,
        space=description.space,
        quality=description.quality,
    )


def build_autoencoder(
    flavour: AutoencoderName,
    *,
    classes: int,
    spatial_shape: tuple[int, int, int],
    channels: tuple[int, ...],
    code_length: int,
) -> MaskAutoencoder:
    """An untrained autoencoder; `acnn` with a dense code of that length, `srn` without."""
    return MaskAutoencoder(
        classes,
        spatial_shape=spatial_shape,
        channels=channels,
        code_length=code_length if flavour == "acnn" else None,
    )

"""Model files: weights as safetensors, everything else as JSON beside them. No pickle is read.

`model.json` names the SHA-256 of each weights file, so a damaged or foreign file is found on
loading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shapeguide.data.preprocess import WorkingSpace
from shapeguide.errors import CheckpointError
from shapeguide.geometry.volume import Structure
from shapeguide.storage.whole import write_json, written_whole
from shapeguide.vocabulary import Centre, Normalisation, WeightsName

MODEL_FILE = "model.json"
WEIGHTS_FILES: dict[WeightsName, str] = {
    "last": "model.safetensors",
    "best": "best.safetensors",
    "average": "average.safetensors",
}

# Bounds keep a foreign model file from asking for absurd amounts of memory.
Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=8)]
Length = Annotated[int, Field(ge=1, le=2048)]
Spacing = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class StructureDescription(BaseModel):
    """A structure as a model file states it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label_ids: Annotated[tuple[int, ...], Field(min_length=1)]


class SpaceDescription(BaseModel):
    """A working space as a model file states it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: tuple[Spacing, Spacing, Spacing]
    spatial_shape: tuple[Length, Length, Length]
    centre: Centre
    normalisation: Normalisation


class ModelDescription(BaseModel):
    """What every model file states, whatever the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made_by: str
    """Name and version of the program that wrote it."""
    structures: Annotated[tuple[StructureDescription, ...], Field(min_length=1, max_length=255)]
    space: SpaceDescription
    channels: Channels
    weights: dict[WeightsName, str] = {}
    """SHA-256 of each weights file."""
    notes: dict[str, Any] = {}
    """Facts about the training, for people."""


DescriptionT = TypeVar("DescriptionT", bound=ModelDescription)


def write_weights(
    network: nn.Module | Mapping[str, Tensor], folder: Path, which: WeightsName
) -> str:
    """Write the weights of a network or its state, whole or not at all; return their SHA-256.

    Raises:
        CheckpointError: If they cannot be written.
    """
    path = folder / WEIGHTS_FILES[which]
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {name: value.cpu().contiguous() for name, value in state.items()}
    try:
        with written_whole(path) as temporary:
            save_file(tensors, temporary)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {path}: {error}; make room or permission") from error
    return hash_of(path)


def write_description(description: ModelDescription, folder: Path) -> None:
    """Write `model.json`, whole or not at all."""
    write_json(folder / MODEL_FILE, description.model_dump(mode="json"))


def read_description(kind: type[DescriptionT], folder: Path) -> DescriptionT:
    """Read and check `model.json` of a run folder.

    Raises:
        CheckpointError: If it is missing, damaged, or describes another kind of model.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no finished model ({MODEL_FILE} is missing); "
            "give the folder of a finished training, or run the training again to resume it"
        )
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a {kind.__name__} that this version reads: {error}"
        ) from error


def load_weights(
    network: nn.Module, description: ModelDescription, folder: Path, which: WeightsName
) -> None:
    """Fill a network from the weights file of a run folder.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another network.
    """
    path = folder / WEIGHTS_FILES[which]
    if which not in description.weights:
        there = ", ".join(description.weights) or "none"
        raise CheckpointError(f"{folder} has no {which!r} weights; it has: {there}")
    try:
        if hash_of(path) != description.weights[which]:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is not the one that {MODEL_FILE} names; "
                "restore both files from a copy or train again"
            )
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot load {path}: {error}") from error


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def frozen(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, ready to predict and not to train."""
    return network.to(device).eval().requires_grad_(False)


def structures_from(description: ModelDescription) -> tuple[Structure, ...]:
    """The structures that a model file names."""
    return tuple(Structure(item.name, item.label_ids) for item in description.structures)


def structures_to(structures: tuple[Structure, ...]) -> tuple[StructureDescription, ...]:
    """Structures as a model file states them."""
    return tuple(
        StructureDescription(name=item.name, label_ids=item.label_ids) for item in structures
    )


def space_from(description: SpaceDescription) -> WorkingSpace:
    """The working space that a model file names."""
    return WorkingSpace(**description.model_dump())


def space_to(space: WorkingSpace) -> SpaceDescription:
    """A working space as a model file states it."""
    return SpaceDescription(
        spacing_mm=space.spacing_mm,
        spatial_shape=space.spatial_shape,
        centre=space.centre,
        normalisation=space.normalisation,
    )

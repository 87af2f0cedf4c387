"""Model files: weights as safetensors, everything else as JSON beside them. No pickle is read.

`model.json` names the SHA-256 of each weights file, so a damaged file is found on loading. A
foreign one may state anything: what its network takes is known before it is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError, reason
from shapeguide.geometry.volume import Structure, check_structures
from shapeguide.models.memory import check_window
from shapeguide.storage.digest import digest_now
from shapeguide.storage.whole import write_json, written_whole
from shapeguide.vocabulary import WeightsName

MODEL_FILE = "model.json"
WEIGHTS_FILES: dict[WeightsName, str] = {
    "last": "model.safetensors",
    "best": "best.safetensors",
    "average": "average.safetensors",
}
FLOATING = ("F64", "F32", "F16", "BF16")
"""Types of numbers in a weights file that weights may have."""

# Bounds keep a foreign model file from asking for absurd amounts of memory.
Channels = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=8)]
Length = Annotated[int, Field(ge=1, le=2048)]
LARGEST_SPACING_MM = 1000.0


class ModelDescription(BaseModel):
    """What every model file states, whatever the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made_by: str
    """Name and version of the program that wrote it."""
    structures: Annotated[tuple[Structure, ...], Field(min_length=1, max_length=255)]
    space: WorkingSpace
    channels: Channels
    weights: dict[WeightsName, str] = {}
    """SHA-256 of each weights file."""
    notes: dict[str, Any] = {}
    """Facts about the training, for people."""

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        """Voxels that the network sees at once."""
        return self.space.spatial_shape

    @model_validator(mode="after")
    def _check(self) -> ModelDescription:
        check_structures(self.structures)
        if max(self.space.spacing_mm) > LARGEST_SPACING_MM:
            raise ValueError(
                f"space.spacing_mm is at most {LARGEST_SPACING_MM:g}, found {self.space.spacing_mm}"
            )
        return self


class _AnyDescription(ModelDescription):
    """What is common to all, of a model of any kind."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str


DescriptionT = TypeVar("DescriptionT", bound=ModelDescription)
NetworkT = TypeVar("NetworkT", bound=nn.Module)
StatedT = TypeVar("StatedT", bound=BaseModel)


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
        raise CheckpointError(
            f"cannot write {path}: {reason(error)}; make room or permission"
        ) from error
    return digest_now(path)


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
    return read_stated(kind, path)


def kind_of(folder: Path) -> str:
    """Which kind of model a folder holds, as its `model.json` says.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    return read_description(_AnyDescription, folder).kind


def read_stated(kind: type[StatedT], path: Path) -> StatedT:
    """Read and check a JSON file that describes a model.

    Raises:
        CheckpointError: If it cannot be read, or states something that cannot be; each fault is
            named.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ")
            for fault in error.errors(include_url=False, include_input=False)
        )
    except OSError as error:
        faults = str(error)
    raise CheckpointError(f"{path} is not a {kind.__name__} that this version reads: {faults}")


def load_network(
    build: Callable[[], NetworkT], description: ModelDescription, folder: Path, which: WeightsName
) -> NetworkT:
    """The network that a model file describes, with the weights of a run folder, to predict with.

    It is first laid out without memory, and compared with the header of the weights file: a
    network never takes more than the file that fills it.

    Args:
        build: Makes the network, untrained.
        description: What the model file states.
        folder: Run folder.
        which: Which of its weights.

    Raises:
        CheckpointError: If the file is missing, damaged or of another network, its weights are not
            finite, or what is described cannot be built or takes more memory than is allowed.
    """
    path = folder / WEIGHTS_FILES[which]
    if which not in description.weights:
        there = ", ".join(description.weights) or "none"
        raise CheckpointError(f"{folder} has no {which!r} weights; it has: {there}")
    try:
        check_window(description.channels, 1 + len(description.structures), description.seen_shape)
        if digest_now(path) != description.weights[which]:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is not the one that {MODEL_FILE} names; "
                "restore both files from a copy or train again"
            )
        with torch.device("meta"):
            expected = build().state_dict()
        _check_tensors(path, expected)
        network = build()
        network.load_state_dict(load_file(path))
    except CheckpointError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"cannot load {path}: {reason(error, path)}; restore it from a copy, or train again"
        ) from error
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"cannot load {path}: {name} holds values that are not finite; take other weights "
                "of the run, or train again"
            )
    return network.eval().requires_grad_(False)


def _check_tensors(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Compare the header of a weights file with the tensors of a network.

    Raises:
        ValueError: If they differ.
    """
    with safe_open(path, framework="pt") as opened:
        names = set(opened.keys())
        if names != expected.keys():
            raise ValueError(
                f"it lacks the tensors {sorted(expected.keys() - names)[:3]} of the network that "
                f"{MODEL_FILE} describes, and has {sorted(names - expected.keys())[:3]} instead"
            )
        for name, tensor in expected.items():
            stored = opened.get_slice(name)
            shape, kind = tuple(stored.get_shape()), str(stored.get_dtype())
            if shape != tuple(tensor.shape):
                raise ValueError(
                    f"{name} has shape {shape}, and the network that {MODEL_FILE} describes takes "
                    f"{tuple(tensor.shape)}"
                )
            if tensor.is_floating_point() != (kind in FLOATING):
                raise ValueError(
                    f"{name} holds numbers of type {kind}, and the network takes {tensor.dtype}"
                )


def fingerprint(network: nn.Module) -> str:
    """Digest of all weights of a network, short enough to read."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]

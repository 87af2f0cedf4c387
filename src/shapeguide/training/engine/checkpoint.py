"""The live state of a training, which is also its checkpoint: resuming is a load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from shapeguide.errors import CheckpointError
from shapeguide.storage.whole import written_whole
from shapeguide.training.engine.weight_average import WeightAverage

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass
class TrainingState:
    """Everything that the next iteration depends on, besides settings, data and seed."""

    network: nn.Module
    optimizer: Optimizer
    iteration: int = 0
    """Iterations done."""
    best_score: float | None = None
    """Highest validation score so far."""
    best_iteration: int | None = None
    average: WeightAverage | None = None
    """Of the network's weights, if one is kept."""


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Write the state to one safetensors file, whole or not at all.

    Raises:
        CheckpointError: If it cannot be written; an older checkpoint stays as it was.
    """
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.tensors.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(v) for name, v in moments.items()}
    progress = {
        "iteration": state.iteration,
        "best_score": state.best_score,
        "best_iteration": state.best_iteration,
    }
    write_tensors(tensors, path, metadata={"progress": json.dumps(progress)})


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Bring `state` to where the checkpoint was written.

    Where the checkpoint has no average of the weights, one that is kept starts from its weights.

    Raises:
        CheckpointError: If the file is damaged or of another network.
    """
    tensors, metadata = read_tensors(path)
    network, average, optimizer = _apart(tensors)
    try:
        progress = json.loads(metadata["progress"])
        state.network.load_state_dict(network)
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        if state.average is not None:
            state.average.load(average or network)
        state.iteration = int(progress["iteration"])
        state.best_score = progress["best_score"]
        state.best_iteration = progress["best_iteration"]
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of this training ({error}); "
            "delete the run folder, or choose another one, to start again"
        ) from error


def write_tensors(tensors: dict[str, Tensor], path: Path, *, metadata: dict[str, str]) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Raises:
        CheckpointError: If it cannot be written.
    """
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with written_whole(path) as temporary:
            save_file(ready, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}; what was there before is untouched. "
            "Make room or permission, then run the same command again to resume"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; restore the file from a copy or train again"
        ) from error


def _apart(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[int, dict[str, Any]]]:
    """Network and average tensors by name, optimizer tensors by parameter index and name."""
    network: dict[str, Tensor] = {}
    average: dict[str, Tensor] = {}
    optimizer: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "network":
            network[rest] = value
        elif owner == "average":
            average[rest] = value
        elif owner == "optimizer":
            index, _, moment = rest.partition(".")
            optimizer.setdefault(int(index), {})[moment] = value
    return network, average, optimizer

"""The live state of a training, which is also its checkpoint: resuming is a load."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from shapeguide.errors import CheckpointError, DataError, reason
from shapeguide.storage.whole import parse_json, written_whole
from shapeguide.training.engine.weight_average import WeightAverage

CHECKPOINT_FILE = "checkpoint.safetensors"
CHECKSUM = "checksum"


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
    """The average of the network's weights, if one is kept."""


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
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    progress = json.dumps(
        {
            "iteration": state.iteration,
            "best_score": state.best_score,
            "best_iteration": state.best_iteration,
        }
    )
    # A tensor and no second entry of the metadata, whose order in the file is anybody's guess:
    # equal checkpoints are equal files.
    tensors[CHECKSUM] = _checksum(tensors, progress)
    write_tensors(tensors, path, metadata={"progress": progress})


def load_checkpoint(state: TrainingState, path: Path, *, iterations: int | None = None) -> None:
    """Bring `state` to where the checkpoint was written.

    Where the checkpoint has no average of the weights, one that is kept starts from its weights.

    Args:
        state: Network and optimizer of the same kind; changed in place.
        path: The checkpoint.
        iterations: All iterations of the training, if known; the checkpoint cannot be beyond them.

    Raises:
        CheckpointError: If the file is damaged or of another training.
    """
    tensors, metadata = read_tensors(path)
    try:
        progress = _progress(metadata, iterations)
        checksum = tensors.pop(CHECKSUM)
        if not torch.equal(checksum, _checksum(tensors, metadata["progress"])):
            raise ValueError("its checksum is not that of its content")
        network, average, optimizer = _apart(tensors)
        _check_optimizer(state.optimizer, optimizer)
        state.network.load_state_dict(network)
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        if state.average is not None:
            state.average.load(average or network)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of this training ({reason(error)}); "
            "replace the run (--overwrite), or choose another folder, to start again"
        ) from error
    state.iteration = progress["iteration"]
    state.best_score = progress["best_score"]
    state.best_iteration = progress["best_iteration"]


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
            f"cannot write {path}: {reason(error)}; what was there before is untouched. "
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
    # PyTorch tells of types and sizes that it cannot make by errors of several kinds.
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot read {path}: {reason(error, path)}; restore the file from a copy or train "
            "again"
        ) from error


def _progress(metadata: Mapping[str, str], iterations: int | None) -> dict[str, Any]:
    """What the checkpoint says of its place in the training, if that can be."""
    try:
        found = parse_json(metadata["progress"], "its progress")
    except DataError as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict):
        raise ValueError("its progress is no object")
    done, score, best = (found[name] for name in ("iteration", "best_score", "best_iteration"))
    if type(done) is not int or not 0 <= done <= (math.inf if iterations is None else iterations):
        raise ValueError(f"it claims iteration {done} of {iterations}")
    if not (score is None or type(score) in (int, float)):
        raise ValueError(f"it claims a best score of {score!r}")
    if not (best is None or (type(best) is int and 0 <= best <= done)):
        raise ValueError(f"it claims a best iteration of {best!r}")
    return found


def _checksum(tensors: Mapping[str, Tensor], progress: str) -> Tensor:
    """SHA-256 of all that a checkpoint holds, 32 bytes as uint8."""
    digest = hashlib.sha256(progress.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _check_optimizer(optimizer: Optimizer, found: Mapping[int, Mapping[str, Tensor]]) -> None:
    """The optimizer's tensors are of its parameters: it would take others without a word."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for index, moments in found.items():
        if not 0 <= index < len(parameters):
            raise ValueError(f"it has a parameter {index}, this training {len(parameters)}")
        shape = parameters[index].shape
        for name, value in moments.items():
            if value.ndim > 0 and value.shape != shape:
                raise ValueError(f"{name} of parameter {index} has shape {tuple(value.shape)}")


def _apart(
    tensors: Mapping[str, Tensor],
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
        else:
            raise ValueError(f"it holds a tensor {name[:80]!r}")
    return network, average, optimizer

"""A trained segmenter: its network, its structures and the space it works in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from shapeguide.data.preprocess import WorkingSpace
from shapeguide.geometry.volume import Structure
from shapeguide.machine import choose_device
from shapeguide.models.model_files import (
    ModelDescription,
    WeightsName,
    frozen,
    load_weights,
    read_description,
    space_from,
    structures_from,
)
from shapeguide.models.unet import UNet3d


class SegmenterDescription(ModelDescription):
    """`model.json` of a segmenter."""

    kind: Literal["segmenter"] = "segmenter"


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Predicts structures from a volume; see `shapeguide.predict`."""

    network: nn.Module
    """Images (B, 1, I, J, K) in the working space to logits (B, 1 + structures, I, J, K)."""
    structures: tuple[Structure, ...]
    space: WorkingSpace
    divisor: int = 1
    """The network takes spatial shapes that are multiples of this."""

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device


def load_segmenter(
    run_dir: str | Path, *, weights: WeightsName = "last", device: str = "auto"
) -> Segmenter:
    """Load the segmenter of a finished run.

    Args:
        run_dir: Folder that a training wrote.
        weights: Those after the last iteration, with the best validation score, or averaged.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        CheckpointError: If the run is not finished, damaged, or of another kind.
        ConfigError: If the device is not available.
    """
    folder = Path(run_dir)
    description = read_description(SegmenterDescription, folder)
    network = build_segmenter(description.channels, classes=1 + len(description.structures))
    load_weights(network, description, folder, weights)
    return Segmenter(
        network=frozen(network, choose_device(device)),
        structures=structures_from(description),
        space=space_from(description.space),
        divisor=network.divisor,
    )


def build_segmenter(channels: tuple[int, ...], *, classes: int) -> UNet3d:
    """An untrained segmenter: one image channel to so many classes, background included."""
    return UNet3d(1, classes, channels)

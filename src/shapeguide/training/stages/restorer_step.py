"""What the restorer stage learns, and how well it has learnt it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shapeguide.disturbing.probabilities import spoil
from shapeguide.losses import dice_loss
from shapeguide.metrics.overlap import dice
from shapeguide.models.restorer_model import RestorerModel, restore
from shapeguide.training.stages.autoencoder_step import with_background

EDGE_SOFTNESS_MM = 0.7
"""Of the probabilities to give back: a sharp edge as coarse voxels show it."""
CROSS_ENTROPY_WEIGHT = 2.0
ABSENT_VOXELS = 1.0
"""Added to both sums of the Dice loss, so that a structure that is not there costs little."""
SPOILT_COPIES = 4
"""Of each case, when it is measured how well a restorer works."""


@dataclass(frozen=True)
class RestorerTerms:
    """Loss of the restorer stage."""

    dice: Tensor
    cross_entropy: Tensor

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        return self.dice + CROSS_ENTROPY_WEIGHT * self.cross_entropy

    def watched(self) -> dict[str, Tensor]:
        """Each term, for logs."""
        return {"dice": self.dice.detach(), "cross_entropy": self.cross_entropy.detach()}


def restorer_terms(network: nn.Module, spoilt: Tensor, clean: Tensor) -> RestorerTerms:
    """Dice loss and cross-entropy of restored against clean probabilities.

    Args:
        network: Probabilities to logits.
        spoilt: Class probabilities to restore, shape (B, 1 + S, I, J, K).
        clean: Those to give back, same shape.
    """
    logarithms = network(spoilt).float().log_softmax(dim=1)
    return RestorerTerms(
        dice=dice_loss(logarithms.exp(), clean, epsilon=ABSENT_VOXELS),
        cross_entropy=-(clean * logarithms).sum(1).mean(),
    )


def clean_probabilities(distances_mm: Tensor) -> Tensor:
    """Signed distances (B, S, I, J, K) to class probabilities (B, 1 + S, I, J, K)."""
    return with_background(torch.sigmoid(distances_mm / EDGE_SOFTNESS_MM))


@dataclass(frozen=True)
class RestorationQuality:
    """How well a restorer works on one structure: mean Dice scores over cases."""

    structure: str
    spoilt: float
    """Of spoilt maps before restoration; 0, like the others, when no case holds the structure."""
    restored: float
    """Of spoilt maps after it."""
    clean: float
    """Of maps that needed no restoration, after it."""
    cases: int
    held_out: bool
    """Whether the cases were kept out of training."""

    @property
    def helps(self) -> bool:
        """Whether spoilt maps are better after restoration than before."""
        return self.restored > self.spoilt

    def as_row(self) -> dict[str, Any]:
        """All figures, for a file or a table."""
        return dict(vars(self))

    def __str__(self) -> str:
        where = "held-out" if self.held_out else "training"
        verdict = "works" if self.helps else "DOES NOT HELP, train it longer or on more cases"
        return (
            f"{self.structure}: spoilt maps {self.spoilt:.3f}, restored {self.restored:.3f}, "
            f"clean maps stay at {self.clean:.3f}, {self.cases} {where} cases: {verdict}"
        )


@torch.no_grad()
def measure_restoration(
    model: RestorerModel,
    distances_mm: Iterable[Tensor],
    *,
    spacing_mm: tuple[float, float, float],
    units_mm: tuple[float, ...],
    held_out: bool,
    generator: torch.Generator,
) -> list[RestorationQuality]:
    """Spoil maps, restore them and compare with the clean ones, on the grid of the distances.

    Args:
        model: Trained, for maps on that grid.
        distances_mm: Signed distances of each case, shape (S, I, J, K).
        spacing_mm: Spacing of their grid.
        units_mm: Unit of each structure, see `unit_mm` of the spoiling.
        held_out: Whether the cases were kept out of training.
        generator: Source of the spoiling, on the CPU.
    """
    scores: list[list[list[float]]] = [[] for _ in units_mm]
    for case in distances_mm:
        copies = case[None].repeat(SPOILT_COPIES, 1, 1, 1, 1)
        spoilt = with_background(
            spoil(copies, spacing_mm=spacing_mm, units_mm=units_mm, generator=generator)
        ).numpy()
        clean = clean_probabilities(case[None])[0].numpy()
        wanted, untouched = clean.argmax(0), restore(model, clean).argmax(0)
        pairs = [(given.argmax(0), restore(model, given).argmax(0)) for given in spoilt]
        for index, found in enumerate(scores, start=1):
            true = wanted == index
            if true.any():
                before, after = np.mean(
                    [[dice(one == index, true) for one in pair] for pair in pairs], axis=0
                )
                found.append([before, after, dice(untouched == index, true)])
    return [
        _quality(structure.name, found, held_out=held_out)
        for structure, found in zip(model.structures, scores, strict=True)
    ]


def _quality(name: str, scores: list[list[float]], *, held_out: bool) -> RestorationQuality:
    """Means of scores (cases, 3): spoilt, restored, clean."""
    spoilt, restored, clean = np.mean(scores, axis=0).tolist() if scores else (0.0, 0.0, 0.0)
    return RestorationQuality(name, spoilt, restored, clean, len(scores), held_out)

"""What the restorer stage learns, and how well it has learnt it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from shapeguide.disturbing.probabilities import spoil
from shapeguide.geometry.warp import draw_warps_of, warp_images
from shapeguide.losses import dice_loss
from shapeguide.metrics.overlap import dice
from shapeguide.models.quality import RestorationQuality
from shapeguide.models.restoration import restore
from shapeguide.models.restorer_model import RestorerModel
from shapeguide.training.engine.seeds import Stream, generator_for
from shapeguide.training.settings.base import affordable
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.case_order import CaseOrder
from shapeguide.training.stages.classes import with_background
from shapeguide.training.stages.distance_bank import DistanceBank

EDGE_SOFTNESS_MM = 0.7
"""How soft the edge to give back is: a sharp edge as coarse voxels show it."""
CROSS_ENTROPY_WEIGHT = 2.0
BATCH_VOXELS = 64**3
"""About so many voxels make a batch, at most."""
ABSENT_VOXELS = 1.0
"""Added to both sums of the Dice loss, so that a structure that is not there costs little."""
SPOILT_COPIES = 4
"""How many of each case are restored when it is measured how well a restorer works."""


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


class SpoiltMaps(NamedTuple):
    """What the restorer is shown in one iteration."""

    spoilt: Tensor
    """Class probabilities to restore, background first, shape (B, 1 + S, I, J, K)."""
    clean: Tensor
    """Those to give back, same shape."""


class RestorerBatches(TorchDataset[SpoiltMaps]):
    """Item n holds the maps of iteration n, warped, coarse, clean and spoilt.

    Args:
        bank: Distances of the training cases.
        settings: What is drawn.
        coarsening: Edge length, in working voxels, of the voxels of the result.
    """

    def __init__(self, bank: DistanceBank, settings: TrainSettings, *, coarsening: int) -> None:
        self.bank = bank
        self.settings = settings
        self.coarsening = coarsening
        batch_size = affordable(
            settings.restorer.batch_size,
            each=prod(bank.spatial_shape) // coarsening**3,
            most=BATCH_VOXELS,
        )
        self.order = CaseOrder(len(bank.distances_mm), batch_size, settings.seed)

    def __getitem__(self, iteration: int) -> SpoiltMaps:
        chosen = self.bank.distances_mm[self.order.of(iteration)]
        generator = generator_for(self.settings.seed, Stream.RESTORER, iteration)
        warps = draw_warps_of(
            self.settings.warp, chosen, spacing_mm=self.bank.spacing_mm, generator=generator
        )
        distances_mm = warp_images(
            chosen.float(), warps, spacing_mm=self.bank.spacing_mm, coarsening=self.coarsening
        )
        # A map that grows takes its distances along.
        scales = torch.linalg.det(warps[:, :, :3]).pow(1 / 3).to(distances_mm)
        distances_mm = distances_mm * scales[:, None, None, None, None]
        spoilt = spoil(
            distances_mm,
            spacing_mm=coarse_mm(self.bank.spacing_mm, self.coarsening),
            units_mm=self.bank.units_mm,
            generator=generator,
        )
        return SpoiltMaps(with_background(spoilt), clean_probabilities(distances_mm))


def coarse_mm(spacing_mm: tuple[float, float, float], step: int) -> tuple[float, float, float]:
    """Spacing of blocks of so many voxels along each edge."""
    i, j, k = (length * step for length in spacing_mm)
    return i, j, k


def restorer_terms(logits: Tensor, clean: Tensor) -> RestorerTerms:
    """Dice loss and cross-entropy of restored against clean probabilities.

    Args:
        logits: Those of the restored map, background first, shape (B, 1 + S, I, J, K).
        clean: Class probabilities to give back, same shape.
    """
    logarithms = logits.float().log_softmax(dim=1)
    return RestorerTerms(
        dice=dice_loss(logarithms.exp(), clean, epsilon=ABSENT_VOXELS),
        cross_entropy=-(clean * logarithms).sum(1).mean(),
    )


def clean_probabilities(distances_mm: Tensor) -> Tensor:
    """Signed distances (B, S, I, J, K) to class probabilities (B, 1 + S, I, J, K)."""
    return with_background(torch.sigmoid(distances_mm / EDGE_SOFTNESS_MM))


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
    return RestorationQuality(
        structure=name,
        cases=len(scores),
        held_out=held_out,
        spoilt=spoilt,
        restored=restored,
        clean=clean,
    )

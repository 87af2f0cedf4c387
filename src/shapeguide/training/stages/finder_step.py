"""What the finder stage learns, and how well it has learnt it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.losses import LossTerms, cross_entropy_loss, dice_loss
from shapeguide.models.finder_model import Finder
from shapeguide.models.quality import FindingQuality
from shapeguide.training.engine.seeds import FINDING_QUALITY, Stream, generator_for
from shapeguide.training.stages.classes import one_hot
from shapeguide.training.stages.finder_views import (
    FramedCases,
    Views,
    draw_views,
    lost_blocks,
    shown,
)

MOST_SHARE = 0.95
"""Share of the views that the usual error of a finder holds for."""
ABSENT_VOXELS = 0.1
"""Added to both sums of the Dice loss: what is found of a structure that is not there costs. With a
whole voxel or more, finding nothing of what is there costs so little less that much longer
trainings do."""
MEASURED_VIEWS = 96
"""A finder is measured on about so many views of all cases together."""
WHOLE_SHARE = 0.97
"""A view that shows this share of a structure shows it whole, if it also shows what is around."""
SURROUNDINGS_VOXELS = 2
"""So much around a structure is to be shown too: what ends right at a cut may as well be cut."""
GONE_SHARE = 0.01
"""A view that shows less than this share shows nothing of it."""


def finder_terms(
    logits: Tensor, classes: Tensor, *, cross_entropy_weight: float = 1.0
) -> LossTerms:
    """Dice loss and cross-entropy of logits (B, 1 + S, I, J, K) against classes (B, I, J, K)."""
    logits = logits.float()
    reference = one_hot(classes, logits.shape[1])
    probabilities = logits.softmax(dim=1)
    return LossTerms(
        dice=dice_loss(probabilities[:, 1:], reference[:, 1:], epsilon=ABSENT_VOXELS),
        cross_entropy=cross_entropy_weight * cross_entropy_loss(logits, classes),
    )


@dataclass(frozen=True, eq=False)
class Sighting:
    """What a finder said of one structure in one view."""

    structure: int
    case: int
    share: float
    """How much of the structure the view shows."""
    at_cut: bool
    """Whether it lies at the end of what the view shows."""
    error_mm: NDArray[np.float64] | None
    """From the true centre of mass to the found one, along the axes, shape (3,); None where it was
    not found or is not there."""
    found: bool


def measure_finding(
    finder: Finder, cases: PreparedCases, *, held_out: bool, seed: int
) -> list[FindingQuality]:
    """How well a finder finds each structure in random views of some cases.

    Args:
        finder: Trained; its quality is not read.
        cases: Prepared in its space.
        held_out: Whether the cases were kept out of training.
        seed: Source of the views.
    """
    sightings = list(_sightings(finder, cases, seed))
    return [
        _quality(name, [one for one in sightings if one.structure == index], held_out=held_out)
        for index, name in enumerate((item.name for item in finder.structures), start=1)
    ]


def _sightings(finder: Finder, cases: PreparedCases, seed: int) -> Iterator[Sighting]:
    spacing_mm = finder.space.spacing_mm
    framed = FramedCases(cases, divisor=finder.divisor, spatial_shape=finder.shown_shape)
    for number in range(len(cases) * ceil(MEASURED_VIEWS / len(cases))):
        place = number % len(cases)
        generator = generator_for(seed, Stream.FINDER, FINDING_QUALITY, number)
        views = draw_views(framed, [place], generator=generator)
        images, classes = shown(views, spacing_mm=spacing_mm)
        growth = float(torch.linalg.det(views.warps[0, :, :3]))
        for index, found in enumerate(finder.places(images[0, 0].numpy()), start=1):
            whole = growth * np.count_nonzero(cases[place].classes == index)
            left = np.argwhere(classes[0].numpy() == index)
            if whole:
                error_mm = None
                if found is not None and len(left):
                    error_mm = (found.centre - left.mean(axis=0)) * spacing_mm
                at_cut = _at_cut(left, views)
                yield Sighting(index, place, len(left) / whole, at_cut, error_mm, found is not None)


def _at_cut(indices: NDArray[np.intp], views: Views) -> bool:
    """Whether voxels (N, 3) of a view lie at its edge or at a block that it loses."""
    if not len(indices):
        return True
    low = indices.min(axis=0) - SURROUNDINGS_VOXELS
    high = indices.max(axis=0) + SURROUNDINGS_VOXELS
    if (low < 0).any() or (high >= views.classes.shape[1:]).any():
        return True
    return any(
        all(
            part.start < part.stop and part.start <= last and first < part.stop
            for part, first, last in zip(block, low, high, strict=True)
        )
        for block in lost_blocks(views, 0)
    )


def _quality(name: str, sightings: list[Sighting], *, held_out: bool) -> FindingQuality:
    whole = [one for one in sightings if one.share >= WHOLE_SHARE and not one.at_cut]
    gone = [one for one in sightings if one.share < GONE_SHARE]
    errors_mm = np.array([one.error_mm for one in whole if one.error_mm is not None])
    return FindingQuality(
        structure=name,
        cases=len({one.case for one in sightings}),
        held_out=held_out,
        whole=len(whole),
        missed=sum(not one.found for one in whole),
        median_mm=float(np.median(np.linalg.norm(errors_mm, axis=1))) if len(errors_mm) else None,
        largest_mm=float(np.abs(errors_mm).max()) if len(errors_mm) else None,
        most_mm=(
            float(np.quantile(np.abs(errors_mm).max(axis=1), MOST_SHARE))
            if len(errors_mm)
            else None
        ),
        gone=len(gone),
        reported=sum(one.found for one in gone),
    )

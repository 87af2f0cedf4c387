"""One step of the segmentation stage, and its validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.losses import (
    GuideLoss,
    LossTerms,
    balanced,
    cross_entropy_loss,
    deep_supervision_loss,
    dice_loss,
)
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.classes import one_hot
from shapeguide.training.stages.faults import make_faulty
from shapeguide.training.stages.segmentation_batches import LabelledImages
from shapeguide.training.stages.variation import vary_intensities, warp_batch


@dataclass
class SegmentationStep:
    """One training step: vary, predict, and sum the loss terms."""

    network: nn.Module
    spacing_mm: tuple[float, float, float]
    settings: TrainSettings
    guide: GuideLoss | None = field(default=None)

    def __call__(self, batch: LabelledImages, iteration: int) -> LossTerms:
        """Loss terms of a batch."""
        images, classes = self.varied(batch)
        found = self.network(images)
        logits, *lower = (found,) if isinstance(found, Tensor) else found
        return self.terms(logits.float(), classes, iteration, lower=lower)

    def varied(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """Images (B, 1, I, J, K) and class indices (B, I, J, K), varied as was drawn for them."""
        images, classes = warp_batch(
            batch.images, batch.classes, batch.warps, spacing_mm=self.spacing_mm
        )
        if batch.faults is not None:
            images = make_faulty(images, batch.faults, spacing_mm=self.spacing_mm)
        if batch.intensities is not None:
            images = vary_intensities(images, batch.intensities)
        return images, classes

    def terms(
        self, logits: Tensor, classes: Tensor, iteration: int, *, lower: Sequence[Tensor] = ()
    ) -> LossTerms:
        """Loss terms of logits (B, 1 + structures, I, J, K), and of those of lower resolutions."""
        chosen = self.settings.segmentation
        # Balancing asks for gradients up to here; a node of our own keeps Fabric's hook out of it.
        logits = logits.view_as(logits)
        reference = one_hot(classes, logits.shape[1])
        probabilities = logits.softmax(dim=1)
        dice = dice_loss(probabilities[:, 1:], reference[:, 1:])
        cross_entropy = None
        if chosen.cross_entropy_weight:
            cross_entropy = chosen.cross_entropy_weight * cross_entropy_loss(logits, classes)
        deep = None
        if lower:
            weight = chosen.cross_entropy_weight
            deep = deep_supervision_loss(lower, reference, cross_entropy_weight=weight)
        if self.guide is None or iteration < chosen.dice_iterations:
            return LossTerms(dice, cross_entropy, deep)
        found = self.guide.guide(probabilities, reference)
        weight = self.settings.guide_weight(iteration + 1 - chosen.dice_iterations)
        if not self.settings.is_balanced:
            return LossTerms(dice, cross_entropy, deep, weight * found.loss, found.figures)
        base = LossTerms(dice, cross_entropy).total
        term, scale = balanced(base, found.loss, logits, share=weight)
        figures = {**found.figures, "guidance_scale": scale}
        return LossTerms(dice, cross_entropy, deep, term, figures)


@torch.no_grad()
def validation_dice(network: nn.Module, cases: PreparedCases, names: list[str]) -> dict[str, float]:
    """Mean Dice score of each structure over prepared cases, and their mean as `score`.

    A structure that neither prediction nor reference holds counts for nothing.
    """
    network.eval()
    device = next(network.parameters()).device
    sums = torch.zeros(len(names))
    counts = torch.zeros(len(names))
    for case in cases:
        image = torch.from_numpy(case.image).to(device)[None, None]
        found = network(image).argmax(dim=1)[0].cpu()
        reference = torch.from_numpy(case.classes)
        for index in range(len(names)):
            one, other = found == index + 1, reference == index + 1
            size = one.sum() + other.sum()
            if size > 0:
                sums[index] += 2 * (one & other).sum() / size
                counts[index] += 1
    means = sums / counts.clamp(min=1)
    named = {f"dice/{name}": float(mean) for name, mean in zip(names, means, strict=True)}
    return {"score": float(means.mean()), **named}

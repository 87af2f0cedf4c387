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
from shapeguide.models.windows import through_windows
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
    context: tuple[int, int, int] | None = None
    """Voxels of the images beyond the working space, at both ends of each axis; None where images
    are no regions."""
    wholes: tuple[tuple[int, ...], ...] = ()
    """Structures that are made of others: the places of those. They have a Dice loss too."""

    def __call__(self, batch: LabelledImages, iteration: int) -> LossTerms:
        """Loss terms of a batch."""
        images, classes = self.varied(batch)
        return self.on(images, classes, iteration)

    def on(self, images: Tensor, classes: Tensor, iteration: int) -> LossTerms:
        """Loss terms of images (B, 1, I, J, K) with class indices (B, I, J, K), as they are."""
        found = self.network(images)
        logits, *lower = (found,) if isinstance(found, Tensor) else found
        return self.terms(logits.float(), classes, iteration, lower=lower)

    def varied(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """Images (B, C, I, J, K) and class indices (B, I, J, K), varied as was drawn for them."""
        images, classes = warp_batch(
            batch.images,
            batch.classes,
            batch.warps,
            spacing_mm=self.spacing_mm,
            context=self.context or (0, 0, 0),
        )
        each = images.flatten(0, 1)[:, None]
        if batch.faults is not None:
            each = make_faulty(each, batch.faults, spacing_mm=self.spacing_mm)
        if batch.intensities is not None:
            each = vary_intensities(each, batch.intensities)
        return each.reshape(images.shape), classes

    def terms(
        self, logits: Tensor, classes: Tensor, iteration: int, *, lower: Sequence[Tensor] = ()
    ) -> LossTerms:
        """Loss terms of logits (B, 1 + structures, I, J, K), and of those of lower resolutions."""
        chosen = self.settings.segmentation
        # Balancing asks for gradients up to here; a node of our own keeps Fabric's hook out of it.
        logits = logits.view_as(logits)
        reference = one_hot(classes, logits.shape[1])
        probabilities = logits.softmax(dim=1)
        dice = dice_loss(self._with_wholes(probabilities), self._with_wholes(reference))
        cross_entropy = None
        if chosen.cross_entropy_weight:
            cross_entropy = chosen.cross_entropy_weight * cross_entropy_loss(logits, classes)
        deep = None
        if lower:
            weight = chosen.cross_entropy_weight
            deep = deep_supervision_loss(lower, reference, cross_entropy_weight=weight)
        unguided = chosen.suited().dice_iterations
        if self.guide is None or iteration < unguided:
            return LossTerms(dice, cross_entropy, deep)
        guided = reference
        if self.context is not None and self.guide.whole_only:
            guided = reference * shown_whole(classes, logits.shape[1])[..., None, None, None]
        found = self.guide.guide(probabilities, guided)
        weight = self.settings.guide_weight(iteration + 1 - unguided)
        if not self.settings.is_balanced:
            return LossTerms(dice, cross_entropy, deep, weight * found.loss, found.figures)
        base = LossTerms(dice, cross_entropy).total
        term, scale = balanced(base, found.loss, logits, share=weight)
        figures = {**found.figures, "guidance_scale": scale}
        return LossTerms(dice, cross_entropy, deep, term, figures)

    def _with_wholes(self, classes: Tensor) -> Tensor:
        """Structures (B, S + wholes, I, J, K) of classes (B, 1 + S, I, J, K)."""
        parts = classes[:, 1:]
        made = [parts[:, list(places)].sum(dim=1, keepdim=True) for places in self.wholes]
        return torch.cat([parts, *made], dim=1) if made else parts


def shown_whole(classes: Tensor, count: int) -> Tensor:
    """Which classes do not reach the border of their image, bool (B, count).

    Args:
        classes: Class indices, shape (B, I, J, K).
        count: Classes, background included.
    """
    whole = torch.ones(len(classes), count, dtype=torch.bool, device=classes.device)
    for axis in (1, 2, 3):
        for end in (0, -1):
            reached = classes.select(axis, end).flatten(1).long()
            whole.scatter_(1, reached, torch.zeros_like(reached, dtype=torch.bool))
    return whole


@torch.no_grad()
def validation_dice(network: nn.Module, cases: PreparedCases, names: list[str]) -> dict[str, float]:
    """Mean Dice score of each structure over prepared cases, and their mean as `score`.

    A structure that neither prediction nor reference holds counts for nothing. Of regions, each
    structure is looked at in the one that should hold it whole; what lies beyond it was missed.
    """
    network.eval()
    device = next(network.parameters()).device
    sums = torch.zeros(len(names))
    counts = torch.zeros(len(names))
    for place in range(len(cases)):
        case = cases.with_room(place)
        image = torch.from_numpy(case.image).to(device)[None]
        found = through_windows(network, image, cases.space.spatial_shape).argmax(dim=1)[0].cpu()
        reference = torch.from_numpy(case.classes)
        whole = shown_whole(reference[None], 1 + len(names))[0]
        for index in range(len(names)):
            if cases.showing(place // cases.items_each, index) != place:
                continue
            one, other = found == index + 1, reference == index + 1
            size = one.sum() + other.sum()
            if cases.places is not None and not (whole[index + 1] and other.any()):
                voxels = round(case.volumes_mm3[index] / case.grid.voxel_volume_mm3)
                size += max(0, voxels - int(other.sum()))
            if size > 0:
                sums[index] += 2 * (one & other).sum() / size
                counts[index] += 1
    means = sums / counts.clamp(min=1)
    named = {f"dice/{name}": float(mean) for name, mean in zip(names, means, strict=True)}
    return {"score": float(means.mean()), **named}

"""What the autoencoder stage learns, and how well it has learnt it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from shapeguide.disturbing.masks import corrupt, soften
from shapeguide.disturbing.probabilities import lose_slab
from shapeguide.geometry.boxes import foreground_box
from shapeguide.geometry.warp import draw_warps_of, warp_classes
from shapeguide.losses import cross_entropy_loss, restoration_loss
from shapeguide.metrics.overlap import dice
from shapeguide.models.quality import ReconstructionQuality
from shapeguide.training.cohort import Cohort
from shapeguide.training.engine.seeds import Stream, generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.case_order import CaseOrder
from shapeguide.training.stages.classes import one_hot, with_background
from shapeguide.vocabulary import AutoencoderName

CORRUPTED_SHARE = 0.75
SOFTENED_SHARE = 0.5
SLAB_SHARE = 0.4


@dataclass(frozen=True)
class AutoencoderTerms:
    """Loss of the autoencoder stage."""

    loss: Tensor

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        return self.loss

    def watched(self) -> dict[str, Tensor]:
        """The loss, for logs."""
        return {"loss": self.loss.detach()}


class LabelMaps(NamedTuple):
    """What an autoencoder is shown in one iteration."""

    seen: Tensor
    """Class probabilities, background first, shape (B, 1 + S, I, J, K)."""
    reference: Tensor
    """One-hot label maps to give back, same shape."""


class AutoencoderBatches(TorchDataset[LabelMaps]):
    """Item n holds the warped label maps of iteration n, and what `srn` sees in their place."""

    def __init__(self, cohort: Cohort, settings: TrainSettings, flavour: AutoencoderName) -> None:
        self.cases = cohort.train_cases
        self.classes = cohort.classes
        self.settings = settings
        self.flavour = flavour
        chosen = settings.autoencoder
        self.order = CaseOrder(len(self.cases), chosen.batch_size, settings.seed)
        # Now, so that worker processes share the maps and bad cases show early.
        list(self.cases.label_maps())

    def __getitem__(self, iteration: int) -> LabelMaps:
        chosen = (self.cases.label_map(place) for place in self.order.of(iteration))
        classes = torch.stack([torch.from_numpy(case.classes) for case in chosen])
        generator = generator_for(self.settings.seed, Stream.AUTOENCODER, iteration)
        spacing_mm = self.cases.space.spacing_mm
        warps = draw_warps_of(
            self.settings.warp, classes, spacing_mm=spacing_mm, generator=generator
        )
        warped = warp_classes(classes, warps, spacing_mm=spacing_mm)
        reference = one_hot(warped, self.classes)
        if self.flavour == "acnn":
            return LabelMaps(reference, reference)
        return LabelMaps(disturbed(reference, generator=generator), reference)


@dataclass(frozen=True, eq=False)
class AutoencoderStep:
    """One training step."""

    network: nn.Module
    """The autoencoder in training."""
    flavour: AutoencoderName

    def __call__(self, batch: LabelMaps, iteration: int) -> AutoencoderTerms:
        """What the network makes of the maps, against those to give back."""
        terms = acnn_terms if self.flavour == "acnn" else srn_terms
        return terms(self.network(batch.seen), batch.reference)


def acnn_terms(logits: Tensor, reference: Tensor) -> AutoencoderTerms:
    """Cross-entropy of the reproduced label map, as published (Oktay et al., IEEE TMI 2018).

    Args:
        logits: Those of the reproduced map, background first, shape (B, 1 + S, I, J, K).
        reference: One-hot, same shape.
    """
    return AutoencoderTerms(cross_entropy_loss(logits, reference.argmax(dim=1)))


def srn_terms(logits: Tensor, reference: Tensor) -> AutoencoderTerms:
    """Distance of the restored to the clean map (Ravishankar et al., MICCAI 2017).

    The norm is relative to the sizes of the structures, see `restoration_loss`; the corruptions
    are ours, and those that the shape network learns from.

    Args:
        logits: Those of the restored map, background first, shape (B, 1 + S, I, J, K).
        reference: One-hot, same shape.
    """
    return AutoencoderTerms(restoration_loss(logits, reference))


def disturbed(reference: Tensor, *, generator: torch.Generator) -> Tensor:
    """What a segmenter might have predicted: three maps in four corrupted, one in two softened.

    Two in five also lose a slab, as the maps that the shape restorer learns from.

    Args:
        reference: One-hot, background first, shape (B, 1 + S, I, J, K).
        generator: Source of all randomness, on the CPU.

    Returns:
        Probabilities, same shape.
    """
    masks = reference[:, 1:].clone()
    broken = torch.rand(len(masks), generator=generator) < CORRUPTED_SHARE
    if broken.any():
        masks[broken] = corrupt(masks[broken], generator=generator)
    softened = torch.rand(len(masks), generator=generator) < SOFTENED_SHARE
    if softened.any():
        masks[softened] = soften(masks[softened], generator=generator)
    box = foreground_box(reference[:, 1:].amax((0, 1)).cpu().numpy() > 0)
    if box is not None:
        # A slab of the whole grid would mostly miss small structures.
        inside = (slice(None), slice(None), *box)
        masks[inside] = lose_slab(masks[inside], chance=SLAB_SHARE, generator=generator)
    return with_background(masks)


@torch.no_grad()
def measure_reconstruction(
    network: nn.Module,
    classes: Iterable[Tensor],
    names: list[str],
    *,
    flavour: AutoencoderName,
    held_out: bool,
    generator: torch.Generator,
) -> list[ReconstructionQuality]:
    """Put label maps through an autoencoder and compare.

    Args:
        network: Trained.
        classes: Class indices (I, J, K) of each case, on the device of the network.
        names: Names of the structures, in the order of the class indices.
        flavour: With `srn`, corrupted maps are restored too.
        held_out: Whether the cases were kept out of training.
        generator: Source of the corruptions, on the CPU.
    """
    network.eval()
    scores: dict[str, list[list[float]]] = {name: [] for name in names}
    for case in classes:
        reference = one_hot(case[None], 1 + len(names))
        inputs = [reference]
        if flavour == "srn":
            inputs.append(with_background(corrupt(reference[:, 1:], generator=generator)))
        found = [network(given).argmax(dim=1)[0] for given in inputs]
        found += [given.argmax(dim=1)[0] for given in inputs[1:]]
        for index, name in enumerate(names, start=1):
            wanted = (case == index).cpu().numpy()
            if wanted.any():
                scores[name].append([dice((f == index).cpu().numpy(), wanted) for f in found])
    return [_quality(name, scores[name], held_out=held_out) for name in names]


def _quality(name: str, scores: list[list[float]], *, held_out: bool) -> ReconstructionQuality:
    """Means of scores (cases, 1 or 3): reproduced, restored, corrupted."""
    means = torch.tensor(scores).mean(0).tolist() if scores else [0.0]
    restored, corrupted = means[1:] if len(means) == 3 else (None, None)
    return ReconstructionQuality(
        structure=name,
        cases=len(scores),
        held_out=held_out,
        dice=means[0],
        corrupted=corrupted,
        restored=restored,
    )

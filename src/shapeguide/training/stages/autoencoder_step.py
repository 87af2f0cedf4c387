"""What the autoencoder stage learns, and how well it has learnt it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shapeguide.disturbing.masks import corrupt, soften
from shapeguide.disturbing.probabilities import lose_slab
from shapeguide.geometry.boxes import foreground_box
from shapeguide.losses import cross_entropy_loss, restoration_loss
from shapeguide.metrics.overlap import dice
from shapeguide.models.autoencoder_model import SMALLEST_DICE
from shapeguide.training.stages.segmentation_batches import one_hot
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


def acnn_terms(network: nn.Module, reference: Tensor) -> AutoencoderTerms:
    """Cross-entropy of the reproduced label map, as published (Oktay et al., IEEE TMI 2018).

    Args:
        network: The autoencoder in training.
        reference: One-hot, background first, shape (B, 1 + S, I, J, K).
    """
    return AutoencoderTerms(cross_entropy_loss(network(reference), reference.argmax(dim=1)))


def srn_terms(
    network: nn.Module, reference: Tensor, *, generator: torch.Generator
) -> AutoencoderTerms:
    """Distance of the restored to the clean map (Ravishankar et al., MICCAI 2017).

    The norm is relative to the sizes of the structures, see `restoration_loss`; the corruptions
    are ours, and those that the shape network learns from.

    Args:
        network: The autoencoder in training.
        reference: One-hot, background first, shape (B, 1 + S, I, J, K).
        generator: Source of all randomness, on the CPU.
    """
    seen = disturbed(reference, generator=generator)
    return AutoencoderTerms(restoration_loss(network(seen), reference))


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


def with_background(masks: Tensor) -> Tensor:
    """Masks (B, S, I, J, K) to probabilities (B, 1 + S, I, J, K); overlaps are shared out."""
    background = (1 - masks.sum(1, keepdim=True)).clamp(min=0)
    everything = torch.cat([background, masks], dim=1)
    return everything / everything.sum(1, keepdim=True)


@dataclass(frozen=True)
class ReconstructionQuality:
    """How well an autoencoder reproduces one structure: mean Dice scores over cases."""

    structure: str
    dice: float
    """Of the map as it is, put through the autoencoder; 0 when no case holds the structure."""
    corrupted: float | None
    """Of corrupted maps before restoration; of `srn` alone."""
    restored: float | None
    """Of corrupted maps after it; of `srn` alone."""
    cases: int
    held_out: bool
    """Whether the cases were kept out of training."""

    @property
    def failed(self) -> bool:
        """Whether it cannot even reproduce an untouched map."""
        return not self.dice >= SMALLEST_DICE

    def as_row(self) -> dict[str, Any]:
        """All figures that there are, for a file or a table."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        where = "held-out" if self.held_out else "training"
        verdict = "FAILED, its guidance means little" if self.failed else "works"
        restored = (
            f"; corrupted maps {self.corrupted:.3f}, restored {self.restored:.3f}"
            if self.corrupted is not None and self.restored is not None
            else ""
        )
        return (
            f"{self.structure}: reproduced with Dice {self.dice:.3f}{restored}, "
            f"{self.cases} {where} cases: {verdict}"
        )


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
        names: Of the structures, in the order of the class indices.
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
    return ReconstructionQuality(name, means[0], corrupted, restored, len(scores), held_out)

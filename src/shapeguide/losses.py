"""Dice loss, shape loss and their sum.

Source of the published forms: He, Bao, Chung, "3D Deep Affine-Invariant Shape Learning for Brain MR
Image Segmentation", DLMIA 2018. Departures are choices with names: the calibrated distance and the
smooth cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from shapeguide.errors import ConfigError
from shapeguide.models.shape_network import ShapeNetwork, signature_distance


def dice_loss(probabilities: Tensor, reference: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Soft Dice loss 1 - 2 sum(M M~) / (sum M + sum M~), averaged over batch and classes.

    Args:
        probabilities: Class probabilities in [0, 1], shape (B, C, I, J, K).
        reference: One-hot reference, same shape.
        epsilon: Added to both sums; a class absent from both costs nothing.

    Returns:
        Scalar in [0, 1]; 0 is a perfect match.

    Raises:
        ValueError: If the shapes differ.
    """
    _same_shape(probabilities, reference)
    space = (2, 3, 4)
    overlap = 2 * (probabilities * reference).sum(space) + epsilon
    return (1 - overlap / (probabilities.sum(space) + reference.sum(space) + epsilon)).mean()


def cross_entropy_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy averaged over voxels.

    Args:
        logits: Shape (B, C, I, J, K), background first.
        classes: Class indices, integers of shape (B, I, J, K).
    """
    return functional.cross_entropy(logits, classes.long())


def hard_cap(distances: Tensor, cap: float) -> Tensor:
    """min(distance, cap), as published; above the cap the gradient is exactly zero."""
    return distances.clamp(max=cap)


def smooth_cap(distances: Tensor, cap: float) -> Tensor:
    """Distance / (1 + distance / cap): below the cap for every distance, with a gradient for each.

    Its slope is 1 at 0 and 1/4 at the cap, and falls with the square of the distance: a saturating
    exponential would lose the gradient at three caps, where training starts.
    """
    return distances / (1 + distances / cap)


class ShapeLoss(nn.Module):
    """Distance between the shapes of prediction and reference, by a frozen shape network.

    Drops into any training loop: `loss = dice + 0.1 * shape_loss(probabilities, one_hot)`.

    Args:
        shape_network: Trained; it is frozen here and never trained through this loss.
        spacing_mm: Voxel spacing of the masks that will come.
        cap: Largest loss of one structure.
        cap_form: `hard` as published or `smooth`.
        distance: `raw` as published, or `calibrated`: 1 is as far as two people are apart.

    Raises:
        ConfigError: If the cap is not positive, or a calibration is missing.
    """

    def __init__(
        self,
        shape_network: ShapeNetwork,
        *,
        spacing_mm: tuple[float, float, float],
        cap: float = 1.0,
        cap_form: Literal["hard", "smooth"] = "smooth",
        distance: Literal["calibrated", "raw"] = "calibrated",
    ) -> None:
        super().__init__()
        if not cap > 0:
            raise ConfigError(f"the cap of the shape loss must be positive, found {cap}")
        if distance == "calibrated" and not (shape_network.calibration > 0).all():
            raise ConfigError(
                "the shape network has no calibration (all training cases look alike to it); "
                "train it again or use distance='raw'"
            )
        self.shape_network = shape_network.eval().requires_grad_(False)
        self.spacing_mm = spacing_mm
        self.cap = cap
        self.cap_form = cap_form
        self.distance = distance

    def forward(self, probabilities: Tensor, reference: Tensor) -> Tensor:
        """Capped shape distance, averaged over the structures that the reference holds.

        Args:
            probabilities: Of each structure, without background, shape (B, S, I, J, K).
            reference: Masks of each structure, same shape.

        Returns:
            Scalar in [0, cap]; 0 when the reference holds no structure.
        """
        distances, present = self.distances(probabilities, reference)
        return self.reduce(distances, present)

    def distances(self, probabilities: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Uncapped distances (B, S), and where the reference holds the structure, bool (B, S).

        Raises:
            ValueError: If the shapes differ.
        """
        _same_shape(probabilities, reference)
        network, spacing_mm = self.shape_network, self.spacing_mm
        # The reference needs no graph; the prediction is looked at in full precision.
        with torch.autocast(probabilities.device.type, enabled=False):
            with torch.no_grad():
                wanted = network(reference.float(), spacing_mm=spacing_mm)
            found = network(probabilities.float(), spacing_mm=spacing_mm)
        distances = signature_distance(found, wanted)
        if self.distance == "calibrated":
            distances = distances / network.calibration
        return distances, reference.flatten(2).any(-1)

    def reduce(self, distances: Tensor, present: Tensor) -> Tensor:
        """Cap distances (B, S) and average those of structures that are present."""
        capped = (hard_cap if self.cap_form == "hard" else smooth_cap)(distances, self.cap)
        return (capped * present).sum() / present.sum().clamp(min=1)

    def capped_share(self, distances: Tensor, present: Tensor) -> Tensor:
        """Share of present structures whose distance is at least the cap: a scalar in [0, 1]."""
        return ((distances >= self.cap) & present).sum() / present.sum().clamp(min=1)


@dataclass(frozen=True)
class LossTerms:
    """The segmenter's loss as the sum of its weighted terms, and what is only watched."""

    dice: Tensor
    cross_entropy: Tensor | None = None
    """Already weighted."""
    shape: Tensor | None = None
    """Already weighted by alpha."""
    shape_distance: Tensor | None = None
    """Mean distance before the cap; watched, not part of the sum."""
    capped_share: Tensor | None = None
    """Share of distances at or above the cap; watched, not part of the sum."""

    @property
    def total(self) -> Tensor:
        """The sum to minimise."""
        terms = [self.dice, self.cross_entropy, self.shape]
        return torch.stack([term for term in terms if term is not None]).sum()

    def watched(self) -> dict[str, Tensor]:
        """Every term and figure by its name, for logs."""
        named = {
            "dice": self.dice,
            "cross_entropy": self.cross_entropy,
            "shape": self.shape,
            "shape_distance": self.shape_distance,
            "capped_share": self.capped_share,
        }
        return {name: value.detach() for name, value in named.items() if value is not None}


def _same_shape(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"probabilities have shape {tuple(first.shape)}, the reference {tuple(second.shape)}; "
            "both must be (B, C, I, J, K) with the same classes"
        )

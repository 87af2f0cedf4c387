"""The shape loss.

Source of the published form: He, Bao, Chung, "3D Deep Affine-Invariant Shape Learning for Brain MR
Image Segmentation", DLMIA 2018. Departures are choices with names: the calibrated distance and the
smooth cap.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from shapeguide.errors import ConfigError
from shapeguide.losses.region import check_same_shape
from shapeguide.losses.terms import GuideLoss, GuideTerms
from shapeguide.models.shape_model import ShapeModel, load_shape_network
from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.vocabulary import CapForm, ShapeDistance

RANGE_TOLERANCE = 1e-3
"""Probabilities of half precision may leave [0, 1] by this much."""


def hard_cap(distances: Tensor, cap: float) -> Tensor:
    """min(distance, cap), as published; above the cap the gradient is exactly zero."""
    return distances.clamp(max=cap)


def smooth_cap(distances: Tensor, cap: float) -> Tensor:
    """Distance / (1 + distance / cap): below the cap for every distance, with a gradient for each.

    Its slope is 1 at 0 and 1/4 at the cap, and falls with the square of the distance: a saturating
    exponential would lose the gradient at three caps, where training starts.
    """
    return distances / (1 + distances / cap)


class ShapeLoss(GuideLoss):
    """Distance between the shapes of prediction and reference, by a frozen shape network.

    Drops into any training loop: `loss = dice + 0.1 * shape_loss(probabilities, one_hot)`. It
    expects what the network was trained on: axes that run to the right, to the front and up (RAS),
    probabilities in [0, 1] and not logits, one channel for each structure in the order of the
    network, without the background.

    Args:
        shape_network: A trained network, its `ShapeModel`, or the run folder that holds it. It is
            frozen here and never trained through this loss.
        spacing_mm: Voxel spacing of the masks that will come, along R, A and S.
        cap: Largest loss of one structure.
        cap_form: `hard` as published or `smooth`.
        distance: `raw` as published, or `calibrated`: 1 is as far as two people are apart.

    Raises:
        ConfigError: If the cap or a spacing is not positive, or a calibration is missing.
        CheckpointError: If the folder holds no finished shape network.
        TypeError: If something else than a shape network is given.
    """

    whole_only: ClassVar[bool] = True

    def __init__(
        self,
        shape_network: ShapeNetwork | ShapeModel | str | Path,
        *,
        spacing_mm: tuple[float, float, float],
        cap: float = 1.0,
        cap_form: CapForm = "smooth",
        distance: ShapeDistance = "calibrated",
    ) -> None:
        super().__init__()
        if not cap > 0:
            raise ConfigError(f"the cap of the shape loss must be positive, found {cap}")
        steps = [*spacing_mm]
        if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
            raise ConfigError(
                f"the shape loss needs three positive spacings in mm along R, A, S, found "
                f"{tuple(spacing_mm)}"
            )
        shape_network = _network_of(shape_network)
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
            probabilities: Probability of each structure, without background, shape (B, S, I, J, K).
            reference: Masks of each structure, same shape.

        Returns:
            Scalar in [0, cap]; 0 when the reference holds no structure.

        Raises:
            ValueError: If the shapes differ or are not those of the structures, or values are NaN
                or outside [0, 1], as logits are.
        """
        for name, masks in (("probabilities", probabilities), ("reference", reference)):
            self._check(name, masks)
        distances, present = self.distances(probabilities, reference)
        return self.reduce(distances, present)

    def _check(self, name: str, masks: Tensor) -> None:
        structures = self.shape_network.structures
        if masks.ndim != 5 or masks.shape[1] != len(structures):
            raise ValueError(
                f"{name} have shape (B, S, I, J, K) with the {len(structures)} structures "
                f"{', '.join(structures)} and without the background, found {tuple(masks.shape)}"
            )
        low, high = (float(end) for end in masks.detach().aminmax())
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise ValueError(
                f"{name} lie in [0, 1], found {low:g} to {high:g}; take the softmax or sigmoid of "
                "logits, and look for the cause of NaN before the loss"
            )

    def guide(self, probabilities: Tensor, reference: Tensor) -> GuideTerms:
        """The loss as a guide; `shape_distance` is the mean distance before the cap."""
        distances, present = self.distances(probabilities[:, 1:], reference[:, 1:])
        figures = {
            "shape_distance": (distances * present).sum() / present.sum().clamp(min=1),
            "capped_share": self.capped_share(distances, present),
        }
        return GuideTerms(self.reduce(distances, present), figures)

    def distances(self, probabilities: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Uncapped distances (B, S), and where the reference holds the structure, bool (B, S).

        Raises:
            ValueError: If the shapes differ.
        """
        check_same_shape(probabilities, reference)
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


def _network_of(given: ShapeNetwork | ShapeModel | str | Path) -> ShapeNetwork:
    if isinstance(given, str | Path):
        given = load_shape_network(given)
    network = given.network if isinstance(given, ShapeModel) else given
    if not isinstance(network, ShapeNetwork):
        raise TypeError(
            f"the shape loss takes a shape network, its model, or the run folder that holds it, "
            f"found {type(network).__name__}"
        )
    return network

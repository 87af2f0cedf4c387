"""Losses by distance maps of the reference: the boundary loss and the Hausdorff loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shapeguide.geometry.distance import distance_across_mm
from shapeguide.losses.region import check_same_shape
from shapeguide.losses.terms import GuideLoss, GuideTerms

if TYPE_CHECKING:
    from monai.losses import HausdorffDTLoss


def signed_distances_mm(masks: Tensor, *, spacing_mm: tuple[float, float, float]) -> Tensor:
    """Distance from each voxel to the nearest one on the other side of the edge.

    Args:
        masks: Boolean, shape (B, S, I, J, K).
        spacing_mm: Voxel spacing.

    Returns:
        In mm, negative inside as the published losses have it, same shape, float32; 0 everywhere
        for a mask that is empty or full, for it has no edge.
    """
    inside = masks.cpu().numpy()
    distances = np.zeros(inside.shape, dtype=np.float32)
    for place in np.ndindex(*inside.shape[:2]):
        mask = inside[place]
        if mask.any() and not mask.all():
            distances[place] = -distance_across_mm(mask, spacing_mm=spacing_mm)
    return torch.from_numpy(distances).to(masks.device)


def boundary_loss(
    probabilities: Tensor, reference: Tensor, *, spacing_mm: tuple[float, float, float]
) -> Tensor:
    """Probability times signed distance to the edge of the reference, averaged over voxels.

    Source: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019: the sum
    of phi(q) s(q) over voxels q. Departures: distances count in mm, not in voxels, and those
    inside reach to the nearest voxel outside, one voxel further than in the authors' code, so that
    the map changes its sign between two voxels.

    Args:
        probabilities: Probability of each structure, without background, shape (B, S, I, J, K).
        reference: Masks of each structure, same shape.
        spacing_mm: Voxel spacing.

    Returns:
        Scalar in mm; least, and below 0, for the reference itself. 0 where it holds nothing.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(probabilities, reference)
    return (probabilities * signed_distances_mm(reference > 0, spacing_mm=spacing_mm)).mean()


class BoundaryLoss(GuideLoss):
    """`boundary_loss` as a guide.

    Args:
        spacing_mm: Voxel spacing of the masks that will come.
    """

    def __init__(self, *, spacing_mm: tuple[float, float, float]) -> None:
        super().__init__()
        self.spacing_mm = spacing_mm

    def guide(self, probabilities: Tensor, reference: Tensor) -> GuideTerms:
        """The loss over structures; watched as `boundary`."""
        loss = boundary_loss(probabilities[:, 1:], reference[:, 1:], spacing_mm=self.spacing_mm)
        return GuideTerms(loss, {"boundary": loss})


class HausdorffLoss(GuideLoss):
    """Squared error times the squared distances to both edges, averaged over voxels.

    Source: Karimi and Salcudean, "Reducing the Hausdorff Distance in Medical Image Segmentation
    with Convolutional Neural Networks", IEEE TMI 2020, the loss by distance transforms, in MONAI's
    form. Departure: distances count in mm, where MONAI's count in voxels.

    Args:
        spacing_mm: Voxel spacing of the masks that will come.
    """

    def __init__(self, *, spacing_mm: tuple[float, float, float]) -> None:
        super().__init__()
        self.by_monai = _monai_loss(spacing_mm)

    def guide(self, probabilities: Tensor, reference: Tensor) -> GuideTerms:
        """The loss over structures in mm2; watched as `hausdorff`."""
        check_same_shape(probabilities, reference)
        loss = self.by_monai(probabilities[:, 1:], reference[:, 1:])
        return GuideTerms(loss, {"hausdorff": loss})


def _monai_loss(spacing_mm: tuple[float, float, float]) -> HausdorffDTLoss:
    """MONAI's loss with distances in mm; MONAI takes seconds to import, so only when it is used."""
    from monai.losses import HausdorffDTLoss

    class HausdorffInMm(HausdorffDTLoss):  # type: ignore[misc]  # MONAI is untyped
        @torch.no_grad()
        def distance_field(self, img: Tensor) -> Tensor:
            return signed_distances_mm(img > 0.5, spacing_mm=spacing_mm).abs()

    # The background is left out before the call: alone, the first structure would be taken for it.
    return HausdorffInMm(alpha=2.0, include_background=True)

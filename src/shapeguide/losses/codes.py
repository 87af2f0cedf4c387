"""Losses of the rivals that guide by an autoencoder of label maps: ACNN and SRN."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from shapeguide.losses.region import check_same_shape
from shapeguide.losses.terms import GuideLoss, GuideTerms
from shapeguide.models.mask_autoencoder import MaskAutoencoder


def squared_code_distance(first: Tensor, second: Tensor) -> Tensor:
    """||f(P) - f(M)||^2 of codes, averaged over the batch.

    Args:
        first: Codes, shape (B, ...).
        second: Codes, same shape.

    Returns:
        Scalar, at least 0.
    """
    return (first - second).flatten(1).square().sum(1).mean()


def relative_squared_distance(
    first: Tensor, second: Tensor, *, start: int = 1, epsilon: float = 1e-6
) -> Tensor:
    """||a - b||^2 / (||a||^2 + ||b||^2), averaged over what comes before `start`.

    For two masks this is the Dice loss with squares in its denominator, so a weight means the same
    for structures and grids of every size.

    Args:
        first: Shape (B, ...).
        second: Same shape.
        start: Axis from which on the norms are taken: 1 over each item, 2 over each channel.
        epsilon: Added to the denominator; where both are zero the distance is 0.

    Returns:
        Scalar in [0, 1] where nothing is negative, and in [0, 2] otherwise.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(first, second)
    squares = (first - second).flatten(start).square().sum(-1)
    sizes = first.flatten(start).square().sum(-1) + second.flatten(start).square().sum(-1)
    return (squares / (sizes + epsilon)).mean()


class AutoencoderLoss(GuideLoss):
    """A loss by a frozen autoencoder, which looks at predictions in full precision."""

    def __init__(self, autoencoder: MaskAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)

    def guide(self, probabilities: Tensor, reference: Tensor) -> GuideTerms:
        """Compare a prediction with its reference; see `GuideLoss.guide`.

        Raises:
            ValueError: If the shapes differ, or are not those of the autoencoder.
        """
        check_same_shape(probabilities, reference)
        with torch.autocast(probabilities.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.autoencoder.encode(reference.float())
            found = self.autoencoder.encode(probabilities.float())
            return self.compare(found, wanted, reference)

    @abstractmethod
    def compare(self, found: Tensor, wanted: Tensor, reference: Tensor) -> GuideTerms:
        """Terms from the codes of prediction and reference, and the reference itself."""


class AcnnLoss(AutoencoderLoss):
    """Squared Euclidean distance between the codes of prediction and reference.

    Source: the shape regularisation term of Oktay et al., "Anatomically Constrained Neural
    Networks (ACNN)", IEEE TMI 2018, with the codes of an autoencoder of label maps. The paper adds
    it to cross-entropy and to a penalty on the size of the weights; here it is added to our Dice
    and cross-entropy, without that penalty.

    Args:
        autoencoder: Trained, with a dense code.
    """

    def compare(self, found: Tensor, wanted: Tensor, reference: Tensor) -> GuideTerms:
        """The distance; watched as `acnn_code`."""
        distance = squared_code_distance(found, wanted)
        return GuideTerms(distance, {"acnn_code": distance})


class SrnLoss(AutoencoderLoss):
    """Restored prediction against the reference, and their codes against each other.

    Source: Ravishankar et al., "Learning and Incorporating Shape Models for Semantic
    Segmentation", MICCAI 2017: a denoising autoencoder g(f(.)) guides by ||g(f(P)) - M||^2 and
    ||f(P) - f(M)||^2. Departures: both norms are relative (`relative_squared_distance`), because
    the paper's sums belong to a Euclidean loss of the whole image and ours to a Dice loss; and the
    prediction itself is compared by our Dice and cross-entropy instead of a third such norm.

    Args:
        autoencoder: Trained to restore corrupted maps.
        reconstruction_weight: Weight of the first term.
        code_weight: Weight of the second term.
    """

    def __init__(
        self,
        autoencoder: MaskAutoencoder,
        *,
        reconstruction_weight: float = 0.5,
        code_weight: float = 0.5,
    ) -> None:
        super().__init__(autoencoder)
        self.reconstruction_weight = reconstruction_weight
        self.code_weight = code_weight

    def compare(self, found: Tensor, wanted: Tensor, reference: Tensor) -> GuideTerms:
        """Both terms weighted; watched unweighted as `srn_reconstruction` and `srn_code`."""
        i, j, k = reference.shape[2:]
        logits = self.autoencoder.decode(found, spatial_shape=(i, j, k))
        reconstruction = restoration_loss(logits, reference)
        code = relative_squared_distance(found, wanted)
        return GuideTerms(
            self.reconstruction_weight * reconstruction + self.code_weight * code,
            {"srn_reconstruction": reconstruction, "srn_code": code},
        )


def restoration_loss(logits: Tensor, reference: Tensor) -> Tensor:
    """Relative squared distance of restored probabilities to the reference, over structures.

    Args:
        logits: Logit of each class, background first, shape (B, 1 + S, I, J, K).
        reference: One-hot, same shape.

    Returns:
        Scalar in [0, 1].
    """
    restored = logits.float().softmax(dim=1)
    return relative_squared_distance(restored[:, 1:], reference[:, 1:], start=2)

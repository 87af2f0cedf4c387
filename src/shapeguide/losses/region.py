"""Losses over regions: Dice and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


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
    check_same_shape(probabilities, reference)
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


def deep_supervision_loss(
    lower: Sequence[Tensor], reference: Tensor, *, cross_entropy_weight: float
) -> Tensor:
    """Dice loss and cross-entropy at lower resolutions: half of the first, a quarter of the next.

    The reference of a resolution is the share of each class in each of its larger voxels, so no
    small structure is lost.

    Args:
        lower: Logits of each resolution, (B, C, I / 2, J / 2, K / 2) and so on, background first.
        reference: One-hot, shape (B, C, I, J, K).
        cross_entropy_weight: Weight of the cross-entropy beside the Dice loss.
    """
    total = reference.new_zeros(())
    for level, logits in enumerate(lower, start=1):
        reference, found = functional.avg_pool3d(reference, 2), logits.float()
        loss = dice_loss(found.softmax(dim=1)[:, 1:], reference[:, 1:])
        if cross_entropy_weight:
            loss = loss + cross_entropy_weight * functional.cross_entropy(found, reference)
        total = total + loss / 2**level
    return total


def check_same_shape(first: Tensor, second: Tensor) -> None:
    """Refuse probabilities and reference of different shapes.

    Raises:
        ValueError: Naming both.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"probabilities have shape {tuple(first.shape)}, the reference {tuple(second.shape)}; "
            "both must be (B, C, I, J, K) with the same classes"
        )

"""Losses over regions: Dice and cross-entropy."""

from __future__ import annotations

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

"""What the segmenter's loss is made of: the terms of every step, and those of a guide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GuideTerms:
    """What a guide says about a prediction."""

    loss: Tensor
    """Scalar to minimise, before its weight."""
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    """What is watched beside it, by name; scalars."""


class GuideLoss(nn.Module, ABC):
    """A loss that guides the segmenter beside Dice; whatever it needs is frozen in it."""

    whole_only: ClassVar[bool] = False
    """Whether it means nothing for a structure of which only a part is in view."""

    @abstractmethod
    def guide(self, probabilities: Tensor, reference: Tensor) -> GuideTerms:
        """Compare a prediction with its reference.

        Args:
            probabilities: Probability of each class, background first, shape (B, 1 + S, I, J, K).
            reference: One-hot, same shape.
        """


@dataclass(frozen=True)
class LossTerms:
    """The segmenter's loss as the sum of its weighted terms, and what is only watched."""

    dice: Tensor
    cross_entropy: Tensor | None = None
    """Already weighted."""
    deep: Tensor | None = None
    """The sum of the losses at lower resolutions; already weighted."""
    guide: Tensor | None = None
    """The term of what guides; already weighted."""
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    """What is watched beside them, by name; not part of the sum."""

    @property
    def total(self) -> Tensor:
        """The sum to minimise."""
        terms = [self.dice, self.cross_entropy, self.deep, self.guide]
        return torch.stack([term for term in terms if term is not None]).sum()

    def watched(self) -> dict[str, Tensor]:
        """Every term and figure by its name, for logs."""
        named = {
            "dice": self.dice,
            "cross_entropy": self.cross_entropy,
            "deep": self.deep,
            "guide": self.guide,
            **self.figures,
        }
        return {name: value.detach() for name, value in named.items() if value is not None}

"""What every objective of the shape stage gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ShapeTerms:
    """Loss of the shape stage and the distances behind it."""

    loss: Tensor
    distance: Tensor
    """Mean raw distance of the pairs of this batch; watched only."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """What the loss is the weighted sum of, where it has several terms; watched only."""

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        return self.loss

    def watched(self) -> dict[str, Tensor]:
        """Each figure by its name, for logs."""
        named = {"loss": self.loss, "distance": self.distance, **self.parts}
        return {name: value.detach() for name, value in named.items()}


@dataclass(frozen=True, eq=False)
class Objective:
    """What a shape network is trained towards, ready for its training set."""

    terms: Callable[[torch.Generator], ShapeTerms]
    """Loss of one batch, drawn from this generator."""
    companion: nn.Module | None = None
    """Trained along; in the checkpoint, not in the model file."""


def mean_over(values: Tensor, present: Tensor) -> Tensor:
    """Mean of values (B, S) where bool (B, S) says so; 0 where it never does."""
    return (values * present).sum() / present.sum().clamp(min=1)

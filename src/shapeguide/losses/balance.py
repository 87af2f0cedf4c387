"""Balancing two losses by the size of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RATIO_RANGE = (1e-6, 1e3)
"""Smallest and largest factor before the share: a guide with almost no gradient left, such as a
perfect prediction gives, must not be blown up to noise."""


def balanced(base: Tensor, term: Tensor, logits: Tensor, *, share: float) -> tuple[Tensor, Tensor]:
    """Scale a term so that its gradient is a share of that of the base.

    Norms are taken over the gradients with respect to the logits, before the network, where they
    cost one backward pass through each loss; the pass through the term is not repeated later.

    Args:
        base: Loss that the term is balanced against, a scalar computed from the logits.
        term: Loss to scale, likewise.
        logits: Shape (B, C, I, J, K).
        share: Norm of the scaled term's gradient over that of the base, at least 0.

    Returns:
        The scaled term, and the factor: share times the ratio of the norms, which is held within
        `RATIO_RANGE`. The factor is a constant to the gradient.
    """
    (of_base,) = torch.autograd.grad(base, logits, retain_graph=True)
    (of_term,) = torch.autograd.grad(term, logits, retain_graph=True)
    smallest = torch.finfo(of_term.dtype).tiny
    ratio = of_base.norm() / of_term.norm().clamp(min=smallest)
    scale = share * ratio.clamp(*RATIO_RANGE)
    apply: Callable[..., Tensor] = _KnownGradient.apply
    return apply(logits, scale * term.detach(), scale * of_term), scale


class _KnownGradient(torch.autograd.Function):
    """A scalar whose gradient with respect to the logits is known already."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None

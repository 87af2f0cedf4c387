"""Dice loss, the losses that guide beside it, and their sum."""

from shapeguide.losses.region import cross_entropy_loss, dice_loss
from shapeguide.losses.shape import ShapeLoss, hard_cap, smooth_cap
from shapeguide.losses.terms import GuideLoss, GuideTerms, LossTerms

__all__ = [
    "GuideLoss",
    "GuideTerms",
    "LossTerms",
    "ShapeLoss",
    "cross_entropy_loss",
    "dice_loss",
    "hard_cap",
    "smooth_cap",
]

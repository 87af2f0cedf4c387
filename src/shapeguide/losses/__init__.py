"""Dice loss, the losses that guide beside it, and their sum."""

from shapeguide.losses.codes import (
    AcnnLoss,
    AutoencoderLoss,
    SrnLoss,
    relative_squared_distance,
    restoration_loss,
    squared_code_distance,
)
from shapeguide.losses.region import cross_entropy_loss, dice_loss
from shapeguide.losses.shape import ShapeLoss, hard_cap, smooth_cap
from shapeguide.losses.terms import GuideLoss, GuideTerms, LossTerms

__all__ = [
    "AcnnLoss",
    "AutoencoderLoss",
    "GuideLoss",
    "GuideTerms",
    "LossTerms",
    "ShapeLoss",
    "SrnLoss",
    "cross_entropy_loss",
    "dice_loss",
    "hard_cap",
    "relative_squared_distance",
    "restoration_loss",
    "smooth_cap",
    "squared_code_distance",
]

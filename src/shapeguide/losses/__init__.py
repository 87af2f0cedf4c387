"""Dice loss, the losses that guide beside it, and their sum."""

from shapeguide.losses.balance import RATIO_RANGE, balanced
from shapeguide.losses.codes import (
    AcnnLoss,
    AutoencoderLoss,
    SrnLoss,
    relative_squared_distance,
    restoration_loss,
    squared_code_distance,
)
from shapeguide.losses.distance_maps import (
    BoundaryLoss,
    HausdorffLoss,
    boundary_loss,
    signed_distances_mm,
)
from shapeguide.losses.region import cross_entropy_loss, deep_supervision_loss, dice_loss
from shapeguide.losses.shape import ShapeLoss, hard_cap, smooth_cap
from shapeguide.losses.terms import GuideLoss, GuideTerms, LossTerms

__all__ = [
    "RATIO_RANGE",
    "AcnnLoss",
    "AutoencoderLoss",
    "BoundaryLoss",
    "GuideLoss",
    "GuideTerms",
    "HausdorffLoss",
    "LossTerms",
    "ShapeLoss",
    "SrnLoss",
    "balanced",
    "boundary_loss",
    "cross_entropy_loss",
    "deep_supervision_loss",
    "dice_loss",
    "hard_cap",
    "relative_squared_distance",
    "restoration_loss",
    "signed_distances_mm",
    "smooth_cap",
    "squared_code_distance",
]

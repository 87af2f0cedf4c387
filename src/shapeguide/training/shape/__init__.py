"""What the shape network learns: objectives of the shape stage, and the masks they draw from."""

from shapeguide.training.shape.bank import MaskBank, cropped
from shapeguide.training.shape.pairs import (
    contrastive_terms,
    info_nce,
    pairwise_terms,
    vicreg_terms,
)
from shapeguide.training.shape.reconstruction import reconstruction_terms
from shapeguide.training.shape.surface import people_apart, surface_targets, surface_terms
from shapeguide.training.shape.table import OBJECTIVES, check_batch, prepare_objective
from shapeguide.training.shape.terms import Objective, ShapeTerms

__all__ = [
    "OBJECTIVES",
    "MaskBank",
    "Objective",
    "ShapeTerms",
    "check_batch",
    "contrastive_terms",
    "cropped",
    "info_nce",
    "pairwise_terms",
    "people_apart",
    "prepare_objective",
    "reconstruction_terms",
    "surface_targets",
    "surface_terms",
    "vicreg_terms",
]

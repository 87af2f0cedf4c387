"""Settings of what guides the segmenter, one record for each kind; its type says which it is.

Nothing here imports torch, so that the command line can show its help at once.
"""

from __future__ import annotations

from typing import TypeAlias

from shapeguide.training.settings.base import CountOrZero, NotNegative, Positive, Settings
from shapeguide.vocabulary import Balance, CapForm, Guidance, ShapeDistance


class ShapeGuidance(Settings):
    """How the shape loss enters the segmentation stage; ramp and balance are for every guide."""

    alpha: NotNegative = 0.3
    """Weight of the shape loss; with balanced gradients, the size of its gradient."""
    ramp_iterations: CountOrZero = 0
    """Iterations over which the weight grows linearly from 0 to its full size."""
    cap: Positive = 1.0
    """Largest shape loss; in units of two people's distance unless `distance` is raw."""
    cap_form: CapForm = "smooth"
    """`hard` as published: min(distance, cap), no gradient above; `smooth` never loses it."""
    distance: ShapeDistance = "calibrated"
    """`raw` as published: the norm of the signatures' difference as it comes."""
    balance: Balance = "gradient"
    """`gradient`: alpha is the norm of the shape loss's gradient over that of Dice and
    cross-entropy, so it means the same for every structure, spacing and number of cases;
    `gradient_all`: of every guide's, instead of its own weight."""
    accept_collapsed: bool = False
    """Guide with a shape network that failed the check for collapse."""

    @property
    def full_weight(self) -> float:
        """Weight after the ramp."""
        return self.alpha


class WeightedGuidance(Settings):
    """How a loss with a weight of its own enters the segmentation stage."""

    weight: NotNegative

    @property
    def full_weight(self) -> float:
        """Weight after the ramp."""
        return self.weight


class AcnnGuidance(WeightedGuidance):
    """How ACNN's loss enters the segmentation stage."""

    weight: NotNegative = 0.01
    """Weight of the distance of codes, as published."""


class SrnGuidance(Settings):
    """How SRN's loss enters the segmentation stage."""

    reconstruction_weight: NotNegative = 0.5
    """Weight of the reconstruction term, as published."""
    code_weight: NotNegative = 0.5
    """Weight of the code term, as published."""

    @property
    def full_weight(self) -> float:
        """Weight after the ramp of the sum, in which each term has its own."""
        return 1.0


# The authors of both losses raise or adapt the weight during training. Ours are where the gradient
# is about that of Dice at the end of the Dice iterations (hippocampus crops).


class BoundaryGuidance(WeightedGuidance):
    """How the boundary loss enters the segmentation stage."""

    weight: NotNegative = 5.0
    """Weight of the loss, which is in mm."""


class HausdorffGuidance(WeightedGuidance):
    """How the Hausdorff distance-transform loss enters the segmentation stage."""

    weight: NotNegative = 2.5
    """Weight of the loss, which is in mm2."""


GuideSettings: TypeAlias = (
    ShapeGuidance | AcnnGuidance | SrnGuidance | BoundaryGuidance | HausdorffGuidance
)
GUIDE_GROUPS: dict[Guidance, str] = {
    "shape": "shape_loss",
    "acnn": "acnn",
    "srn": "srn",
    "boundary": "boundary",
    "hausdorff": "hausdorff",
}
"""Where the settings of a run hold those of each guide."""
GUIDANCE_SETTINGS = ("guidance", "shape", "autoencoder", "restorer", *GUIDE_GROUPS.values())
"""Settings that the iterations before the guidance do not depend on."""

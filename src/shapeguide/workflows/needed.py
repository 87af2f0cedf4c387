"""Which stages a training has before that of the segmenter."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from shapeguide.training.cohort import Cohort
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.guidance import AcnnGuidance, ShapeGuidance, SrnGuidance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NeededStages:
    """What is trained before the segmenter, besides the finder."""

    settings: TrainSettings
    """With the guidance that is left."""
    shape: bool
    """Whether a shape network is trained."""
    autoencoder: bool
    restorer: bool


def needed_stages(cohort: Cohort, settings: TrainSettings, *, given: bool) -> NeededStages:
    """The stages that a cohort needs; what is left out is said in the log.

    Args:
        cohort: The cases, in regions or whole.
        settings: What the user wants.
        given: Whether there is a trained shape network already.
    """
    if cohort.in_patches and settings.guide is not None:
        logger.warning(
            "the segmenter sees patches, which show structures in part: guidance %r would mean "
            "nothing, and none is used; a coarser spacing (data.spacing_mm) shows them whole",
            settings.guidance,
        )
        settings = settings.changed(guidance="none")
    by_shape = isinstance(settings.guide, ShapeGuidance)
    restores = by_shape and settings.restorer.iterations > 0
    if restores and len(cohort.regions.each if cohort.regions else ()) > 1:
        logger.info(
            "no shape restorer is trained: it looks at all structures at once, and each has a "
            "region of its own here (data.region all lays one around all)"
        )
        restores = False
    return NeededStages(
        settings,
        shape=by_shape and not given,
        autoencoder=isinstance(settings.guide, AcnnGuidance | SrnGuidance),
        restorer=restores,
    )

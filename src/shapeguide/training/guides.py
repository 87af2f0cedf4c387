"""What guides the segmenter: a trained model is checked against the run and becomes a loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from shapeguide.errors import ConfigError
from shapeguide.losses import (
    AcnnLoss,
    AutoencoderLoss,
    BoundaryLoss,
    GuideLoss,
    HausdorffLoss,
    ShapeLoss,
    SrnLoss,
)
from shapeguide.models.autoencoder_model import AutoencoderModel
from shapeguide.models.shape_model import ShapeModel
from shapeguide.training.cohort import Cohort
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.guidance import BoundaryGuidance, HausdorffGuidance, SrnGuidance

logger = logging.getLogger(__name__)


Guide: TypeAlias = ShapeModel | AutoencoderModel
"""What is trained first and then guides."""
WITHOUT_MODEL: dict[type, Callable[..., GuideLoss]] = {
    BoundaryGuidance: BoundaryLoss,
    HausdorffGuidance: HausdorffLoss,
}
"""Losses that need no trained model, by the settings that ask for them; each takes the spacing."""


def guided_by(guide: Guide | None, settings: TrainSettings) -> TrainSettings:
    """Settings whose guidance is what will guide.

    That is the kind of the guide that is given, whatever the settings say; without one it is theirs
    when it needs no model, else `none`.
    """
    if guide is not None:
        return settings.changed(guidance=_kind(guide))
    needs_none = type(settings.guide) in WITHOUT_MODEL
    return settings if needs_none else settings.changed(guidance="none")


def guide_loss(guide: Guide | None, cohort: Cohort, settings: TrainSettings) -> GuideLoss | None:
    """The loss that guides in the settings of `guided_by`, or None.

    Raises:
        ConfigError: If the guide has other structures, another space, or is collapsed.
    """
    if guide is None:
        loss = WITHOUT_MODEL.get(type(settings.guide))
        return None if loss is None else loss(spacing_mm=cohort.space.spacing_mm)
    if guide.structures != cohort.structures:
        name = "shape network" if isinstance(guide, ShapeModel) else f"{_kind(guide)} autoencoder"
        raise ConfigError(
            f"the {name} was trained on {guide.structures}, the dataset has "
            f"{cohort.structures}; train a {name} on the same structures"
        )
    if isinstance(guide, ShapeModel):
        return _shape_loss(guide, cohort, settings)
    return _autoencoder_loss(guide, cohort, settings)


def _kind(guide: Guide) -> str:
    return "shape" if isinstance(guide, ShapeModel) else guide.flavour


def _autoencoder_loss(
    model: AutoencoderModel, cohort: Cohort, settings: TrainSettings
) -> AutoencoderLoss:
    seen, space = model.space, cohort.space
    if (seen.spacing_mm, seen.spatial_shape) != (space.spacing_mm, space.spatial_shape):
        raise ConfigError(
            f"the {model.flavour} autoencoder looks at the whole grid of {seen}, the segmenter "
            f"works in {space}; state the same spacing and shape for both"
        )
    if model.failed:
        logger.warning(
            "the %s autoencoder cannot even reproduce %s: its guidance means little",
            model.flavour,
            ", ".join(model.failed),
        )
    chosen = settings.guide
    if isinstance(chosen, SrnGuidance):
        return SrnLoss(
            model.network,
            reconstruction_weight=chosen.reconstruction_weight,
            code_weight=chosen.code_weight,
        )
    return AcnnLoss(model.network)


def _shape_loss(model: ShapeModel, cohort: Cohort, settings: TrainSettings) -> ShapeLoss:
    if model.network.pose == "grid" and model.space != cohort.space:
        raise ConfigError(
            f"the shape network looks at the whole grid of {model.space}, the segmenter works in "
            f"{cohort.space}; state spacing and shape, or use the canonical pose"
        )
    guidance = settings.shape_loss
    unmeasured = [row.structure for row in model.quality if not row.measured]
    if unmeasured:
        raise ConfigError(
            f"fewer than two people in the training of the shape network have "
            f"{', '.join(unmeasured)}, so it cannot know how people differ there; add "
            "cases that have it, leave the structure out, or train without guidance"
        )
    if model.collapsed and guidance.accept_collapsed:
        logger.warning(
            "the shape network has collapsed for %s and guides all the same: it tells two people "
            "apart little better than chance (%s)",
            ", ".join(model.collapsed), _figures(model),
        )  # fmt: skip
    elif model.collapsed:
        raise ConfigError(
            f"the shape network has collapsed for {', '.join(model.collapsed)}: it tells "
            "two people apart little better than chance, so it cannot guide "
            f"({_figures(model)}). Train it with the objective 'surface', or set "
            "shape_loss.accept_collapsed to go on all the same"
        )
    return ShapeLoss(
        model.network,
        spacing_mm=cohort.space.spacing_mm,
        cap=guidance.cap,
        cap_form=guidance.cap_form,
        distance=guidance.distance,
    )


def _figures(model: ShapeModel) -> str:
    return "; ".join(
        f"{row.structure}: ratio {row.ratio:.2f}, AUC {row.auc:.2f}"
        + (f", distances {row.scale:.2g} of those before training" if row.scale else "")
        for row in model.quality
    )

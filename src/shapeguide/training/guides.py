"""What guides the segmenter: a trained model is checked against the run and becomes a loss."""

from __future__ import annotations

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.losses import GuideLoss, ShapeLoss
from shapeguide.models.shape_model import ShapeModel
from shapeguide.training.config import TrainSettings
from shapeguide.training.preparation import Preparation


def guided_by(guide: ShapeModel | None, settings: TrainSettings) -> TrainSettings:
    """Settings whose guidance is the kind of the guide that is given; `none` without one."""
    return settings.changed(guidance="none" if guide is None else "shape")


def guide_loss(
    guide: ShapeModel | None, dataset: Dataset, preparation: Preparation, settings: TrainSettings
) -> GuideLoss | None:
    """The loss that guides, or None.

    Raises:
        ConfigError: If the guide has other structures, another space, or is collapsed.
    """
    if guide is None:
        return None
    _check_structures("shape network", guide, dataset)
    return _shape_loss(guide, preparation, settings)


def _check_structures(name: str, guide: ShapeModel, dataset: Dataset) -> None:
    if guide.structures != dataset.structures:
        raise ConfigError(
            f"the {name} was trained on {guide.structures}, the dataset has "
            f"{dataset.structures}; train a {name} on the same structures"
        )


def _shape_loss(model: ShapeModel, preparation: Preparation, settings: TrainSettings) -> ShapeLoss:
    if model.network.pose == "grid" and model.space != preparation.space:
        raise ConfigError(
            f"the shape network looks at the whole grid of {model.space}, the segmenter works in "
            f"{preparation.space}; state spacing and shape, or use the canonical pose"
        )
    guidance = settings.shape_loss
    if model.collapsed and not guidance.accept_collapsed:
        raise ConfigError(
            f"the shape network has collapsed for {', '.join(model.collapsed)}: it tells "
            "two people apart little better than chance, so it cannot guide "
            f"({_figures(model)}). Train it with the objective 'surface', or set "
            "shape_loss.accept_collapsed to go on all the same"
        )
    return ShapeLoss(
        model.network,
        spacing_mm=preparation.space.spacing_mm,
        cap=guidance.cap,
        cap_form=guidance.cap_form,
        distance=guidance.distance,
    )


def _figures(model: ShapeModel) -> str:
    return "; ".join(
        f"{row['structure']}: ratio {row['ratio']:.2f}, AUC {row['auc']:.2f}"
        for row in model.quality
    )

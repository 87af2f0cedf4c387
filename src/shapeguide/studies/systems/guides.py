"""The networks that guide or restore: trained once for all systems of a regime and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import ConfigError
from shapeguide.inference.usual import calibrated
from shapeguide.machine import choose_device
from shapeguide.models.autoencoder_model import AutoencoderModel, reconstruct
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.restorer_model import RESTORER_FOLDER, RestorerModel, restore
from shapeguide.models.segmenter import Segmenter
from shapeguide.studies.systems.design import ALL, Cell
from shapeguide.studies.systems.experiment import Experiment
from shapeguide.studies.systems.folder import stopwatch
from shapeguide.studies.systems.regimes import training_cases
from shapeguide.studies.systems.systems import PLAIN, SRN, SYSTEMS, System
from shapeguide.training.guides import Guide
from shapeguide.training.stages.autoencoder import train_autoencoder
from shapeguide.training.stages.restorer import train_restorer
from shapeguide.training.stages.shape import train_shape
from shapeguide.vocabulary import WeightsName

Restoration: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Class probabilities (1 + structures, I, J, K) in the working space to cleaner ones."""


@dataclass(frozen=True)
class GuideKey:
    """Which guide it is."""

    regime: str
    """Of the label maps that it is trained on."""
    seed: int
    name: str
    system: System
    """One of the systems that share it."""

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.regime}/{self.seed}/{self.name}"


def guide_key(cell: Cell) -> GuideKey | None:
    """The guide of a cell; None where nothing is trained for its guidance."""
    name = cell.system.guide
    if name is None:
        return None
    regime = ALL if cell.system.label_maps == "all" else cell.regime
    return GuideKey(regime, cell.seed, name, cell.system)


def srn_key(cell: Cell) -> GuideKey | None:
    """SRN's autoencoder of the regime and seed of a cell, whatever guided the cell."""
    return guide_key(Cell(cell.regime, cell.seed, SYSTEMS[SRN]))


def restorer_key(regime: str, seed: int) -> GuideKey:
    """The shape restorer that is trained on the label maps of a regime."""
    return GuideKey(regime, seed, RESTORER_FOLDER, SYSTEMS[PLAIN])


def guide_is_trained(experiment: Experiment, key: GuideKey) -> bool:
    """Whether a guide is there."""
    return (_run(experiment, key) / MODEL_FILE).is_file()


def train_guide(experiment: Experiment, key: GuideKey) -> None:
    """Train a guide or a restorer.

    Raises:
        ShapeguideError: As the training does.
    """
    with stopwatch(_run(experiment, key).parent, "train"):
        _trained(experiment, key)


def load_guide(experiment: Experiment, key: GuideKey) -> Guide:
    """A trained guide; one that is not there is trained first.

    Raises:
        ConfigError: If it is a restorer, which guides nothing.
    """
    model = _trained(experiment, key)
    if isinstance(model, RestorerModel):
        raise ConfigError(f"{key.text} restores predictions and guides no segmenter; name a guide")
    return model


def restoration(
    experiment: Experiment,
    key: GuideKey,
    cell: Cell,
    segmenters: Mapping[WeightsName, Segmenter],
) -> dict[WeightsName, Restoration]:
    """How a shape restorer or SRN's autoencoder restores the predictions of a cell.

    Args:
        experiment: Whose guides they are.
        key: Of a restorer or of a guide of SRN.
        cell: Whose predictions are restored.
        segmenters: Of the cell, by their weights.

    Returns:
        One for each segmenter: what is usual for it, its restorer leaves alone.

    Raises:
        ConfigError: If the guide is neither.
    """
    model = _trained(experiment, key)
    model.network.to(choose_device(experiment.settings.machine.device))
    if isinstance(model, RestorerModel):
        share = experiment.settings.restorer.usual_share
        models = calibrated(model, segmenters, experiment.cases(cell), share=share)
        return {name: partial(restore, usual) for name, usual in models.items()}
    if isinstance(model, AutoencoderModel):
        return dict.fromkeys(segmenters, partial(reconstruct, model))
    raise ConfigError(f"{key.text} restores no prediction; name a restorer or a guide of SRN")


def _trained(experiment: Experiment, key: GuideKey) -> Guide | RestorerModel:
    """The model; one that is not there is trained first."""
    run_dir = _run(experiment, key)
    cases = training_cases(experiment.train, key.regime, key.seed)
    settings = key.system.guide_settings(experiment.settings, key.seed)
    if key.name == RESTORER_FOLDER:
        return train_restorer(cases, run_dir=run_dir, settings=settings, progress=False)
    train = train_shape if key.system.guidance == "shape" else train_autoencoder
    return train(cases, run_dir=run_dir, settings=settings, progress=False)


def _run(experiment: Experiment, key: GuideKey) -> Path:
    return experiment.files.guide(key.regime, key.seed, key.name) / "run"

"""The networks that guide: trained once for all systems of a regime and seed that share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shapeguide.experiments.table2.design import ALL, Cell
from shapeguide.experiments.table2.experiment import Experiment
from shapeguide.experiments.table2.folder import stopwatch
from shapeguide.experiments.table2.regimes import training_cases
from shapeguide.experiments.table2.systems import SRN, SYSTEMS, System
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.shape_model import ShapeModel
from shapeguide.training.shape_stage import train_shape

Reconstruct: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
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


def guide_is_trained(experiment: Experiment, key: GuideKey) -> bool:
    """Whether a guide is there."""
    return (_run(experiment, key) / MODEL_FILE).is_file()


def train_guide(experiment: Experiment, key: GuideKey) -> None:
    """Train a guide.

    Raises:
        ShapeguideError: As the training does.
    """
    with stopwatch(_run(experiment, key).parent, "train"):
        load_guide(experiment, key)


def load_guide(experiment: Experiment, key: GuideKey) -> ShapeModel:
    """A trained guide; one that is not there is trained first."""
    cases = training_cases(experiment.train, key.regime, key.seed)
    settings = key.system.guide_settings(experiment.settings, key.seed)
    return train_shape(cases, run_dir=_run(experiment, key), settings=settings, progress=False)


def reconstruction(experiment: Experiment, key: GuideKey) -> Reconstruct:
    """How SRN's autoencoder cleans a prediction."""
    raise NotImplementedError


def _run(experiment: Experiment, key: GuideKey) -> Path:
    return experiment.files.guide(key.regime, key.seed, key.name) / "run"

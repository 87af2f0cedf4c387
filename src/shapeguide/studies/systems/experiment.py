"""What every task of an experiment refers to."""

from __future__ import annotations

from dataclasses import dataclass

from shapeguide.data.dataset import Dataset
from shapeguide.studies.systems.design import Cell, Table2Design
from shapeguide.studies.systems.folder import ResultFiles
from shapeguide.studies.systems.regimes import training_cases
from shapeguide.training.settings.groups import TrainSettings


@dataclass(frozen=True)
class Experiment:
    """Data, settings and folder; it travels to other processes."""

    files: ResultFiles
    train: Dataset
    test: Dataset
    settings: TrainSettings
    """Of every training, apart from what the cell decides on."""
    design: Table2Design
    keep_predictions: bool = False

    def cases(self, cell: Cell) -> Dataset:
        """The labelled training cases of a cell."""
        return training_cases(self.train, cell.regime, cell.seed)

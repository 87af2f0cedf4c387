"""Train the segmenter of a cell."""

from __future__ import annotations

from shapeguide.errors import ConfigError
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.studies.systems.design import Cell
from shapeguide.studies.systems.experiment import Experiment
from shapeguide.studies.systems.folder import claim_cell, stopwatch
from shapeguide.studies.systems.guides import guide_key, load_guide
from shapeguide.studies.systems.systems import SYSTEMS
from shapeguide.training.guides import Guide, guided_by
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.segmentation import train_segmenter


def unguided_of(cell: Cell) -> Cell:
    """The same segmenter of the same regime and seed, without guidance."""
    return Cell(cell.regime, cell.seed, SYSTEMS[cell.system.unguided])


def takes_over(experiment: Experiment, cell: Cell) -> bool:
    """Whether a cell takes over Dice iterations of the unguided segmenter: there may be none."""
    settings = cell.system.settings(experiment.settings, cell.seed)
    return cell.system.branches and settings.segmentation.dice_iterations > 0


def is_trained(experiment: Experiment, cell: Cell) -> bool:
    """Whether the segmenter of a cell is there."""
    return (experiment.files.run(cell) / MODEL_FILE).is_file()


def train_cell(experiment: Experiment, cell: Cell) -> None:
    """Train the segmenter of a cell; what it branches from and its guide must be there.

    Raises:
        ShapeguideError: As the training does.
    """
    files = experiment.files
    claim_cell(files, cell)
    with stopwatch(files.cell(cell), "train"):
        key = guide_key(cell)
        guide = None if key is None else load_guide(experiment, key)
        settings = cell.system.settings(experiment.settings, cell.seed)
        _check_guidance(cell, guide, settings)
        train_segmenter(
            experiment.cases(cell),
            guide,
            run_dir=files.run(cell),
            settings=settings,
            branch_from=files.run(unguided_of(cell)) if takes_over(experiment, cell) else None,
            progress=False,
        )


def _check_guidance(cell: Cell, guide: Guide | None, settings: TrainSettings) -> None:
    """A row of the table never says more than what was trained."""
    found = guided_by(guide, settings).guidance
    if found != cell.system.guidance:
        raise ConfigError(
            f"{cell.name}: would be trained with guidance {found!r}, expected "
            f"{cell.system.guidance!r}; leave this system out"
        )

"""The one path that every stage takes: claimed, trained, measured, written, loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import nn

import shapeguide
from shapeguide.models.model_files import ModelDescription, write_description, write_weights
from shapeguide.models.quality import Quality
from shapeguide.training.cohort import Cohort
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.engine.loop import Course, LoopPlan, LoopTask, train_loop
from shapeguide.training.engine.processes import on_first, shared
from shapeguide.training.engine.run_folder import claim_run_folder, locked_run_folder
from shapeguide.training.engine.weight_average import WeightAverage
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.vocabulary import Precision

ModelT_co = TypeVar("ModelT_co", covariant=True)
QualityT = TypeVar("QualityT", bound=Quality)

FULL_VECTOR = 16
"""Channels that a CPU convolves at once."""

logger = logging.getLogger(__name__)


class Stage(Protocol[ModelT_co]):
    """What a stage adds to the path: its network, its batches, its step, its model file.

    A stage is made for one training. It knows no loop, no checkpoint and no device but through
    what it is handed. Item n of its batches is the whole batch of iteration n; every tensor of it
    has the items along its first axis, so that loader workers and several processes can serve it.
    """

    @property
    def cohort(self) -> Cohort:
        """The cases."""
        ...

    @property
    def settings(self) -> TrainSettings:
        """All settings of the run."""
        ...

    @property
    def name(self) -> str:
        """Its name in `run.json`."""
        ...

    @property
    def precision(self) -> Precision | None:
        """The one precision that it computes in; None leaves it to the machine."""
        ...

    @property
    def average_decay(self) -> float:
        """Share that an average of the weights keeps of itself; 0 keeps none."""
        ...

    @property
    def validate_every(self) -> int:
        """Iterations between two validations; 0 never validates."""
        ...

    @property
    def title(self) -> str:
        """What progress bar and errors call it."""
        ...

    @property
    def course(self) -> Course:
        """How long it trains, and at which learning rate."""
        ...

    def check(self) -> None:
        """Refuse settings and cases that cannot be trained with, before anything is written."""
        ...

    def learner(self) -> nn.Module:
        """All that is trained, as one module on the CPU."""
        ...

    def task(self, wrapped: nn.Module, state: TrainingState, folder: Path) -> LoopTask:
        """Batches, step and validation; `wrapped` is the learner as the step calls it."""
        ...

    def describe(self, state: TrainingState, folder: Path) -> ModelDescription:
        """Measure what was trained, and write its weights."""
        ...

    def load(self, folder: Path) -> ModelT_co:
        """The model of a finished run."""
        ...


def run_stage(stage: Stage[ModelT_co], *, run_dir: str | Path, progress: bool) -> ModelT_co:
    """Train a stage from where its folder says, or load what is finished there.

    Args:
        stage: Made for these cases and settings.
        run_dir: Folder for settings, log, checkpoint and model.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, or the stage refuses its settings,
            or a structure occurs in no case, or another process trains there.
        DataError: If a case cannot be used.
    """
    folder, settings, cohort = Path(run_dir), stage.settings, stage.cohort
    stage.check()
    with locked_run_folder(folder):
        finished = on_first(
            lambda: claim_run_folder(
                folder,
                stage=stage.name,
                settings=settings,
                train=cohort.train,
                validation=cohort.validation,
                pool=cohort.pool_cases.cases,
            )
        )
        if not finished:
            _train(stage, folder, progress)
        return stage.load(folder)


def _train(stage: Stage[Any], folder: Path, progress: bool) -> None:
    cohort, machine = stage.cohort, stage.settings.machine
    logger.info(
        "%s: %d training cases, %d held out for validation%s",
        stage.title, len(cohort.train), len(cohort.validation or ()),
        f", {len(cohort.pool_cases)} label maps without images" if cohort.pool_cases else "",
    )  # fmt: skip
    cohort.check_structures_occur()
    begun = begin(stage)
    plan = LoopPlan.of(
        stage.title,
        stage.course,
        machine,
        validate_every=stage.validate_every,
        progress=progress,
    )
    task = stage.task(begun.wrapped, begun.state, folder)
    train_loop(begun.state, plan, task, run_dir=folder, fabric=begun.fabric)
    begun.state.network.eval().requires_grad_(False)
    on_first(lambda: write_description(stage.describe(begun.state, folder), folder))


@dataclass(frozen=True, eq=False)
class BegunStage:
    """What a stage trains, before its first iteration."""

    fabric: Fabric
    """Device and precision."""
    state: TrainingState
    wrapped: nn.Module
    """The learner as the step calls it."""


def begin(stage: Stage[Any]) -> BegunStage:
    """Set up what a stage trains on the device that computes; nothing is read or written."""
    fabric = start_fabric(stage.settings.machine, precision=stage.precision)
    learner = stage.learner()
    lay_out(learner)
    optimizer = torch.optim.Adam(learner.parameters(), lr=stage.course.learning_rate)
    wrapped, optimizer = fabric.setup(learner, optimizer)
    average = WeightAverage(learner, stage.average_decay) if stage.average_decay else None
    state = TrainingState(learner, optimizer, average=average)
    return BegunStage(fabric, state, shared(wrapped, learner, fabric))


def lay_out(network: nn.Module) -> None:
    """Lay out the weights so that a CPU convolves fastest.

    Where a level has too few channels to fill its vectors, that is with channels last, by a
    quarter; other networks are faster as they are.
    """
    weights = [one for one in network.parameters() if one.ndim == 5]
    if any(len(one) < FULL_VECTOR and max(one.shape[2:]) > 2 for one in weights):
        for one in weights:
            one.data = one.data.contiguous(memory_format=torch.channels_last_3d)


def stated(stage: Stage[Any], network: nn.Module, folder: Path, **notes: Any) -> dict[str, Any]:
    """What the model file of every stage states; the last weights are written."""
    train = stage.cohort.train
    return {
        "made_by": f"shapeguide {shapeguide.__version__}",
        "structures": train.structures,
        "space": stage.cohort.space,
        "weights": {"last": write_weights(network, folder, "last")},
        "notes": {
            "dataset": train.name,
            "training_cases": len(train),
            "iterations": stage.course.iterations,
            **notes,
        },
    }


def told(quality: Iterable[QualityT], what: str) -> tuple[QualityT, ...]:
    """Log how well a model does what it is for, a warning where it does not; all rows."""
    rows = tuple(quality)
    for row in rows:
        (logger.info if row.good else logger.warning)("%s, %s", what, row)
    return rows

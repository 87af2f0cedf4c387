"""Stage 2: train the segmenter on Dice, then on Dice and a guide."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.models.model_files import (
    WEIGHTS_FILES,
    hash_of,
    write_description,
    write_weights,
)
from shapeguide.models.segmenter import (
    Segmenter,
    SegmenterDescription,
    build_segmenter,
    load_segmenter,
)
from shapeguide.training.cohort import Preparation, prepare
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.engine.loop import LoopPlan, LoopTask, train_loop
from shapeguide.training.engine.run_folder import BRANCH_FILE, branch, claim_run_folder
from shapeguide.training.engine.seeds import Stage, first_weights, generator_for
from shapeguide.training.engine.weight_average import WeightAverage
from shapeguide.training.guides import Guide, guide_loss, guided_by
from shapeguide.training.settings.groups import TrainSettings, resolve
from shapeguide.training.stages.segmentation_batches import CaseBatches
from shapeguide.training.stages.segmentation_step import SegmentationStep, validation_dice
from shapeguide.vocabulary import WeightsName

logger = logging.getLogger(__name__)


def train_segmenter(
    dataset: Dataset,
    guide: Guide | None = None,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    branch_from: str | Path | None = None,
    progress: bool = True,
) -> Segmenter:
    """Train a segmenter, guided when a guide is given.

    The same call on the folder of a killed run resumes it; on that of a finished one it loads the
    result. With and without a guide, equal settings see the same cases under the same warps in the
    same order.

    Args:
        dataset: Cases with label maps and structures.
        guide: A trained shape network or autoencoder of the same structures; its kind decides the
            guidance, whatever the settings say. None guides by the boundary or the Hausdorff
            loss where the settings ask for it, and otherwise gives the plain baseline.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        branch_from: Run folder of the same data and settings, guidance apart, whose Dice iterations
            are taken over instead of being computed again; the last weights are the same to the
            bit.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, or the guide has other structures,
            another space, or is collapsed, or the run to branch from is another one.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(run_dir), resolve(settings)
    settings = guided_by(guide, settings)
    preparation = prepare(dataset, settings)
    guiding = guide_loss(guide, dataset, preparation, settings)
    if claim_run_folder(
        folder,
        stage="segmentation",
        settings=settings,
        train=preparation.train,
        validation=preparation.validation,
    ):
        return load_segmenter(folder, device=settings.machine.device)
    if branch_from is not None:
        branch(Path(branch_from), folder)
    fabric = start_fabric(settings.machine)
    network = _new_network(dataset, settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.segmentation.learning_rate)
    wrapped, optimizer = fabric.setup(network, optimizer)
    state = TrainingState(network, optimizer, average=_average(network, settings))
    guiding = guiding.to(fabric.device) if guiding else None
    step = SegmentationStep(wrapped, preparation.space.spacing_mm, settings, guiding)
    run = _Run(folder, settings, preparation)
    plan = _plan(settings, progress)
    train_loop(state, plan, _task(step, state, run), run_dir=folder, fabric=fabric)
    _write(state, run)
    return load_segmenter(folder, device=settings.machine.device)


@dataclass(frozen=True)
class _Run:
    """What every part of one training refers to."""

    folder: Path
    settings: TrainSettings
    preparation: Preparation


def _new_network(dataset: Dataset, settings: TrainSettings) -> nn.Module:
    with first_weights(generator_for(settings.seed, Stage.SEGMENTATION)):
        return build_segmenter(
            settings.segmentation.segmenter,
            settings.segmentation.channels,
            classes=1 + len(dataset.structures),
            activation_checkpoints=settings.machine.activation_checkpoints,
        )


def _average(network: nn.Module, settings: TrainSettings) -> WeightAverage | None:
    decay = settings.segmentation.average_decay
    return WeightAverage(network, decay) if decay else None


def _task(step: SegmentationStep, state: TrainingState, run: _Run) -> LoopTask:
    chosen = run.settings.segmentation
    cases = run.preparation.prepared_train()
    cases.prepare_all()
    validate: Callable[[], dict[str, float]] | None = None
    if run.preparation.validation is not None:
        held_out = run.preparation.prepared_validation()
        names = [structure.name for structure in run.preparation.train.structures]

        def validate() -> dict[str, float]:
            return validation_dice(step.network, held_out, names)

    return LoopTask(
        CaseBatches(cases, batch_size=chosen.batch_size, seed=run.settings.seed),
        step,
        validate=validate,
        keep_best=lambda: _keep_best(state, run.folder),
        milestones={chosen.dice_iterations: run.folder / BRANCH_FILE},
    )


def _plan(settings: TrainSettings, progress: bool) -> LoopPlan:
    chosen = settings.segmentation
    return LoopPlan.of(
        "plain segmenter" if settings.guidance == "none" else "guided segmenter",
        chosen,
        settings.machine,
        validate_every=chosen.validate_every,
        progress=progress,
    )


def _keep_best(state: TrainingState, folder: Path) -> None:
    write_weights(state.network, folder, "best")


def _write(state: TrainingState, run: _Run) -> None:
    weights: dict[WeightsName, str] = {}
    weights["last"] = write_weights(state.network, run.folder, "last")
    if state.best_iteration is not None:
        weights["best"] = hash_of(run.folder / WEIGHTS_FILES["best"])
    if state.average is not None:
        weights["average"] = write_weights(state.average.tensors, run.folder, "average")
    train = run.preparation.train
    description = SegmenterDescription(
        made_by=f"shapeguide {shapeguide.__version__}",
        structures=train.structures,
        space=run.preparation.space,
        segmenter=run.settings.segmentation.segmenter,
        channels=run.settings.segmentation.channels,
        weights=weights,
        notes={
            "dataset": train.name,
            "training_cases": len(train),
            "guidance": run.settings.guidance,
            "iterations": state.iteration,
            "best_iteration": state.best_iteration,
            "best_score": state.best_score,
        },
    )
    write_description(description, run.folder)

"""Stage 1: train the shape network on label maps, calibrate it, see whether it collapsed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.models.model_files import write_description, write_weights
from shapeguide.models.shape_model import ShapeModel, ShapeModelDescription, load_shape_network
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.cohort import Preparation, prepare
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.engine.loop import LoopPlan, LoopTask, train_loop
from shapeguide.training.engine.run_folder import claim_run_folder
from shapeguide.training.engine.seeds import (
    SHAPE_CALIBRATION,
    SHAPE_OBJECTIVE,
    SHAPE_QUALITY,
    Stage,
    first_weights,
    generator_for,
)
from shapeguide.training.settings.groups import TrainSettings, resolve
from shapeguide.training.shape import (
    MaskBank,
    Objective,
    ShapeTerms,
    check_batch,
    cropped,
    prepare_objective,
)
from shapeguide.training.shape.separation import (
    ShapeQuality,
    mean_distance_between_cases,
    measure_quality,
)

SMALLEST_POPULATION = 2
LARGEST_POPULATION = 64
"""Cases that the pose is fitted to, at most; they are taken at equal steps."""

logger = logging.getLogger(__name__)


def train_shape(
    dataset: Dataset,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    progress: bool = True,
) -> ShapeModel:
    """Train a shape network on the label maps of a dataset.

    The same call on the folder of a killed run resumes it; on that of a finished one it loads the
    result.

    Args:
        dataset: Cases with label maps and structures.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, there is only one training case, or the
            objective needs more cases or larger batches.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(run_dir), resolve(settings)
    check_batch(settings.shape)
    preparation = prepare(dataset, settings)
    if len(preparation.train) < SMALLEST_POPULATION:
        raise ConfigError(
            f"{dataset.name}: the shape stage needs label maps of at least {SMALLEST_POPULATION} "
            f"cases to learn how people differ, found {len(preparation.train)}; add cases, give a "
            "shape network trained on others, or train without guidance"
        )
    if claim_run_folder(
        folder,
        stage="shape",
        settings=settings,
        train=preparation.train,
        validation=preparation.validation,
    ):
        return load_shape_network(folder)
    fabric = start_fabric(settings.machine, precision="fp32")  # poses and distances want it
    bank = mask_bank(preparation.prepared_train(), preparation.space, settings, fabric.device)
    network = _new_network(dataset, settings).to(fabric.device)
    network.fit_pose(_population(bank), spacing_mm=bank.spacing_mm)
    _train(network, bank, folder, settings, fabric, progress)
    network.eval().requires_grad_(False)
    quality = _calibrate_and_measure(network, bank, preparation, settings)
    for row in quality:
        (logger.warning if row.collapsed else logger.info)("%s", row)
    _write(network, quality, preparation.space, dataset, folder, settings)
    return load_shape_network(folder)


def mask_bank(
    cases: PreparedCases, space: WorkingSpace, settings: TrainSettings, device: torch.device
) -> MaskBank:
    """Masks of prepared cases: on the whole working grid, or cropped around each structure.

    The other poses remove position, so a crop loses nothing and costs a fraction; translations then
    are not drawn.
    """
    count = len(cases.cases[0].structures)
    whole = (
        torch.stack([torch.from_numpy(case.classes == s + 1) for s in range(count)])
        for case in cases
    )
    limits = settings.warp
    if settings.shape.pose == "grid":
        masks = torch.stack(list(whole))
    else:
        masks = cropped(list(whole))
        limits = replace(limits, translation_mm=0.0)
    people = tuple(case.person for case in cases.cases)
    return MaskBank(masks.to(torch.uint8).to(device), space.spacing_mm, limits, people)


class _Iterations(TorchDataset[int]):
    """Batches that are nothing but their number: masks are drawn from the bank on the device."""

    def __getitem__(self, iteration: int) -> int:
        return iteration


def _new_network(dataset: Dataset, settings: TrainSettings) -> ShapeNetwork:
    names = [structure.name for structure in dataset.structures]
    with first_weights(generator_for(settings.seed, Stage.SHAPE)):
        return ShapeNetwork(
            names,
            channels=settings.shape.channels,
            pose=settings.shape.pose,
            canonical_shape=settings.shape.canonical_shape,
            trunks=len(names) if settings.shape.one_per_structure else 1,
        )


def _train(
    network: ShapeNetwork,
    bank: MaskBank,
    folder: Path,
    settings: TrainSettings,
    fabric: Fabric,
    progress: bool,
) -> None:
    chosen = settings.shape
    objective = prepare_objective(
        network, bank, chosen, generator_for(settings.seed, Stage.SHAPE, SHAPE_OBJECTIVE)
    )
    companion = objective.companion
    learning = network if companion is None else nn.ModuleList([network, companion])
    optimizer = torch.optim.Adam(learning.parameters(), lr=chosen.learning_rate)
    plan = LoopPlan.of("shape stage", chosen, settings.machine, progress=progress)
    train_loop(
        TrainingState(learning, optimizer),
        replace(plan, num_workers=0),  # a batch is but its number
        LoopTask(_Iterations(), ShapeStep(objective, settings.seed)),
        run_dir=folder,
        fabric=fabric,
    )


@dataclass(frozen=True)
class ShapeStep:
    """One iteration; what it draws depends on the seed and its number alone."""

    objective: Objective
    seed: int

    def __call__(self, _: int, iteration: int) -> ShapeTerms:
        """Loss terms of this iteration; its batch is nothing but its number."""
        return self.objective.terms(generator_for(self.seed, Stage.SHAPE, iteration))


def _population(bank: MaskBank) -> Tensor:
    """Masks of training cases, at most so many as the pose is fitted to."""
    count = min(len(bank.masks), LARGEST_POPULATION)
    return bank.masks[torch.linspace(0, len(bank.masks) - 1, count).round().long()]


def _calibrate_and_measure(
    network: ShapeNetwork, bank: MaskBank, preparation: Preparation, settings: TrainSettings
) -> list[ShapeQuality]:
    """Set the calibration from the training cases; measure on held-out ones where they suffice.

    They do for a structure that two people among them have; others are measured in training cases.
    """
    pairs = settings.shape.quality_pairs
    generator = generator_for(settings.seed, Stage.SHAPE, SHAPE_CALIBRATION)
    calibration = mean_distance_between_cases(network, bank, pairs=pairs, generator=generator)
    network.calibration.copy_(calibration)
    quality: list[ShapeQuality] = []
    if preparation.validation is not None and len(preparation.validation) > 1:
        cases = preparation.prepared_validation()
        others = mask_bank(cases, preparation.space, settings, bank.masks.device)
        generator = generator_for(settings.seed, Stage.SHAPE, SHAPE_QUALITY)
        quality = measure_quality(network, others, pairs=pairs, generator=generator, held_out=True)
        if all(row.measured for row in quality):
            return quality
    generator = generator_for(settings.seed, Stage.SHAPE, SHAPE_QUALITY)
    own = measure_quality(network, bank, pairs=pairs, generator=generator, held_out=False)
    return [row if row.measured else seen for row, seen in zip(quality or own, own, strict=True)]


def _write(
    network: ShapeNetwork,
    quality: list[ShapeQuality],
    space: WorkingSpace,
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
) -> None:
    weights = write_weights(network, folder, "last")
    description = ShapeModelDescription(
        made_by=f"shapeguide {shapeguide.__version__}",
        structures=dataset.structures,
        space=space,
        channels=settings.shape.channels,
        weights={"last": weights},
        objective=settings.shape.objective,
        pose=settings.shape.pose,
        canonical_shape=settings.shape.canonical_shape,
        trunks=len(network.trunks),
        quality=tuple(dict(row.as_row()) for row in quality),
    )
    write_description(description, folder)

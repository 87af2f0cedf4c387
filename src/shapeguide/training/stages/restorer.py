"""The stage before the segmentation: train the shape restorer, on label maps alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.disturbing.probabilities import spoil
from shapeguide.errors import ConfigError
from shapeguide.geometry.warp import draw_affine_warps, warp_images
from shapeguide.models.model_files import write_description, write_weights
from shapeguide.models.restorer_model import RestorerDescription, RestorerModel, load_restorer
from shapeguide.models.shape_restorer import ShapeRestorer
from shapeguide.training.cohort import Preparation, prepare
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.engine.loop import LoopPlan, LoopTask, train_loop
from shapeguide.training.engine.run_folder import claim_run_folder
from shapeguide.training.engine.seeds import (
    RESTORATION_QUALITY,
    Stage,
    first_weights,
    generator_for,
)
from shapeguide.training.settings.groups import TrainSettings, resolve
from shapeguide.training.stages.autoencoder_step import with_background
from shapeguide.training.stages.distance_bank import DistanceBank, case_distances_mm, fill_bank
from shapeguide.training.stages.restorer_step import (
    RestorationQuality,
    RestorerTerms,
    clean_probabilities,
    measure_restoration,
    restorer_terms,
)
from shapeguide.training.stages.segmentation_batches import CaseBatches

logger = logging.getLogger(__name__)


def train_restorer(
    dataset: Dataset,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    progress: bool = True,
) -> RestorerModel:
    """Train the restorer that completes and cleans the predictions of a segmenter.

    It sees label maps alone, under random affine warps and then spoilt. The same call on the
    folder of a killed run resumes it; on that of a finished one it loads the result.

    Args:
        dataset: Cases with label maps and structures; one is enough.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, the settings train no restorer, or the
            data take more memory than they allow.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(run_dir), resolve(settings)
    if settings.restorer.iterations < 1:
        raise ConfigError(
            "restorer.iterations is 0, which trains no restorer; raise it, or leave the stage out"
        )
    preparation = prepare(dataset, settings)
    if claim_run_folder(
        folder,
        stage="restorer",
        settings=settings,
        train=preparation.train,
        validation=preparation.validation,
    ):
        return load_restorer(folder)
    fabric = start_fabric(settings.machine)
    cases = preparation.prepared_train()
    bank = fill_bank(
        cases,
        len(preparation.train.structures),
        memory_limit_bytes=preparation.memory_limit_bytes,
    )
    run = _Run(folder, settings, preparation, cases, bank)
    network = _new_network(run)
    _train(network, run, fabric, progress)
    quality = _measure(network, run)
    for row in quality:
        (logger.info if row.helps else logger.warning)("restorer, %s", row)
    _write(network, run, quality)
    return load_restorer(folder)


@dataclass(frozen=True, eq=False)
class _Run:
    """What every part of one training refers to."""

    folder: Path
    settings: TrainSettings
    preparation: Preparation
    cases: PreparedCases
    bank: DistanceBank

    @property
    def coarsening(self) -> int:
        """Edge length, in working voxels, of the blocks that the restorer works on."""
        finest_mm = min(self.preparation.space.spacing_mm)
        return max(1, round(self.settings.restorer.spacing_mm / finest_mm))

    @property
    def coarse_mm(self) -> tuple[float, float, float]:
        """Spacing of those blocks."""
        i, j, k = (step * self.coarsening for step in self.preparation.space.spacing_mm)
        return i, j, k


class _DistanceBatches(TorchDataset[Tensor]):
    """Item n holds the distances (B, S, I, J, K) of iteration n, in the order of `CaseBatches`."""

    def __init__(self, run: _Run) -> None:
        self.bank = run.bank
        size, seed = run.settings.restorer.batch_size, run.settings.seed
        self.order = CaseBatches(run.cases, batch_size=size, seed=seed)

    def __getitem__(self, iteration: int) -> Tensor:
        return self.bank.distances_mm[self.order.indices(iteration)]


def _new_network(run: _Run) -> ShapeRestorer:
    """On the coarse grid of the training; its weights are those of the restorer."""
    with first_weights(generator_for(run.settings.seed, Stage.RESTORER)):
        classes = 1 + len(run.preparation.train.structures)
        network = ShapeRestorer(classes, channels=run.settings.restorer.channels, coarsening=1)
    # In this layout of the weights convolutions in bf16 take a quarter less time.
    for weights in (weights for weights in network.parameters() if weights.ndim == 5):
        weights.data = weights.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def _train(network: ShapeRestorer, run: _Run, fabric: Fabric, progress: bool) -> None:
    settings, chosen = run.settings, run.settings.restorer
    optimizer = torch.optim.Adam(network.parameters(), lr=chosen.learning_rate)
    wrapped, optimizer = fabric.setup(network, optimizer)
    plan = LoopPlan.of("restorer", chosen, settings.machine, progress=progress)
    task = LoopTask(_DistanceBatches(run), _step(wrapped, run))
    train_loop(TrainingState(network, optimizer), plan, task, run_dir=run.folder, fabric=fabric)


def _step(network: nn.Module, run: _Run) -> Callable[[Tensor, int], RestorerTerms]:
    limits, spacing_mm = run.settings.warp, run.preparation.space.spacing_mm

    def step(batch: Tensor, iteration: int) -> RestorerTerms:
        """Warp the distances (B, S, I, J, K), spoil what they show, and compare."""
        generator = generator_for(run.settings.seed, Stage.RESTORER, iteration)
        warps = draw_affine_warps(limits, count=len(batch), generator=generator)
        distances_mm = warp_images(
            batch.float(), warps, spacing_mm=spacing_mm, coarsening=run.coarsening
        )
        # A map that grows takes its distances along.
        scales = torch.linalg.det(warps[:, :, :3]).pow(1 / 3).to(distances_mm)
        distances_mm = distances_mm * scales[:, None, None, None, None]
        spoilt = spoil(
            distances_mm,
            spacing_mm=run.coarse_mm,
            units_mm=run.bank.units_mm,
            generator=generator,
        )
        return restorer_terms(network, with_background(spoilt), clean_probabilities(distances_mm))

    return step


def _measure(network: ShapeRestorer, run: _Run) -> list[RestorationQuality]:
    """On held-out cases where there are any, else on the training cases."""
    preparation, structures = run.preparation, run.preparation.train.structures
    held_out = preparation.validation is not None
    cases = preparation.prepared_validation() if held_out else run.cases
    space = preparation.space
    whole = torch.eye(3, 4, dtype=torch.float64)[None]
    distances_mm = (
        warp_images(
            case_distances_mm(case, run.bank.window, len(structures), space.spacing_mm)[None],
            whole,
            spacing_mm=space.spacing_mm,
            coarsening=run.coarsening,
        )[0]
        for case in cases
    )
    return measure_restoration(
        RestorerModel(network.eval(), structures, space, run.settings.restorer.caution, ()),
        distances_mm,
        spacing_mm=run.coarse_mm,
        units_mm=run.bank.units_mm,
        held_out=held_out,
        generator=generator_for(run.settings.seed, Stage.RESTORER, RESTORATION_QUALITY),
    )


def _write(network: ShapeRestorer, run: _Run, quality: list[RestorationQuality]) -> None:
    weights = write_weights(network, run.folder, "last")
    train, chosen = run.preparation.train, run.settings.restorer
    description = RestorerDescription(
        made_by=f"shapeguide {shapeguide.__version__}",
        structures=train.structures,
        space=run.preparation.space,
        channels=chosen.channels,
        weights={"last": weights},
        coarsening=run.coarsening,
        window=run.bank.spatial_shape,
        offsets=run.bank.offsets,
        caution=chosen.caution,
        quality=tuple(row.as_row() for row in quality),
        notes={
            "dataset": train.name,
            "training_cases": len(train),
            "iterations": chosen.iterations,
        },
    )
    write_description(description, run.folder)

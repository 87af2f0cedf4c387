"""The stage before the guidance of ACNN and SRN: train an autoencoder of label maps."""

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
from shapeguide.errors import ConfigError
from shapeguide.geometry.warp import draw_affine_warps, warp_classes
from shapeguide.models.autoencoder_model import (
    AutoencoderDescription,
    AutoencoderModel,
    build_autoencoder,
    load_autoencoder,
)
from shapeguide.models.mask_autoencoder import MaskAutoencoder
from shapeguide.models.model_files import write_description, write_weights
from shapeguide.training.cohort import Preparation, prepare
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.engine.loop import LoopPlan, LoopTask, train_loop
from shapeguide.training.engine.run_folder import claim_run_folder
from shapeguide.training.engine.seeds import (
    RECONSTRUCTION_QUALITY,
    Stage,
    first_weights,
    generator_for,
)
from shapeguide.training.settings.groups import TrainSettings, resolve
from shapeguide.training.stages.autoencoder_step import (
    AutoencoderTerms,
    ReconstructionQuality,
    acnn_terms,
    measure_reconstruction,
    srn_terms,
)
from shapeguide.training.stages.segmentation_batches import CaseBatches, one_hot
from shapeguide.vocabulary import AutoencoderName

logger = logging.getLogger(__name__)


def train_autoencoder(
    dataset: Dataset,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    progress: bool = True,
) -> AutoencoderModel:
    """Train the autoencoder of label maps that `acnn` or `srn` guidance needs.

    It sees whole label maps in the working space, all structures at once, under random affine
    warps. The same call on the folder of a killed run resumes it; on that of a finished one it
    loads the result.

    Args:
        dataset: Cases with label maps and structures.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset; their guidance is `acnn` or `srn`.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, or the guidance is another one.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(run_dir), resolve(settings)
    flavour = _flavour(settings)
    preparation = prepare(dataset, settings)
    if claim_run_folder(
        folder,
        stage="autoencoder",
        settings=settings,
        train=preparation.train,
        validation=preparation.validation,
    ):
        return load_autoencoder(folder)
    run = _Run(folder, flavour, settings, preparation)
    fabric = start_fabric(settings.machine)
    network = _new_network(run)
    _train(network, run, fabric, progress)
    quality = _measure(network, run, fabric.device)
    for row in quality:
        (logger.warning if row.failed else logger.info)("%s autoencoder, %s", flavour, row)
    _write(network, run, quality)
    return load_autoencoder(folder)


@dataclass(frozen=True)
class _Run:
    """What every part of one training refers to."""

    folder: Path
    flavour: AutoencoderName
    settings: TrainSettings
    preparation: Preparation

    @property
    def classes(self) -> int:
        """Structures and the background."""
        return 1 + len(self.preparation.train.structures)


def _flavour(settings: TrainSettings) -> AutoencoderName:
    if settings.guidance == "acnn" or settings.guidance == "srn":
        return settings.guidance
    raise ConfigError(
        f"an autoencoder is trained for the guidance 'acnn' or 'srn', found "
        f"{settings.guidance!r}; change the guidance of the settings"
    )


class _ClassBatches(TorchDataset[Tensor]):
    """Item n holds the class indices (B, I, J, K) of iteration n, in the order of `CaseBatches`."""

    def __init__(self, cases: PreparedCases, *, batch_size: int, seed: int) -> None:
        self.cases = cases
        self.order = CaseBatches(cases, batch_size=batch_size, seed=seed)

    def __getitem__(self, iteration: int) -> Tensor:
        chosen = self.order.indices(iteration)
        return torch.stack([torch.from_numpy(self.cases[index].classes) for index in chosen])


def _new_network(run: _Run) -> MaskAutoencoder:
    with first_weights(generator_for(run.settings.seed, Stage.AUTOENCODER)):
        return build_autoencoder(
            run.flavour,
            classes=run.classes,
            spatial_shape=run.preparation.space.spatial_shape,
            channels=run.settings.autoencoder.channels,
            code_length=run.settings.autoencoder.code_length,
        )


def _train(network: MaskAutoencoder, run: _Run, fabric: Fabric, progress: bool) -> None:
    settings, chosen = run.settings, run.settings.autoencoder
    optimizer = torch.optim.Adam(network.parameters(), lr=chosen.learning_rate)
    wrapped, optimizer = fabric.setup(network, optimizer)
    cases = run.preparation.prepared_train()
    cases.prepare_all()
    title = f"{run.flavour} autoencoder"
    plan = LoopPlan.of(title, chosen, settings.machine, progress=progress)
    batches = _ClassBatches(cases, batch_size=chosen.batch_size, seed=settings.seed)
    task = LoopTask(batches, _step(wrapped, run))
    train_loop(TrainingState(network, optimizer), plan, task, run_dir=run.folder, fabric=fabric)


def _step(network: nn.Module, run: _Run) -> Callable[[Tensor, int], AutoencoderTerms]:
    limits, spacing_mm = run.settings.warp, run.preparation.space.spacing_mm

    def step(batch: Tensor, iteration: int) -> AutoencoderTerms:
        """Warp class indices (B, I, J, K), and reproduce or restore them."""
        generator = generator_for(run.settings.seed, Stage.AUTOENCODER, iteration)
        warps = draw_affine_warps(limits, count=len(batch), generator=generator)
        warped = warp_classes(batch, warps, spacing_mm=spacing_mm)
        reference = one_hot(warped, run.classes)
        if run.flavour == "acnn":
            return acnn_terms(network, reference)
        return srn_terms(network, reference, generator=generator)

    return step


def _measure(network: nn.Module, run: _Run, device: torch.device) -> list[ReconstructionQuality]:
    """On held-out cases where there are any, else on the training cases."""
    preparation = run.preparation
    held_out = preparation.validation is not None
    cases = preparation.prepared_validation() if held_out else preparation.prepared_train()
    return measure_reconstruction(
        network,
        (torch.from_numpy(case.classes).to(device) for case in cases),
        [structure.name for structure in preparation.train.structures],
        flavour=run.flavour,
        held_out=held_out,
        generator=generator_for(run.settings.seed, Stage.AUTOENCODER, RECONSTRUCTION_QUALITY),
    )


def _write(network: MaskAutoencoder, run: _Run, quality: list[ReconstructionQuality]) -> None:
    weights = write_weights(network, run.folder, "last")
    train, chosen = run.preparation.train, run.settings.autoencoder
    description = AutoencoderDescription(
        made_by=f"shapeguide {shapeguide.__version__}",
        structures=train.structures,
        space=run.preparation.space,
        channels=chosen.channels,
        weights={"last": weights},
        flavour=run.flavour,
        code_length=chosen.code_length,
        quality=tuple(row.as_row() for row in quality),
        notes={
            "dataset": train.name,
            "training_cases": len(train),
            "iterations": chosen.iterations,
        },
    )
    write_description(description, run.folder)

"""The stage before the segmentation: train the shape restorer, on label maps alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from shapeguide.data.dataset import Dataset
from shapeguide.data.prepare import PreparedLabelMap
from shapeguide.errors import ConfigError
from shapeguide.geometry.warp import warp_images
from shapeguide.models.restorer_model import RestorerDescription, RestorerModel, load_restorer
from shapeguide.models.shape_restorer import ShapeRestorer
from shapeguide.training.cohort import Cohort, cohort_of
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.loop import LoopTask
from shapeguide.training.engine.seeds import (
    RESTORATION_QUALITY,
    Stream,
    first_weights,
    generator_for,
)
from shapeguide.training.settings.groups import RestorerSettings, TrainSettings
from shapeguide.training.settings.presets import resolve
from shapeguide.training.stages.distance_bank import DistanceBank, case_distances_mm, fill_bank
from shapeguide.training.stages.restorer_step import (
    RestorerBatches,
    RestorerTerms,
    SpoiltMaps,
    coarse_mm,
    measure_restoration,
    restorer_terms,
)
from shapeguide.training.stages.stage import run_stage, stated, told
from shapeguide.vocabulary import Precision


def train_restorer(
    dataset: Dataset | Cohort,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    progress: bool = True,
) -> RestorerModel:
    """Train the restorer that completes and cleans the predictions of a segmenter.

    It sees label maps alone, under random affine warps and then spoilt. The same call on the
    folder of a killed run resumes it; on that of a finished one it loads the result.

    Args:
        dataset: Cases with label maps and structures, or a cohort of them; one case is enough.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, the settings train no restorer, or the
            data take more memory than they allow.
        DataError: If a case cannot be used.
    """
    settings = resolve(settings)
    stage = RestorerStage(cohort_of(dataset, settings), settings)
    return run_stage(stage, run_dir=run_dir, progress=progress)


@dataclass(frozen=True, eq=False)
class RestorerStage:
    """A restorer of label maps."""

    cohort: Cohort
    settings: TrainSettings

    name: ClassVar[str] = "restorer"
    title: ClassVar[str] = "restorer"
    precision: ClassVar[Precision | None] = None
    average_decay: ClassVar[float] = 0.0
    validate_every: ClassVar[int] = 0

    @property
    def course(self) -> RestorerSettings:
        """Its own settings."""
        return self.settings.restorer

    @cached_property
    def bank(self) -> DistanceBank:
        """Distances of all training cases, and of the label pool."""
        return fill_bank(
            self.cohort.shapes,
            len(self.cohort.structures),
            memory_limit_bytes=self.settings.data.memory_limit_bytes,
        )

    @property
    def coarsening(self) -> int:
        """Edge length, in working voxels, of the blocks that the restorer works on."""
        return max(1, round(self.course.spacing_mm / min(self.cohort.space.spacing_mm)))

    def check(self) -> None:
        """Refuse settings that train no restorer."""
        if self.course.iterations < 1:
            raise ConfigError(
                "restorer.iterations is 0, which trains no restorer; raise it, or leave the stage "
                "out"
            )

    def learner(self) -> nn.Module:
        """A network on the coarse grid of the training; its weights are those of the restorer."""
        with first_weights(generator_for(self.settings.seed, Stream.RESTORER)):
            return ShapeRestorer(self.cohort.classes, channels=self.course.channels, coarsening=1)

    def task(self, wrapped: nn.Module, state: TrainingState, folder: Path) -> LoopTask:
        """It gives back clean maps for spoilt ones."""

        def step(batch: SpoiltMaps, iteration: int) -> RestorerTerms:
            return restorer_terms(wrapped(batch.spoilt), batch.clean)

        batches = RestorerBatches(self.bank, self.settings, coarsening=self.coarsening)
        return LoopTask(batches, step)

    def describe(self, state: TrainingState, folder: Path) -> RestorerDescription:
        """Measured on held-out cases where there are any."""
        cohort, bank, chosen = self.cohort, self.bank, self.course
        quality = measure_restoration(
            RestorerModel(state.network, cohort.structures, cohort.space, chosen.caution, ()),
            (self._coarse_distances_mm(case) for case in cohort.measured_cases.label_maps()),
            spacing_mm=coarse_mm(bank.spacing_mm, self.coarsening),
            units_mm=bank.units_mm,
            held_out=cohort.held_out,
            generator=generator_for(self.settings.seed, Stream.RESTORER, RESTORATION_QUALITY),
        )
        return RestorerDescription(
            **stated(self, state.network, folder),
            channels=chosen.channels,
            coarsening=self.coarsening,
            window=bank.spatial_shape,
            offsets=bank.offsets,
            caution=chosen.caution,
            quality=told(quality, self.title),
        )

    def load(self, folder: Path) -> RestorerModel:
        """The model of a finished run."""
        return load_restorer(folder)

    def _coarse_distances_mm(self, case: PreparedLabelMap) -> Tensor:
        """Distances of a case as they are, on the grid of the blocks."""
        spacing_mm, structures = self.bank.spacing_mm, len(self.cohort.structures)
        distances_mm = case_distances_mm(case, self.bank.window, structures, spacing_mm)
        still = torch.eye(3, 4, dtype=torch.float64)[None]
        return warp_images(
            distances_mm[None], still, spacing_mm=spacing_mm, coarsening=self.coarsening
        )[0]

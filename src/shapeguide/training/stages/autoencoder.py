"""The stage before the guidance of ACNN and SRN: train an autoencoder of label maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.models.autoencoder_model import (
    AutoencoderDescription,
    AutoencoderModel,
    build_autoencoder,
    load_autoencoder,
)
from shapeguide.training.cohort import Cohort, check_network_size, cohort_of
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.loop import LoopTask
from shapeguide.training.engine.seeds import (
    RECONSTRUCTION_QUALITY,
    Stream,
    first_weights,
    generator_for,
)
from shapeguide.training.settings.groups import AutoencoderSettings, TrainSettings
from shapeguide.training.settings.presets import resolve
from shapeguide.training.stages.autoencoder_step import (
    AutoencoderBatches,
    AutoencoderStep,
    measure_reconstruction,
)
from shapeguide.training.stages.stage import run_stage, stated, told
from shapeguide.vocabulary import AutoencoderName, Precision


def train_autoencoder(
    dataset: Dataset | Cohort,
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
        dataset: Cases with label maps and structures, or a cohort of them.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset; their guidance is `acnn` or `srn`.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, or the guidance is another one.
        DataError: If a case cannot be used.
    """
    settings = resolve(settings)
    stage = AutoencoderStage(cohort_of(dataset, settings), settings)
    return run_stage(stage, run_dir=run_dir, progress=progress)


@dataclass(frozen=True, eq=False)
class AutoencoderStage:
    """An autoencoder of label maps."""

    cohort: Cohort
    settings: TrainSettings

    name: ClassVar[str] = "autoencoder"
    precision: ClassVar[Precision | None] = None
    average_decay: ClassVar[float] = 0.0
    validate_every: ClassVar[int] = 0

    @property
    def flavour(self) -> AutoencoderName:
        """Whose autoencoder it is.

        Raises:
            ConfigError: If the settings are guided by none.
        """
        guidance = self.settings.guidance
        if guidance == "acnn" or guidance == "srn":
            return guidance
        raise ConfigError(
            f"an autoencoder is trained for the guidance 'acnn' or 'srn', found {guidance!r}; "
            "change the guidance of the settings"
        )

    @property
    def title(self) -> str:
        """What progress bar and errors call it."""
        return f"{self.flavour} autoencoder"

    @property
    def course(self) -> AutoencoderSettings:
        """Its own settings."""
        return self.settings.autoencoder

    def check(self) -> None:
        """Refuse settings that need no autoencoder, or one that is too large."""
        _ = self.flavour
        cohort = self.cohort
        check_network_size(self.course.channels, cohort.classes, cohort.space.spatial_shape)

    def learner(self) -> nn.Module:
        """The autoencoder."""
        with first_weights(generator_for(self.settings.seed, Stream.AUTOENCODER)):
            return build_autoencoder(
                self.flavour,
                classes=self.cohort.classes,
                spatial_shape=self.cohort.space.spatial_shape,
                channels=self.course.channels,
                code_length=self.course.code_length,
            )

    def task(self, wrapped: nn.Module, state: TrainingState, folder: Path) -> LoopTask:
        """It reproduces label maps, or restores corrupted ones."""
        batches = AutoencoderBatches(self.cohort, self.settings, self.flavour)
        return LoopTask(batches, AutoencoderStep(wrapped, self.flavour))

    def describe(self, state: TrainingState, folder: Path) -> AutoencoderDescription:
        """Measured on held-out cases where there are any."""
        device = next(state.network.parameters()).device
        label_maps = self.cohort.measured_cases.label_maps()
        quality = measure_reconstruction(
            state.network,
            (torch.from_numpy(case.classes).to(device) for case in label_maps),
            self.cohort.names,
            flavour=self.flavour,
            held_out=self.cohort.held_out,
            generator=generator_for(self.settings.seed, Stream.AUTOENCODER, RECONSTRUCTION_QUALITY),
        )
        return AutoencoderDescription(
            **stated(self, state.network, folder),
            channels=self.course.channels,
            flavour=self.flavour,
            code_length=self.course.code_length,
            quality=told(quality, self.title),
        )

    def load(self, folder: Path) -> AutoencoderModel:
        """The model of a finished run."""
        return load_autoencoder(folder)

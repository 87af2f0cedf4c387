"""Train the shape network on label maps, calibrate it, and see whether it collapsed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.models.quality import ShapeQuality
from shapeguide.models.shape_model import ShapeModel, ShapeModelDescription, load_shape_network
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.cohort import Cohort, cohort_of
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.loop import LoopTask
from shapeguide.training.engine.seeds import (
    SHAPE_CALIBRATION,
    SHAPE_QUALITY,
    Stream,
    first_weights,
    generator_for,
)
from shapeguide.training.settings.groups import ShapeSettings, TrainSettings
from shapeguide.training.settings.presets import resolve
from shapeguide.training.shape.mask_bank import MaskBank, mask_bank
from shapeguide.training.shape.recipes import batches_of, check_batch, learner_of, step_of
from shapeguide.training.shape.separation import mean_distance_between_cases, measure_quality
from shapeguide.training.stages.stage import run_stage, stated, told
from shapeguide.vocabulary import Precision

SMALLEST_POPULATION = 2
LARGEST_POPULATION = 64
"""Cases that the pose is fitted to, at most; they are taken at equal steps."""


def train_shape(
    dataset: Dataset | Cohort,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    progress: bool = True,
) -> ShapeModel:
    """Train a shape network on the label maps of a dataset.

    The same call on the folder of a killed run resumes it; on that of a finished one it loads the
    result.

    Args:
        dataset: Cases with label maps and structures, or a cohort of them.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, there is only one training case, or the
            objective needs more cases or larger batches.
        DataError: If a case cannot be used.
    """
    settings = resolve(settings)
    check_batch(settings.shape)
    stage = ShapeStage(cohort_of(dataset, settings), settings)
    return run_stage(stage, run_dir=run_dir, progress=progress)


@dataclass(frozen=True, eq=False)
class ShapeStage:
    """A shape network."""

    cohort: Cohort
    settings: TrainSettings

    name: ClassVar[str] = "shape"
    title: ClassVar[str] = "shape stage"
    precision: ClassVar[Precision | None] = "fp32"  # poses and distances want it
    average_decay: ClassVar[float] = 0.0
    validate_every: ClassVar[int] = 0

    @property
    def course(self) -> ShapeSettings:
        """Its own settings."""
        return self.settings.shape

    @cached_property
    def bank(self) -> MaskBank:
        """Masks of the training cases and of the label pool."""
        return mask_bank(self.cohort.shapes, self.settings)

    @cached_property
    def network(self) -> ShapeNetwork:
        """The network to train, its pose fitted to the training cases."""
        return self.untrained()

    def untrained(self) -> ShapeNetwork:
        """A new network of these settings and this seed, its pose fitted."""
        names = self.cohort.names
        with first_weights(generator_for(self.settings.seed, Stream.SHAPE)):
            network = ShapeNetwork(
                names,
                channels=self.course.channels,
                pose=self.course.pose,
                canonical_shape=self.course.canonical_shape,
                trunks=len(names) if self.course.one_per_structure else 1,
                normalised=self.course.normalised,
            )
        network.fit_pose(_population(self.bank), spacing_mm=self.bank.spacing_mm)
        return network

    def check(self) -> None:
        """Refuse too small a batch, or a population of one."""
        check_batch(self.course)
        train, count = self.cohort.train, len(self.cohort.shapes)
        if count < SMALLEST_POPULATION:
            raise ConfigError(
                f"{train.name}: the shape stage needs label maps of at least "
                f"{SMALLEST_POPULATION} cases to learn how people differ, found {count}; add "
                "cases or a label pool, give a shape network trained on others, or train without "
                "guidance"
            )

    def learner(self) -> nn.Module:
        """The network and what its objective trains along with it."""
        return learner_of(
            self.network,
            self.course,
            spacing_mm=self.bank.spacing_mm,
            seed=self.settings.seed,
        )

    def task(self, wrapped: nn.Module, state: TrainingState, folder: Path) -> LoopTask:
        """The objective that the settings name."""
        batches = batches_of(self.network, self.course, bank=self.bank, seed=self.settings.seed)
        return LoopTask(batches, step_of(wrapped, self.course))

    def describe(self, state: TrainingState, folder: Path) -> ShapeModelDescription:
        """Calibrated by the training cases, and measured."""
        quality = told(self._calibrated_quality(), self.title)  # first: weights hold the unit
        return ShapeModelDescription(
            **stated(self, self.network, folder),
            channels=self.course.channels,
            objective=self.course.objective,
            pose=self.course.pose,
            canonical_shape=self.course.canonical_shape,
            trunks=len(self.network.trunks),
            normalised=self.course.normalised,
            quality=quality,
        )

    def load(self, folder: Path) -> ShapeModel:
        """The model of a finished run."""
        return load_shape_network(folder)

    def _calibrated_quality(self) -> list[ShapeQuality]:
        """Set the calibration, then measure on held-out cases where they suffice.

        They do for a structure that two people among them have; others are measured in training
        cases.
        """
        network, pairs = self.network, self.course.quality_pairs
        bank = self.bank.to(network.calibration.device)
        generator = generator_for(self.settings.seed, Stream.SHAPE, SHAPE_CALIBRATION)
        network.calibration.copy_(
            mean_distance_between_cases(network, bank, pairs=pairs, generator=generator)
        )
        quality: list[ShapeQuality] = []
        if len(self.cohort.validation_cases) > 1:
            others = mask_bank(self.cohort.validation_cases, self.settings).to(bank.masks.device)
            quality = self._measure(others, held_out=True)
            if all(row.measured for row in quality):
                return quality
        own = self._measure(bank, held_out=False)
        pairs_of_rows = zip(quality or own, own, strict=True)
        return [row if row.measured else seen for row, seen in pairs_of_rows]

    def _measure(self, bank: MaskBank, *, held_out: bool) -> list[ShapeQuality]:
        """Figures of the network, beside what it said of the same pairs before it was trained."""
        before = self.untrained().to(bank.masks.device).eval()
        first, found = (
            measure_quality(
                network,
                bank,
                pairs=self.course.quality_pairs,
                generator=generator_for(self.settings.seed, Stream.SHAPE, SHAPE_QUALITY),
                held_out=held_out,
            )
            for network in (before, self.network)
        )
        return [
            replace(row, different_before=old.different)
            for row, old in zip(found, first, strict=True)
        ]


def _population(bank: MaskBank) -> Tensor:
    """Masks of training cases, at most so many as the pose is fitted to."""
    count = min(len(bank.masks), LARGEST_POPULATION)
    return bank.masks[torch.linspace(0, len(bank.masks) - 1, count).round().long()]

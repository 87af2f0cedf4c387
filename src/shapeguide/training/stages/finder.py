"""The first stage on whole scans: train the finder, which says where each structure is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from shapeguide.data.dataset import Dataset
from shapeguide.data.working_space import WorkingSpace, choose_working_space
from shapeguide.errors import ConfigError
from shapeguide.losses import LossTerms
from shapeguide.models.finder_model import Finder, FinderDescription, load_finder
from shapeguide.models.finder_network import FinderNetwork, finder_divisor
from shapeguide.training.cohort import Cohort, check_network_size, cohort_of
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.loop import LoopTask
from shapeguide.training.engine.seeds import Stream, first_weights, generator_for
from shapeguide.training.settings.groups import FinderSettings, TrainSettings
from shapeguide.training.settings.presets import resolve
from shapeguide.training.stages.finder_step import finder_terms, measure_finding
from shapeguide.training.stages.finder_views import FinderBatches, FramedCases, Views, shown
from shapeguide.training.stages.stage import run_stage, stated, told
from shapeguide.vocabulary import Precision


def train_finder(
    dataset: Dataset | Cohort,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    progress: bool = True,
) -> Finder:
    """Train the finder, which looks at a whole scan coarsely and says where each structure is.

    The same call on the folder of a killed run resumes it; on that of a finished one it loads the
    result.

    Args:
        dataset: Whole scans with label maps and structures, or a cohort of them in any space: the
            finder has its own, and the same cases are held out.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, or the settings train no finder.
        DataError: If a case cannot be used.
    """
    settings = resolve(settings)
    stage = finder_stage(cohort_of(dataset, settings), settings)
    return run_stage(stage, run_dir=run_dir, progress=progress)


def finder_space(cohort: Cohort, settings: FinderSettings) -> WorkingSpace:
    """The coarse space of the finder, which holds every scan of a cohort whole.

    Raises:
        GeometryError: If one scan needs more than 512^3 voxels to be held whole.
    """
    i, j, k = (max(settings.spacing_mm, own) for own in cohort.space.spacing_mm)
    return choose_working_space(
        [*cohort.train, *(cohort.validation or ())],
        spacing_mm=(i, j, k),
        centre="volume",
        normalisation=cohort.space.normalisation,
        divisor=finder_divisor(settings.channels),
    )


@dataclass(frozen=True, eq=False)
class FinderStage:
    """A finder of all structures of a cohort, in the finder's space."""

    cohort: Cohort
    settings: TrainSettings

    name: ClassVar[str] = "finder"
    title: ClassVar[str] = "finder"
    precision: ClassVar[Precision | None] = None
    average_decay: ClassVar[float] = 0.0
    validate_every: ClassVar[int] = 0

    @property
    def course(self) -> FinderSettings:
        """Its own settings."""
        return self.settings.finder

    @cached_property
    def framed(self) -> FramedCases:
        """The training cases as they are shown."""
        return FramedCases(self.cohort.train_cases, divisor=finder_divisor(self.course.channels))

    @cached_property
    def smallest_mm3(self) -> tuple[float, ...]:
        """Volume of each structure in the training case that has least of it."""
        counts = np.array(
            [
                np.bincount(case.classes.ravel(), minlength=self.cohort.classes)[1:]
                for case in self.cohort.train_cases.label_maps()
            ],
            dtype=np.float64,
        )
        counts[counts == 0] = np.inf
        smallest = counts.min(axis=0)
        # What no training case has, a held-out one has; one voxel of it is something.
        smallest[np.isinf(smallest)] = 1.0
        volumes: list[float] = (smallest * np.prod(self.cohort.space.spacing_mm)).tolist()
        return tuple(volumes)

    def check(self) -> None:
        """Refuse a network that would be too large to be loaded again."""
        check_network_size(
            self.course.channels, self.cohort.classes, self.cohort.space.spatial_shape
        )

    def learner(self) -> nn.Module:
        """An untrained network."""
        with first_weights(generator_for(self.settings.seed, Stream.FINDER)):
            return FinderNetwork(self.cohort.classes, channels=self.course.channels)

    def task(self, wrapped: nn.Module, state: TrainingState, folder: Path) -> LoopTask:
        """It segments whole scans coarsely, however they are turned, moved and cut."""
        spacing_mm = self.cohort.space.spacing_mm
        self.cohort.train_cases.prepare_all()

        def step(views: Views, iteration: int) -> LossTerms:
            images, classes = shown(views, spacing_mm=spacing_mm)
            return finder_terms(wrapped(images), classes)

        return LoopTask(FinderBatches(self.framed, self.settings), step)

    def describe(self, state: TrainingState, folder: Path) -> FinderDescription:
        """Measured on held-out cases where there are any."""
        cohort = self.cohort
        finder = Finder(
            state.network,
            cohort.structures,
            cohort.space,
            self.smallest_mm3,
            quality=(),
            shown_shape=self.framed.spatial_shape,
            divisor=finder_divisor(self.course.channels),
        )
        quality = measure_finding(
            finder, cohort.measured_cases, held_out=cohort.held_out, seed=self.settings.seed
        )
        return FinderDescription(
            **stated(self, state.network, folder),
            channels=self.course.channels,
            smallest_mm3=self.smallest_mm3,
            quality=told(quality, self.title),
            shown_shape=self.framed.spatial_shape,
        )

    def load(self, folder: Path) -> Finder:
        """The model of a finished run."""
        return load_finder(folder, device=self.settings.machine.device)


def finder_stage(cohort: Cohort, settings: TrainSettings) -> FinderStage:
    """The stage of the cases of a cohort in any space.

    Raises:
        ConfigError: If the settings train no finder.
        GeometryError: If one scan needs more than 512^3 voxels to be held whole.
    """
    if settings.finder.iterations < 1:
        raise ConfigError(
            "finder.iterations is 0, which trains no finder; raise it, or leave the stage out"
        )
    own = cohort.in_space(
        finder_space(cohort, settings.finder), memory_limit_bytes=settings.data.memory_limit_bytes
    )
    return FinderStage(own, settings)

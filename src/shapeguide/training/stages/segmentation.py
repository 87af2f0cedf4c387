"""Train the segmenter, on Dice and then on Dice and a guide."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from torch import nn

from shapeguide.data.dataset import Dataset
from shapeguide.data.sides import mirrored_classes
from shapeguide.geometry.nesting import made_of
from shapeguide.losses import GuideLoss
from shapeguide.machine import choose_device, memory_bytes
from shapeguide.models.deep_supervision import (
    deeply_supervised,
    tensors_of_segmenter,
    trained_segmenter,
)
from shapeguide.models.finder_model import FINDER_FOLDER
from shapeguide.models.members import folder_of_member
from shapeguide.models.memory import LIKELY_OVER_LEAST, step_bytes
from shapeguide.models.model_files import WEIGHTS_FILES, write_weights
from shapeguide.models.segmenter import (
    Segmenter,
    SegmenterDescription,
    build_segmenter,
    held_channels,
    load_member,
    load_segmenter,
    state_members,
)
from shapeguide.storage.digest import digest_now
from shapeguide.training.cohort import Cohort, cohort_of
from shapeguide.training.engine.checkpoint import TrainingState
from shapeguide.training.engine.loop import LoopTask
from shapeguide.training.engine.processes import on_first
from shapeguide.training.engine.run_folder import BRANCH_FILE, branch, check_run_folder
from shapeguide.training.engine.seeds import Stream, first_weights, generator_for
from shapeguide.training.guides import Guide, guide_loss, guided_by
from shapeguide.training.settings.groups import (
    SegmentationSettings,
    SuitedSegmentation,
    TrainSettings,
)
from shapeguide.training.settings.presets import resolve
from shapeguide.training.stages.finder import train_finder
from shapeguide.training.stages.segmentation_batches import SegmentationBatches
from shapeguide.training.stages.segmentation_step import SegmentationStep, validation_dice
from shapeguide.training.stages.stage import run_stage, stated
from shapeguide.vocabulary import Precision

logger = logging.getLogger(__name__)


def train_segmenter(
    dataset: Dataset | Cohort,
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
    same order. Several members see the same cases under the same guide, each by its own seed, and
    may be added to a finished run.

    Args:
        dataset: Cases with label maps and structures, or a cohort of them.
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
    settings, folder = guided_by(guide, resolve(settings)), Path(run_dir)
    source = None if branch_from is None else Path(branch_from)
    cohort = found_cohort(dataset, run_dir=folder, settings=settings, progress=progress)
    for number in range(1, settings.members + 1):
        own = settings.changed(seed=settings.seed + number - 1)
        own_source = None if source is None else folder_of_member(source, number)
        stage = SegmentationStage(cohort, own, guide, own_source, number)
        run_stage(stage, run_dir=folder_of_member(folder, number), progress=progress)
    on_first(lambda: state_members(folder, settings.members))
    return load_segmenter(folder, device=settings.machine.device)


def found_cohort(
    dataset: Dataset | Cohort, *, run_dir: str | Path, settings: TrainSettings, progress: bool
) -> Cohort:
    """A cohort as `cohort_of` makes it, with the finder of its regions where it has any.

    The finder is trained in the folder `finder` of the run, unless it is there already.

    Raises:
        ConfigError: If the folder belongs to another run, or settings and data do not fit.
        DataError: If a case cannot be used.
    """
    cohort = cohort_of(dataset, settings)
    if settings.segmentation.mirrored:
        mirrored_classes(cohort.names)
    if cohort.regions is None or cohort.finder is not None:
        return cohort
    on_first(lambda: check_run_folder(Path(run_dir)))
    finder = train_finder(
        cohort, run_dir=Path(run_dir) / FINDER_FOLDER, settings=settings, progress=progress
    )
    return cohort.found_by(finder)


def least_step_bytes(settings: TrainSettings, spatial_shape: tuple[int, int, int]) -> int:
    """Memory that a training step takes, at least, unless activations are computed again."""
    course = settings.segmentation
    suited = course.suited(spatial_shape)
    held = held_channels(suited.segmenter, course.channels)
    return step_bytes(held, spatial_shape, suited.batch_size)


def recomputes(settings: TrainSettings, spatial_shape: tuple[int, int, int]) -> bool:
    """Whether activations are computed again in the backward pass.

    They are where the settings say so, or a step might take more memory than the machine has.
    """
    machine = settings.machine
    there = memory_bytes(choose_device(machine.device))
    likely = LIKELY_OVER_LEAST * least_step_bytes(settings, spatial_shape)
    return machine.activation_checkpoints or (there is not None and likely > there)


@dataclass(frozen=True, eq=False)
class SegmentationStage:
    """A segmenter and what guides it."""

    cohort: Cohort
    settings: TrainSettings
    guide: Guide | None = None
    branch_from: Path | None = None
    number: int = 1
    """Which member of a run it is; its settings hold its own seed."""

    name: ClassVar[str] = "segmentation"
    precision: ClassVar[Precision | None] = None

    @property
    def title(self) -> str:
        """What progress bar and errors call it."""
        title = "plain segmenter" if self.settings.guide is None else "guided segmenter"
        members = self.settings.members
        return title if members == 1 else f"{title} {self.number} of {members}"

    @property
    def course(self) -> SegmentationSettings:
        """Its own settings, with the iterations that suit the size of what is seen at once."""
        return self.settings.segmentation.with_iterations_for(self.cohort.space.spatial_shape)

    @property
    def suited(self) -> SuitedSegmentation:
        """What suits the size of what is seen at once."""
        return self.settings.segmentation.suited(self.cohort.space.spatial_shape)

    @property
    def average_decay(self) -> float:
        """Share that the average of the weights keeps of itself."""
        return self.course.average_decay

    @property
    def validate_every(self) -> int:
        """Iterations between two validations."""
        return self.course.validate_every

    @cached_property
    def guiding(self) -> GuideLoss | None:
        """The loss that guides."""
        return guide_loss(self.guide, self.cohort, self.settings)

    def check(self) -> None:
        """Refuse cases without images, and a guide that does not fit."""
        self.cohort.train.require_images()
        _ = self.guiding

    def learner(self) -> nn.Module:
        """The segmenter, with the heads of its lower resolutions where they are supervised too."""
        with first_weights(generator_for(self.settings.seed, Stream.SEGMENTATION)):
            segmenter = build_segmenter(
                self.suited.segmenter,
                self.course.channels,
                classes=self.cohort.classes,
                image_channels=len(self.cohort.train.channels),
                activation_checkpoints=recomputes(self.settings, self.cohort.space.spatial_shape),
            )
            return deeply_supervised(segmenter) if self.course.deep_supervision else segmenter

    def task(self, wrapped: nn.Module, state: TrainingState, folder: Path) -> LoopTask:
        """Dice first, then Dice and the guide; validated on held-out cases where there are any."""
        source = self.branch_from
        if source is not None:
            on_first(lambda: branch(source, folder))
        cohort, device = self.cohort, next(state.network.parameters()).device
        cohort.train_cases.prepare_all()
        guiding = self.guiding.to(device) if self.guiding else None
        batches = SegmentationBatches(cohort.train_cases, self.settings)
        settings = self.settings.changed(segmentation=self.course)
        context = None if cohort.train_cases.places is None else batches.context
        wholes = tuple(made_of(whole, cohort.structures) for whole in cohort.train.wholes)
        return LoopTask(
            batches,
            SegmentationStep(wrapped, cohort.space.spacing_mm, settings, guiding, context, wholes),
            validate=self._validation(wrapped, state) if cohort.held_out else None,
            keep_best=lambda: _keep_best(state, folder),
            milestones={self.suited.dice_iterations: folder / BRANCH_FILE},
        )

    def describe(self, state: TrainingState, folder: Path) -> SegmenterDescription:
        """The last weights, the best and the averaged ones, where there are such."""
        found = stated(
            self,
            trained_segmenter(state.network),
            folder,
            guidance=self.settings.guidance,
            best_iteration=state.best_iteration,
            best_score=state.best_score,
        )
        if state.best_iteration is not None:
            found["weights"]["best"] = digest_now(folder / WEIGHTS_FILES["best"])
        if state.average is not None:
            found["weights"]["average"] = write_weights(
                tensors_of_segmenter(state.network, state.average.tensors), folder, "average"
            )
        return SegmenterDescription(
            **found,
            segmenter=self.suited.segmenter,
            channels=self.course.channels,
            regions=self.cohort.regions,
            # The others follow: until they are there, the run is not finished.
            members=self.settings.members if self.number == 1 else 1,
            image_channels=self.cohort.train.channels,
            wholes=self.cohort.train.wholes,
        )

    def load(self, folder: Path) -> nn.Module:
        """The network of the finished member, by itself."""
        return load_member(folder)

    def _validation(
        self, network: nn.Module, state: TrainingState
    ) -> Callable[[], dict[str, float]]:
        def validate() -> dict[str, float]:
            found = validation_dice(network, self.cohort.validation_cases, self.cohort.names)
            each = ", ".join(f"{name} {found[f'dice/{name}']:.3f}" for name in self.cohort.names)
            logger.info(
                "%s, iteration %d: Dice %.3f of %d validation cases (%s)",
                self.title, state.iteration, found["score"],
                len(self.cohort.validation or ()), each,
            )  # fmt: skip
            return found

        return validate


def _keep_best(state: TrainingState, folder: Path) -> None:
    write_weights(trained_segmenter(state.network), folder, "best")

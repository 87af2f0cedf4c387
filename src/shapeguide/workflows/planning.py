"""Plan a training before an hour is spent on it: a few steps of each stage are taken and timed."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.machine import choose_device, memory_bytes
from shapeguide.models.autoencoder_model import AutoencoderModel
from shapeguide.models.memory import RECOMPUTED_SHARE
from shapeguide.models.shape_model import ShapeModel, load_shape_network
from shapeguide.training.cohort import Cohort, cohort_of
from shapeguide.training.durations import in_words, seconds_of, written
from shapeguide.training.guides import Guide, guided_by
from shapeguide.training.placing import described, undivided
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import resolve
from shapeguide.training.stages.autoencoder import AutoencoderStage
from shapeguide.training.stages.finder import finder_stage
from shapeguide.training.stages.restorer import RestorerStage
from shapeguide.training.stages.segmentation import (
    SegmentationStage,
    least_step_bytes,
    recomputes,
)
from shapeguide.training.stages.shape import ShapeStage
from shapeguide.training.stages.stage import Stage
from shapeguide.training.stages.timing import StageTiming, time_stage
from shapeguide.workflows.each_structure import (
    datasets_of_each,
    is_for_each,
    refuse_given_guide,
    settings_of_each,
)
from shapeguide.workflows.needed import NeededStages, needed_stages
from shapeguide.workflows.training_plan import (
    GIB,
    TIMED_SHARE,
    WAYS_OUT,
    PlannedSteps,
    PlannedStructure,
    TrainingPlan,
    of_memory,
    warnings_of,
)

logger = logging.getLogger(__name__)

TOLD_SECONDS = 120
"""A training that takes longer is told of before it starts."""
UNTIMED_WORK = 2 * 10**9
"""Voxels times first channels in all batches of the segmentation: fewer take about two minutes on
one core, and are not worth being timed."""
LEAST_ITERATIONS = 100
"""Fewer iterations of the segmentation are not worth training."""
MOST_HALVINGS = 2
FORWARD_SHARE = 1 / 3
"""What predicting a batch takes of the time of a training step on it, about."""


def plan(
    dataset: Dataset,
    settings: TrainSettings | str = "default",
    *,
    shape_network: ShapeModel | str | Path | None = None,
    time_budget: str | None = None,
) -> TrainingPlan:
    """What `train` would do, timed by a few steps of each stage; nothing is written or kept.

    Label maps and images are read, and what would not fit in memory goes to the cache folder, as
    in a training. The region is as large as an exact finder needs it.

    Args:
        dataset: Training cases with label maps and structures, perhaps with a pool of label maps.
        settings: Settings, or the name of a preset.
        shape_network: A trained shape network to use, or the run folder of one.
        time_budget: How long the training may take, see `train`; `TrainingPlan.settings` are then
            those that fit in it.

    Raises:
        ConfigError: If settings and data do not fit together, a training step would take more
            memory than there is, or nothing would fit in the time.
        DataError: If a case cannot be used.
    """
    settings = resolve(settings)
    dataset.require_images()
    guide = shape_network
    if guide is not None and not isinstance(guide, ShapeModel):
        guide = load_shape_network(guide)
    seconds = None if time_budget is None else seconds_of(time_budget)
    if not is_for_each(dataset, settings):
        cohort = cohort_of(dataset, settings)
        return planned(cohort, settings, guide=guide, budget_seconds=seconds)
    refuse_given_guide(guide, dataset)
    each = datasets_of_each(dataset)
    settings = settings_of_each(dataset, settings)
    share = None if seconds is None else seconds / len(each)
    cohorts = [cohort_of(one, settings) for one in each.values()]
    made = planned(cohorts[0], settings, budget_seconds=share)
    structures = tuple(row for cohort in cohorts for row in _structures(cohort))
    return replace(made, structures=structures, trainings=len(each))


def planned(
    cohort: Cohort,
    settings: TrainSettings,
    *,
    guide: Guide | None = None,
    budget_seconds: float | None = None,
) -> TrainingPlan:
    """The plan of a cohort, see `plan`; with a budget, of the settings that fit in it.

    Raises:
        ConfigError: If a step would take more memory than there is, or nothing fits.
        DataError: If a case cannot be used.
    """
    check_memory(cohort, settings)
    course = settings.segmentation.with_iterations_for(cohort.space.spatial_shape)
    settings = settings.changed(segmentation=course)
    needed = needed_stages(cohort, settings, given=guide is not None)
    before, preparing, model = _stages_before(cohort, needed, guide)
    made = TrainingPlan(
        dataset=cohort.train.name,
        training_cases=len(cohort.train),
        validation_cases=len(cohort.validation or ()),
        settings=settings,
        space=cohort.space,
        region=_region(cohort, settings),
        structures=_structures(cohort),
        before=before,
        plain=PlannedSteps("segmentation", 0, 0.0),
        guided=PlannedSteps("segmentation", 0, 0.0),
        preparing_seconds=preparing,
        validation_seconds=0.0,
        memory_bytes=memory_bytes(choose_device(settings.machine.device)),
    )
    made = _with_segmentation(made, cohort, needed.settings, model)
    return made if budget_seconds is None else _fitted(made, cohort, model, budget_seconds)


def tell_if_long(cohort: Cohort, settings: TrainSettings) -> None:
    """Say in the log how long the segmentation will take, unless it is short.

    Raises:
        ConfigError: If a step would take more memory than there is.
        DataError: If a case cannot be used.
    """
    check_memory(cohort, settings)
    course = settings.segmentation
    shape = cohort.space.spatial_shape
    suited = course.suited(shape)
    voxels = prod(shape) * suited.batch_size * suited.iterations
    if voxels * course.channels[0] < UNTIMED_WORK:
        return
    timing = time_stage(SegmentationStage(cohort, guided_by(None, settings)))
    seconds = settings.members * suited.iterations * timing.step_seconds[0]
    if seconds < TOLD_SECONDS:
        return
    memory = memory_bytes(choose_device(settings.machine.device))
    logger.info(
        "segmentation: %d iterations of about %s, together %s at least; memory %s; --dry-run tells "
        "of all stages",
        suited.iterations, in_words(timing.step_seconds[0]), in_words(seconds),
        of_memory(timing.peak_bytes, memory),
    )  # fmt: skip
    for warning in warnings_of(seconds, timing.peak_bytes, memory):
        logger.warning("%s", warning)


def check_memory(cohort: Cohort, settings: TrainSettings) -> None:
    """Refuse a segmenter of which one training step takes more memory than there is.

    Raises:
        ConfigError: If it does, by the least that such a step takes.
    """
    shape = cohort.space.spatial_shape
    there = memory_bytes(choose_device(settings.machine.device))
    needed = least_step_bytes(settings, shape)
    if recomputes(settings, shape):
        needed = int(RECOMPUTED_SHARE * needed)
    if there is not None and needed > there:
        course = settings.segmentation
        raise ConfigError(
            f"{cohort.train.name}: one training step on {course.suited(shape).batch_size} times "
            f"{shape} voxels with channels {course.channels} takes at least "
            f"{needed / GIB:.0f} GiB of memory, and there are {there / GIB:.1f}; choose "
            f"{WAYS_OUT}"
        )


def _stages_before(
    cohort: Cohort, needed: NeededStages, guide: Guide | None
) -> tuple[tuple[PlannedSteps, ...], float, Guide | None]:
    """Steps of the stages before the segmentation, what they prepare for, and what guides."""
    settings = needed.settings
    steps: list[PlannedSteps] = []
    preparing = 0.0
    model = guide if settings.guide is not None else None

    def add(stage: Stage[Any]) -> None:
        nonlocal preparing
        timing = time_stage(stage)
        preparing += timing.preparing_seconds
        (seconds,) = timing.step_seconds
        steps.append(PlannedSteps(stage.title, stage.course.iterations, seconds, timing.peak_bytes))

    if cohort.regions is not None:
        add(finder_stage(cohort, settings))
    if needed.shape:
        shape = ShapeStage(cohort, settings)
        add(shape)
        network = shape.network.eval().requires_grad_(False)
        model = ShapeModel(network, cohort.structures, cohort.space, settings.shape.objective, ())
    if needed.autoencoder:
        autoencoder = AutoencoderStage(cohort, settings)
        add(autoencoder)
        untrained: Any = autoencoder.learner().eval().requires_grad_(False)
        model = AutoencoderModel(
            untrained, autoencoder.flavour, cohort.structures, cohort.space, ()
        )
    if needed.restorer:
        add(RestorerStage(cohort, settings))
    return tuple(steps), preparing, model


def _with_segmentation(
    made: TrainingPlan, cohort: Cohort, settings: TrainSettings, guide: Guide | None
) -> TrainingPlan:
    """A plan with the steps of the segmentation, timed.

    Args:
        made: What is planned.
        cohort: The cases.
        settings: Those of the segmentation: its guidance is what will guide.
        guide: A trained guide, or an untrained one that takes as long.
    """
    settings = guided_by(guide, settings)
    course = settings.segmentation.suited(cohort.space.spatial_shape)
    guides = settings.guide is not None and course.guided_iterations > 0
    starts = (0, course.dice_iterations) if guides else (0,)
    timing: StageTiming = time_stage(SegmentationStage(cohort, settings, guide), iterations=starts)
    plain = course.dice_iterations if guides else course.iterations
    items, members = len(cohort.validation_cases), settings.members
    return replace(
        made,
        plain=PlannedSteps("segmenter", plain, timing.step_seconds[0], timing.peak_bytes, members),
        guided=PlannedSteps(
            f"segmenter, guided ({settings.guidance})",
            course.iterations - plain,
            timing.step_seconds[-1],
            timing.peak_bytes,
            members,
        ),
        preparing_seconds=made.preparing_seconds + timing.preparing_seconds,
        validation_seconds=FORWARD_SHARE * items * timing.step_seconds[0] / course.batch_size,
    )


def _fitted(
    made: TrainingPlan, cohort: Cohort, guide: Guide | None, budget_seconds: float
) -> TrainingPlan:
    """The plan with as many iterations as fit, with fewer channels where few would.

    Raises:
        ConfigError: If not even the least number fits.
    """
    for halving in range(MOST_HALVINGS + 1):
        iterations = made.iterations_within(budget_seconds)
        if iterations >= LEAST_ITERATIONS:
            return made.with_iterations(iterations)
        course = made.settings.segmentation
        halved = tuple(count // 2 for count in course.channels)
        if iterations < 1 or halving == MOST_HALVINGS or min(halved) < 1:
            break
        logger.info(
            "only %d iterations would fit in %s with channels %s; trying half of them",
            iterations, in_words(budget_seconds), course.channels,
        )  # fmt: skip
        settings = made.settings.changed(segmentation=course.changed(channels=halved))
        needed = needed_stages(cohort, settings, given=guide is not None)
        made = _with_segmentation(replace(made, settings=settings), cohort, needed.settings, guide)
    least = made.with_iterations(LEAST_ITERATIONS)
    others = [("reading and preparing", made.preparing_seconds)]
    others += [(one.title, one.seconds) for one in made.before]
    taken = ", ".join(f"{title} {in_words(seconds)}" for title, seconds in others)
    raise ConfigError(
        f"{made.dataset}: {in_words(budget_seconds)} are too short: {LEAST_ITERATIONS} iterations "
        f"of the segmentation, the fewest that are worth training, and all else ({taken}) take "
        f"{in_words(least.seconds)} with channels {made.settings.segmentation.channels}; give "
        f"--time-budget {written(least.seconds / TIMED_SHARE)} or more, or choose {WAYS_OUT}, "
        "fewer iterations of the other stages (restorer.iterations 0 trains no restorer) or "
        "guidance none"
    )


def _region(cohort: Cohort, settings: TrainSettings) -> str:
    if cohort.regions is None:
        told = undivided(settings.data, cohort.space)
        return f"{told}; they are seen in patches" if cohort.in_patches else told
    return described(cohort.regions, cohort.space)


def _structures(cohort: Cohort) -> tuple[PlannedStructure, ...]:
    cases = cohort.train_cases
    volumes = np.array(
        [cases.label_map(n).volumes_mm3 for n in range(0, len(cases), cases.items_each)]
    )
    return tuple(
        PlannedStructure(
            name,
            float(own[own > 0].mean()) if (own > 0).any() else 0.0,
            int((own > 0).sum()),
        )
        for name, own in zip(cohort.names, volumes.T, strict=True)
    )

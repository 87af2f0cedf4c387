"""What guides or restores, and then the segmenter, in one call: what `shapeguide train` does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.inference.usual import calibrate_restorer
from shapeguide.models.autoencoder_model import AUTOENCODER_FOLDER
from shapeguide.models.model_files import read_description
from shapeguide.models.restorer_model import RESTORER_FOLDER
from shapeguide.models.segmenter import Segmenter, SegmenterDescription, run_folders
from shapeguide.models.shape_model import SHAPE_FOLDER, ShapeModel, load_shape_network
from shapeguide.storage.whole import write_json
from shapeguide.training.cohort import Cohort, check_pool_apart, cohort_of
from shapeguide.training.durations import in_words, seconds_of
from shapeguide.training.engine.log import LOG_FILE, read_log
from shapeguide.training.engine.processes import on_first
from shapeguide.training.engine.run_folder import (
    SPLIT_FILE,
    check_run_folder,
    clear_run_folder,
    locked_run_folder,
    noted_settings,
)
from shapeguide.training.guides import Guide, guide_loss, guided_by
from shapeguide.training.settings.base import build
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.guidance import ShapeGuidance
from shapeguide.training.settings.presets import resolve
from shapeguide.training.stages.autoencoder import train_autoencoder
from shapeguide.training.stages.restorer import train_restorer
from shapeguide.training.stages.segmentation import found_cohort, train_segmenter
from shapeguide.training.stages.shape import train_shape
from shapeguide.workflows.each_structure import is_for_each, refuse_given_guide, train_each
from shapeguide.workflows.needed import needed_stages
from shapeguide.workflows.planning import planned, tell_if_long
from shapeguide.workflows.training_plan import of_memory

logger = logging.getLogger(__name__)

CHOSEN_BY_TIME = ("dice_iterations", "guided_iterations", "channels")
"""Settings of the segmentation that a time budget chooses."""


def train(
    dataset: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    shape_network: ShapeModel | str | Path | None = None,
    test: Dataset | None = None,
    time_budget: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Segmenter:
    """Train what the guidance needs, unless it is given, and then a segmenter.

    With guidance "shape" a shape restorer is trained too, unless its iterations are 0, and
    `predict_files` restores by it what is unusual for the segmenter. The segmenter does not depend
    on it.

    The same call resumes a killed run and loads a finished one.

    Args:
        dataset: Training cases with label maps and structures, perhaps with a pool of label maps.
        out: Run folder; what finds, guides and restores have their own folders inside: `finder`,
            `shape`, `autoencoder`, `restorer`. With a training per structure, each has a run
            folder of its own in the folder `structures`.
        settings: Settings, or the name of a preset; `guidance="none"` gives the plain baseline.
        shape_network: A trained shape network to use instead of training one, or the run folder of
            one.
        test: Cases that are kept for testing. Nothing is done with them but to note their ids in
            the run folder, in `split.json`, beside those of the training cases.
        time_budget: How long all may take on this machine, such as `30m` or `1h30m`: a few timed
            steps decide how many iterations the segmentation has, as large a part of them guided
            as the settings say, and where few would fit its channels are halved, once or twice. A
            run that was begun keeps what was chosen then.
        overwrite: Delete what an older run has written into the folder first; all else in it stays.
        progress: Show progress bars.

    Raises:
        ConfigError: If settings, folder and data do not fit together, or nothing fits in the time
            budget or the memory, or the folder holds something else than a run, or a run to
            overwrite holds scans of the dataset, or another process trains there.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(out), resolve(settings)
    if shape_network is not None and not isinstance(settings.guide, ShapeGuidance):
        raise ConfigError(
            f"a shape network was given together with guidance {settings.guidance!r}; leave out "
            "one of them"
        )
    budget_seconds = None if time_budget is None else seconds_of(time_budget)
    dataset.require_images()
    check_pool_apart(dataset.pool, test or ())
    on_first(lambda: check_run_folder(folder))
    with locked_run_folder(folder):
        if overwrite:
            on_first(lambda: clear_run_folder(folder, (*dataset, *dataset.pool)))
        guide = _given_guide(shape_network)
        if is_for_each(dataset, settings):
            refuse_given_guide(guide, dataset)
            share = None if budget_seconds is None else budget_seconds / len(dataset.structures)

            def train_one(alone: Dataset, own: Path, settings: TrainSettings) -> Segmenter:
                return _train_one(alone, own, settings, None, share, progress=progress)

            segmenter = train_each(dataset, folder, settings, train_one)
        else:
            segmenter = _train_one(
                dataset, folder, settings, guide, budget_seconds, progress=progress
            )
        if test is not None:
            ids = {"train": [case.id for case in dataset], "test": [case.id for case in test]}
            on_first(lambda: write_json(folder / SPLIT_FILE, ids))
        return segmenter


@dataclass(frozen=True)
class Outcome:
    """What a finished training says of itself."""

    training_cases: int
    """Without those that were held out for validation; the most that any structure has, where each
    was trained by itself."""
    validation_dice: float | None
    """Mean of the last validation; None where no case was held out."""


def read_outcome(run_dir: Path) -> Outcome:
    """What the training of a run folder came to.

    Raises:
        CheckpointError: If it is not finished, or damaged.
    """
    each = run_folders(run_dir)
    cases = [read_description(SegmenterDescription, one).notes["training_cases"] for one in each]
    scores = [[row["score"] for row in read_log(one / LOG_FILE) if "score" in row] for one in each]
    validated = all(scores)
    return Outcome(max(cases), fmean(own[-1] for own in scores) if validated else None)


def _train_one(
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
    guide: ShapeModel | None,
    budget_seconds: float | None,
    *,
    progress: bool,
) -> Segmenter:
    """All structures of a dataset in one segmenter."""
    cohort, settings = _begun(dataset, folder, settings, guide, budget_seconds)
    return _train_stages(cohort, dataset, folder, settings, guide=guide, progress=progress)


def _given_guide(given: ShapeModel | str | Path | None) -> ShapeModel | None:
    if given is None or isinstance(given, ShapeModel):
        return given
    return load_shape_network(given)


def _begun(
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
    guide: Guide | None,
    budget_seconds: float | None,
) -> tuple[Cohort, TrainSettings]:
    """The cases, and the settings that fit in the time; those of a begun run if there is one."""
    begun = on_first(lambda: noted_settings(folder))
    if begun is not None and budget_seconds is not None:
        noted = build(TrainSettings, begun).segmentation
        chosen = {name: getattr(noted, name) for name in CHOSEN_BY_TIME}
        settings = settings.changed(segmentation=settings.segmentation.changed(**chosen))
        logger.info(
            "%s was begun with %d iterations of the segmentation and channels %s, and keeps them, "
            "whatever the time budget",
            folder, settings.segmentation.iterations, settings.segmentation.channels,
        )  # fmt: skip
    cohort = cohort_of(dataset, settings)
    if begun is not None:
        return cohort, settings
    if budget_seconds is None:
        tell_if_long(cohort, settings)
        return cohort, settings
    made = planned(cohort, settings, guide=guide, budget_seconds=budget_seconds)
    fitted = made.settings.segmentation
    logger.info(
        "%s hold %d iterations of the segmentation with channels %s; memory %s",
        in_words(budget_seconds), fitted.iterations, fitted.channels,
        of_memory(made.peak_bytes, made.memory_bytes),
    )  # fmt: skip
    for warning in made.warnings:
        logger.warning("%s", warning)
    if made.settings.segmentation.channels != settings.segmentation.channels:
        cohort = cohort_of(dataset, made.settings)
    return cohort, made.settings


def _train_stages(
    cohort: Cohort,
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
    *,
    guide: Guide | None,
    progress: bool,
) -> Segmenter:
    """All stages in their order, each in its folder, on the same prepared cases."""
    cohort = found_cohort(cohort, run_dir=folder, settings=settings, progress=progress)
    needed = needed_stages(cohort, settings, given=guide is not None)
    settings, restores = needed.settings, needed.restorer
    guide = None if settings.guide is None else guide
    if needed.shape:
        guide = train_shape(
            cohort, run_dir=folder / SHAPE_FOLDER, settings=settings, progress=progress
        )
    if needed.autoencoder:
        guide = train_autoencoder(
            cohort, run_dir=folder / AUTOENCODER_FOLDER, settings=settings, progress=progress
        )
    if restores:
        # What cannot guide is refused before the restorer takes its time.
        guide_loss(guide, cohort, guided_by(guide, settings))
        train_restorer(
            cohort, run_dir=folder / RESTORER_FOLDER, settings=settings, progress=progress
        )
    segmenter = train_segmenter(cohort, guide, run_dir=folder, settings=settings, progress=progress)

    def calibrate() -> None:
        calibrate_restorer(
            folder,
            dataset,
            share=settings.restorer.usual_share,
            device=settings.machine.device,
            image_of=None if cohort.regions else cohort.whole_image,
            progress=progress,
        )

    if restores:
        on_first(calibrate)
    return segmenter

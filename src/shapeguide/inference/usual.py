"""What is usual for a segmenter: how much a restorer disagrees with it on its own training scans.

A restorer that changes every prediction a little costs as much as it gains where the segmenter is
good. What needs it are predictions unlike those that the segmenter usually makes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.inference.restoring import check_fits
from shapeguide.inference.shown import channels_for, prepared_probabilities, shown_to
from shapeguide.models.model_files import read_description
from shapeguide.models.restorer_model import (
    RESTORER_FOLDER,
    USUAL_FILE,
    RestorerModel,
    Usual,
    disagreement,
    load_restorer,
    read_usual,
)
from shapeguide.models.segmenter import Segmenter, SegmenterDescription, load_segmenter
from shapeguide.progress import ProgressBar
from shapeguide.storage.whole import write_json
from shapeguide.vocabulary import USUAL_SHARE, WeightsName

ImageOf: TypeAlias = Callable[[Case], NDArray[np.float32]]
FEWEST_SCANS = 10
"""With fewer, which a segmenter also learns by heart, what is usual cannot be known."""
MOST_SCANS = 40
"""More are not looked at."""

logger = logging.getLogger(__name__)


def calibrated(
    restorer: RestorerModel,
    segmenters: Mapping[WeightsName, Segmenter],
    dataset: Dataset,
    *,
    share: float = USUAL_SHARE,
    image_of: ImageOf | None = None,
    progress: bool = False,
) -> dict[WeightsName, RestorerModel]:
    """A restorer that leaves alone what a segmenter usually predicts.

    Args:
        restorer: A trained shape restorer.
        segmenters: Those of one training, by their weights; they share a working space.
        dataset: The scans that they learnt from, with those held out for validation; their label
            maps are not used.
        share: Share of these scans that would be left alone; 0 leaves none alone.
        image_of: Gives the image of a scan as `prepare_channels` does, for whoever has it already,
            where scans are worked on whole; without it they are read.
        progress: Show a progress bar.

    Returns:
        A restorer for each segmenter. Where the share is 0 or there are fewer than ten scans it
        restores every prediction.

    Raises:
        ConfigError: If the restorer has other structures or another spacing.
        DataError: If a scan cannot be used.
    """
    for segmenter in segmenters.values():
        check_fits(restorer, segmenter)
    if share == 0 or len(dataset) < FEWEST_SCANS:
        return dict.fromkeys(segmenters, replace(restorer, usual_disagreement=None))
    found: dict[WeightsName, list[float]] = {name: [] for name in segmenters}
    cases = _some(dataset)
    first = next(iter(segmenters.values()))
    with ProgressBar("usual scans", total=len(cases), done=0, shown=progress) as bar:
        for done, case in enumerate(cases, start=1):
            if image_of:
                images = [image_of(case)]
            else:
                images = [part.image for part in shown_to(first, channels_for(first, case))]
            for name, segmenter in segmenters.items():
                found[name] += [
                    disagreement(restorer, prepared_probabilities(segmenter, image))
                    for image in images
                ]
            bar.update(done)
    return {
        name: replace(restorer, usual_disagreement=float(np.quantile(values, share)))
        if values
        else replace(restorer, usual_disagreement=None)
        for name, values in found.items()
    }


def calibrate_restorer(
    run_dir: str | Path,
    dataset: Dataset,
    *,
    share: float = USUAL_SHARE,
    device: str = "auto",
    image_of: ImageOf | None = None,
    progress: bool = True,
) -> None:
    """Measure what is usual for the segmenter of a run, for the restorer inside its folder.

    It is written into the folder of the restorer, where predictions look for it; without it they
    refuse to restore, for the training has not ended. What was measured for the same share stays;
    another share measures anew.

    Args:
        run_dir: Folder of a finished training with a shape restorer.
        dataset: The scans that it learnt from, with those held out for validation. From fewer than
            ten nothing is measured, and every prediction is restored.
        share: Share of these scans that would be left alone.
        device: `auto`, `cpu`, `cuda` or `mps`.
        image_of: See `calibrated`.
        progress: Show a progress bar.

    Raises:
        CheckpointError: If run or restorer are not finished or damaged.
        DataError: If a scan cannot be used.
    """
    run, folder = Path(run_dir), Path(run_dir) / RESTORER_FOLDER
    known = read_usual(folder)
    if known is not None and known.share == share:
        return
    segmenters: dict[WeightsName, Segmenter] = {
        name: load_segmenter(run, weights=name, device=device)
        for name in read_description(SegmenterDescription, run).weights
    }
    first = next(iter(segmenters.values()))
    restorer = load_restorer(folder)
    restorer = replace(restorer, network=restorer.network.to(first.device))
    models = calibrated(
        restorer, segmenters, dataset, share=share, image_of=image_of, progress=progress
    )
    usual = {
        name: model.usual_disagreement
        for name, model in models.items()
        if model.usual_disagreement is not None
    }
    scans = len(_some(dataset))
    measured = Usual(share=share, scans=scans, disagreement=usual)
    write_json(folder / USUAL_FILE, measured.model_dump())
    if not usual:
        logger.info("restorer: every prediction is restored, with caution %g", restorer.caution)
        return
    shown = ", ".join(f"{value:.1%} ({name} weights)" for name, value in usual.items())
    logger.info(
        "restorer: leaves alone what it would change by no more than %s, which %.0f%% of %d "
        "training scans are",
        shown,
        100 * share,
        scans,
    )


def _some(dataset: Dataset) -> Dataset:
    """At most so many cases, evenly spread."""
    if len(dataset) <= MOST_SCANS:
        return dataset
    chosen = np.linspace(0, len(dataset) - 1, MOST_SCANS).round().astype(int)
    ids = [case.id for case in dataset]
    return dataset.select([ids[index] for index in chosen])

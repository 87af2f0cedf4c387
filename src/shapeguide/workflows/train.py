"""What guides or restores, and then the segmenter, in one call: what `shapeguide train` does."""

from __future__ import annotations

from pathlib import Path

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.inference.usual import calibrate_restorer
from shapeguide.models.autoencoder_model import AUTOENCODER_FOLDER
from shapeguide.models.restorer_model import RESTORER_FOLDER
from shapeguide.models.segmenter import Segmenter
from shapeguide.models.shape_model import ShapeModel
from shapeguide.storage.lock import locked
from shapeguide.training.cohort import cohort_of
from shapeguide.training.engine.run_folder import (
    SHAPE_FOLDER,
    check_run_folder,
    clear_run_folder,
)
from shapeguide.training.guides import Guide
from shapeguide.training.settings.groups import TrainSettings, resolve
from shapeguide.training.stages.autoencoder import train_autoencoder
from shapeguide.training.stages.restorer import train_restorer
from shapeguide.training.stages.segmentation import train_segmenter
from shapeguide.training.stages.shape import train_shape


def train(
    dataset: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    shape_network: ShapeModel | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Segmenter:
    """Train what the guidance needs, unless it is given, and then a segmenter.

    With guidance "shape" a shape restorer is trained too, unless its iterations are 0, and
    `predict_files` restores by it what is unusual for the segmenter. The segmenter does not depend
    on it.

    The same call resumes a killed run and loads a finished one.

    Args:
        dataset: Training cases with label maps and structures.
        out: Run folder; what guides and what restores have their own folders inside: `shape`,
            `autoencoder`, `restorer`.
        settings: Settings, or the name of a preset; `guidance="none"` gives the plain baseline.
        shape_network: A trained shape network to use instead of training one.
        overwrite: Delete what an older run has written into the folder first; all else in it stays.
        progress: Show progress bars.

    Raises:
        ConfigError: If settings, folder and data do not fit together, or the folder holds something
            else than a run, or a run to overwrite holds scans of the dataset, or another process
            trains there.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(out), resolve(settings)
    if shape_network is not None and settings.guidance != "shape":
        raise ConfigError(
            f"a shape network was given together with guidance {settings.guidance!r}; leave out "
            "one of them"
        )
    check_run_folder(folder)
    with locked(folder):
        if overwrite:
            clear_run_folder(folder, dataset)
        return _train_stages(dataset, folder, settings, guide=shape_network, progress=progress)


def _train_stages(
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
    *,
    guide: Guide | None,
    progress: bool,
) -> Segmenter:
    """All stages in their order, each in its folder, on the same prepared cases."""
    cohort = cohort_of(dataset, settings)
    if settings.guidance == "shape" and guide is None:
        guide = train_shape(
            cohort, run_dir=folder / SHAPE_FOLDER, settings=settings, progress=progress
        )
    elif settings.guidance in ("acnn", "srn"):
        guide = train_autoencoder(
            cohort, run_dir=folder / AUTOENCODER_FOLDER, settings=settings, progress=progress
        )
    restores = settings.guidance == "shape" and settings.restorer.iterations > 0
    if restores:
        train_restorer(
            cohort, run_dir=folder / RESTORER_FOLDER, settings=settings, progress=progress
        )
    segmenter = train_segmenter(cohort, guide, run_dir=folder, settings=settings, progress=progress)
    if restores:
        calibrate_restorer(
            folder,
            dataset,
            share=settings.restorer.usual_share,
            device=settings.machine.device,
            progress=progress,
        )
    return segmenter

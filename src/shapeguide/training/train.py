"""Both stages in one call: what `shapeguide train` does."""

from __future__ import annotations

from pathlib import Path

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.models.segmenter import Segmenter
from shapeguide.models.shape_model import ShapeModel
from shapeguide.training.config import TrainSettings, resolve
from shapeguide.training.segmentation_stage import train_segmenter
from shapeguide.training.shape_stage import train_shape

SHAPE_FOLDER = "shape"


def train(
    dataset: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    shape_network: ShapeModel | None = None,
    progress: bool = True,
) -> Segmenter:
    """Train a shape network, unless one is given or none wanted, and then a segmenter.

    The same call resumes a killed run and loads a finished one.

    Args:
        dataset: Training cases with label maps and structures.
        out: Run folder; the shape stage has its own folder `shape` inside.
        settings: Settings, or the name of a preset; `guidance="none"` gives the plain baseline.
        shape_network: A trained shape network to use instead of training one.
        progress: Show progress bars.

    Raises:
        ConfigError: If settings, folder and data do not fit together.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(out), resolve(settings)
    if settings.guidance == "none":
        if shape_network is not None:
            raise ConfigError(
                "a shape network was given together with guidance 'none'; leave out one of them"
            )
        return train_segmenter(dataset, run_dir=folder, settings=settings, progress=progress)
    if shape_network is None:
        shape_network = train_shape(
            dataset, run_dir=folder / SHAPE_FOLDER, settings=settings, progress=progress
        )
    return train_segmenter(
        dataset, shape_network, run_dir=folder, settings=settings, progress=progress
    )

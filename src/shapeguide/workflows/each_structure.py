"""A training for each structure, one after another, whose segmenters then answer together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import shapeguide
from shapeguide.data.dataset import Dataset, check_occurring
from shapeguide.errors import ConfigError
from shapeguide.models.model_files import read_description, write_description
from shapeguide.models.one_per_structure import folder_of_structure
from shapeguide.models.segmenter import (
    Segmenter,
    SegmenterDescription,
    SeparateDescription,
    load_segmenter,
)
from shapeguide.storage.names import few
from shapeguide.training.cohort import cohort_of
from shapeguide.training.engine.processes import on_first
from shapeguide.training.engine.run_folder import claim_run_folder
from shapeguide.training.settings.groups import TrainSettings

logger = logging.getLogger(__name__)

STAGE = "structures"
"""What the note of a run calls the training of several structures, each by itself."""


def is_for_each(dataset: Dataset, settings: TrainSettings) -> bool:
    """Whether several structures are trained one after another."""
    return settings.segmentation.one_per_structure and len(dataset.structures) > 1


def refuse_given_guide(guide: object | None, dataset: Dataset) -> None:
    """Refuse one shape network for several structures that are trained by themselves.

    Raises:
        ConfigError: If one is given.
    """
    if guide is not None:
        raise ConfigError(
            f"a shape network was given, and {len(dataset.structures)} structures are trained one "
            "after another, each with its own; leave it out, or train one structure"
        )


def settings_of_each(dataset: Dataset, settings: TrainSettings) -> TrainSettings:
    """The settings of each training: all work in the space that is chosen for all cases.

    Nothing restores predictions: a restorer looks at all structures at once.

    Raises:
        ConfigError: If scans are not worked on whole, and as `cohort_of`.
        DataError: If a file cannot be read.
    """
    cohort = cohort_of(dataset, settings)
    if cohort.regions is not None or cohort.in_patches:
        raise ConfigError(
            "one training per structure works on whole scans, and here regions or patches of them "
            "are seen; add --region none (data.region), or train all structures at once "
            "(--no-one-per-structure)"
        )
    if settings.restorer.iterations and settings.guidance == "shape":
        logger.info(
            "no shape restorer is trained: it looks at all structures at once, and each has a "
            "training of its own here"
        )
    space = cohort.space
    return settings.changed(
        data=settings.data.changed(spacing_mm=space.spacing_mm, spatial_shape=space.spatial_shape),
        restorer=settings.restorer.changed(iterations=0),
    )


def datasets_of_each(dataset: Dataset) -> Mapping[str, Dataset]:
    """The cases and label maps that have a structure, with that one alone, by its name.

    All label maps are read. Those that lack a structure are left out of its training, with a
    warning.

    Raises:
        ConfigError: If none has it.
        DataError: If a label map cannot be used.
    """
    names = [one.name for one in dataset.structures]
    having: dict[str, set[str]] = {name: set() for name in names}
    for case in (*dataset.cases, *dataset.pool):
        label_map = case.read_label_map()
        for one in label_map.structures:
            if label_map.mask(one).any():
                having[one.name].add(case.id)
    check_occurring(
        dataset,
        [one for one in dataset.structures if not any(c.id in having[one.name] for c in dataset)],
    )
    found = {}
    for name in names:
        alone = dataset.with_one_structure(name)
        lacking = [case.id for case in alone if case.id not in having[name]]
        if lacking:
            logger.warning(
                "%s: %d cases without it are left out of its training: %s",
                name, len(lacking), few(lacking),
            )  # fmt: skip
        kept = alone.select(case.id for case in alone if case.id in having[name])
        found[name] = replace(
            kept, pool=tuple(case for case in alone.pool if case.id in having[name])
        )
    return found


def train_each(
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
    train_one: Callable[[Dataset, Path, TrainSettings], object],
) -> Segmenter:
    """Train a segmenter for each structure, and put them together.

    Args:
        dataset: Training cases with several structures.
        folder: The run folder; each structure has one of its own inside.
        settings: Those of the whole training.
        train_one: Trains one structure, or takes up or loads what is there of it already.

    Raises:
        ConfigError: If the folder belongs to another run, or settings and data do not fit.
        DataError: If a case cannot be used.
    """
    own = settings_of_each(dataset, settings)
    datasets = datasets_of_each(dataset)
    on_first(
        lambda: claim_run_folder(
            folder, stage=STAGE, settings=settings, train=dataset, validation=None,
            pool=dataset.pool,
        )
    )  # fmt: skip
    for number, (name, alone) in enumerate(datasets.items(), start=1):
        logger.info("%s, structure %d of %d", name, number, len(datasets))
        train_one(alone, folder_of_structure(folder, name), own)
    on_first(lambda: _describe(folder, dataset))
    return load_segmenter(folder, device=settings.machine.device)


def _describe(folder: Path, dataset: Dataset) -> None:
    """Write the model file of the run around those of all structures, which are finished."""
    first = read_description(
        SegmenterDescription, folder_of_structure(folder, dataset.structures[0].name)
    )
    made = SeparateDescription(
        made_by=f"shapeguide {shapeguide.__version__}",
        structures=dataset.structures,
        wholes=dataset.wholes,
        space=first.space,
        channels=first.channels,
        notes={"dataset": dataset.name},
    )
    write_description(made, folder)

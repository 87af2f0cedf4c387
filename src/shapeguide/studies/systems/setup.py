"""Before anything is trained: what the cases hold, the space they share, whose folder it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from shapeguide.data.dataset import Dataset, check_apart
from shapeguide.data.working_space import choose_working_space
from shapeguide.errors import DataError
from shapeguide.models.segmenter import SEGMENTERS, divisor_of
from shapeguide.studies.systems.design import Table2Design
from shapeguide.studies.systems.experiment import Experiment
from shapeguide.studies.systems.folder import ResultFiles, claim_folder, write_identity
from shapeguide.training.settings.groups import TrainSettings

logger = logging.getLogger(__name__)

CHOSEN_BY_CELL = ("seed", "guidance", "machine")


def set_up(
    train: Dataset,
    test: Dataset,
    files: ResultFiles,
    *,
    settings: TrainSettings,
    design: Table2Design,
    keep_predictions: bool,
) -> tuple[Experiment, dict[str, list[str]]]:
    """Check the cases, choose the space they share, and claim the results folder.

    All cells work in one space, that of all training cases, so that they differ in nothing else.
    Cases that hold no structure at all are left out.

    Returns:
        The experiment, and for each structure the ids of the cases that do not have it.

    Raises:
        ConfigError: If the folder holds another experiment.
        DataError: If a label map or test image cannot be read, or no case is left.
    """
    settings = _in_one_space(train, settings)
    identity = {
        "settings": settings.model_dump(mode="json", exclude=set(CHOSEN_BY_CELL)),
        "dataset": _identity_of(train, test),
    }
    earlier = claim_folder(files, identity)
    absent = _absent_structures(train, test) if earlier is None else earlier["absent"]
    if earlier is None or earlier["settings"].keys() != identity["settings"].keys():
        write_identity(files, {**identity, "absent": absent})
    for name, ids in absent.items():
        if ids:
            logger.warning("%s: %d cases without it are left out: %s", name, len(ids), _some(ids))
    train, test = (_with_any(part, absent) for part in (train, test))
    experiment = Experiment(files, train, test, settings, design, keep_predictions)
    return experiment, absent


def _in_one_space(train: Dataset, settings: TrainSettings) -> TrainSettings:
    train.require_structures()
    data = settings.data
    space = choose_working_space(
        train,
        spacing_mm=data.spacing_mm,
        spatial_shape=data.spatial_shape,
        centre=data.centre,
        normalisation=data.normalisation,
        # What every network of the table can halve, whichever of them are compared.
        divisor=max(divisor_of(name, settings.segmentation.channels) for name in SEGMENTERS),
    )
    shared = data.changed(spacing_mm=space.spacing_mm, spatial_shape=space.spatial_shape)
    return settings.changed(data=shared)


def _identity_of(train: Dataset, test: Dataset) -> dict[str, Any]:
    check_apart(train, test)
    return {
        "name": train.name,
        "structures": {item.name: list(item.label_ids) for item in train.structures},
        "train": [case.id for case in train],
        "test": [case.id for case in test],
        "bytes": sum(_size(case.image) + _size(case.label_map) for case in (*train, *test)),
    }


def _size(path: Path | None) -> int:
    return 0 if path is None else path.stat().st_size


def _absent_structures(train: Dataset, test: Dataset) -> dict[str, list[str]]:
    """Ids of the cases without each structure; every label map and test image is read once."""
    absent: dict[str, list[str]] = {item.name: [] for item in train.structures}
    for case in test:
        case.read_volume()  # a broken one shows now rather than after hours of training
    for case in (*train, *test):
        label_map = case.read_label_map()
        for structure in label_map.structures:
            if not label_map.mask(structure).any():
                absent[structure.name].append(case.id)
    return absent


def _with_any(cases: Dataset, absent: dict[str, list[str]]) -> Dataset:
    """The cases that have a structure."""
    kept = [case.id for case in cases if not all(case.id in without for without in absent.values())]
    if not kept:
        names = ", ".join(absent)
        raise DataError(
            f"{cases.name}: none of {len(cases)} cases holds {names}; correct the label ids, or "
            "choose other cases"
        )
    return cases.select(kept)


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")

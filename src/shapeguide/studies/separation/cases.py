"""The cases of table 1: who has which structure, and the masks of those held out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shapeguide.data.dataset import Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.storage.whole import write_json
from shapeguide.studies.separation.folder import Table1Files
from shapeguide.studies.systems.folder import read_json
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import MaskBank
from shapeguide.training.stages.shape import mask_bank

FEWEST_PEOPLE = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StructureCases:
    """The cases that have one structure, and how many lack it."""

    structure: str
    train: Dataset
    test: Dataset
    train_lacking: int
    test_lacking: int


def cases_with_structures(
    train: Dataset, test: Dataset, files: Table1Files
) -> dict[str, StructureCases]:
    """The cases that have each structure; the label maps are read once for a results folder.

    Raises:
        ConfigError: If training cases or held-out ones of fewer than two people have a structure.
        DataError: If a label map cannot be read.
    """
    known = read_json(files.cases) if files.cases.is_file() else {}
    names = [item.name for item in train.structures]
    if any(name not in known for name in names):
        known.update(_find(train, test))
        write_json(files.cases, known)
    return {name: _chosen(name, train, test, known[name]) for name in names}


class HeldOutMasks:
    """Masks of the held-out cases; the cases that were prepared last are kept."""

    def __init__(self, settings: TrainSettings) -> None:
        self._limit_bytes = int(settings.data.memory_limit_gb * 1024**3)
        self._key: object = None
        self._prepared: PreparedCases | None = None

    def bank(
        self,
        cases: StructureCases,
        space: WorkingSpace,
        settings: TrainSettings,
        device: torch.device,
    ) -> MaskBank:
        """The masks of one structure as a shape network of these settings sees them.

        Raises:
            DataError: If a case cannot be used, or does not fit into the working space.
        """
        key = (cases.structure, space)
        if self._prepared is None or self._key != key:
            self._prepared = PreparedCases(
                tuple(cases.test), space, memory_limit_bytes=self._limit_bytes
            )
            self._key = key
        return mask_bank(self._prepared, space, settings, device)


def _find(train: Dataset, test: Dataset) -> dict[str, dict[str, list[str]]]:
    """Ids of the cases that have each structure, by structure and side."""
    found: dict[str, dict[str, list[str]]] = {
        item.name: {"train": [], "test": []} for item in train.structures
    }
    for side, cases in (("train", train), ("test", test)):
        for case in cases:
            present = np.unique(case.read_label_map().class_indices())
            for index, item in enumerate(train.structures, start=1):
                if index in present:
                    found[item.name][side].append(case.id)
    return found


def _chosen(
    structure: str, train: Dataset, test: Dataset, present: Mapping[str, Any]
) -> StructureCases:
    label_ids = {item.name: item.label_ids for item in train.structures}[structure]
    sides = {
        name: side.select(present[name]).with_structures(**{structure: label_ids})
        for name, side in (("train", train), ("test", test))
    }
    for name, side in (("train", train), ("test", test)):
        lacking = len(side) - len(sides[name])
        role = "training" if name == "train" else "held-out"
        people = {case.person for case in sides[name]}
        if len(people) < FEWEST_PEOPLE:
            raise ConfigError(
                f"{train.name}: table 1 compares people and needs {role} cases of at least "
                f"{FEWEST_PEOPLE} with {structure}, found {len(people)} ({lacking} of {len(side)} "
                "cases lack it); choose another split or leave the structure out"
            )
        if lacking:
            logger.warning(
                "%s: %d of %d %s cases lack it and are left out",
                structure, lacking, len(side), role,
            )  # fmt: skip
    return StructureCases(
        structure,
        sides["train"],
        sides["test"],
        train_lacking=len(train) - len(sides["train"]),
        test_lacking=len(test) - len(sides["test"]),
    )

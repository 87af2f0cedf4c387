"""The heads that all systems are trained and tested on, and the split that they share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.nifti import read_label_map, write_label_map
from shapeguide.errors import ConfigError
from shapeguide.storage.whole import read_json, write_json

COHORT = "miccai2012"
STRUCTURES = {
    "left_caudate": 37,
    "right_caudate": 36,
    "left_hippocampus": 48,
    "right_hippocampus": 47,
}
"""Label id of each structure; the class indices of the other systems follow this order, from 1."""
SPLIT_FILE = "split.json"
DEVELOPMENT_TESTS = 4


@dataclass(frozen=True, eq=False)
class Heads:
    """Training and test cases, and the file of their split."""

    folder: Path
    """Folder of the dataset."""
    train: Dataset
    test: Dataset
    split_file: Path


def choose_heads(data: Path, out: Path, *, development: bool = False) -> Heads:
    """The heads of an out folder; the first call notes their split there.

    Args:
        data: Folder that holds the dataset.
        out: Out folder of the comparison.
        development: Test on four of the training heads, train on the others, and leave the test
            scans alone.

    Raises:
        ConfigError: If the out folder was made with the other split.
    """
    folder = data / COHORT
    named = {name: (label_id,) for name, label_id in STRUCTURES.items()}
    dataset = read_dataset(folder).with_structures(**named)
    train, test = dataset.split("split.json")
    if development:
        train, test = train.split_at_random(test_count=DEVELOPMENT_TESTS, seed=0)
    split = {"train": [case.id for case in train], "test": [case.id for case in test]}
    path = out / SPLIT_FILE
    if not path.exists():
        write_json(path, split)
    elif read_json(path) != split:
        raise ConfigError(
            f"{path}: this folder was made with another split; choose another --out, or the same "
            "answer to --development"
        )
    return Heads(folder, train, test, path.resolve())


def write_classes(case: Case, path: Path) -> None:
    """Write the label map of a case with class indices in place of label ids."""
    label_map = case.read_label_map()
    write_label_map(replace(label_map, data=label_map.class_indices(), structures=()), path)


def write_label_ids(classes: Path, out: Path) -> None:
    """Write the label maps of a folder of class indices with the label ids of the structures.

    Args:
        classes: Folder of .nii.gz files of class indices.
        out: Folder of the label maps, under the same names.
    """
    ids = np.array([0, *STRUCTURES.values()], dtype=np.uint8)
    for path in sorted(classes.glob("*.nii.gz")):
        found = read_label_map(path)
        write_label_map(replace(found, data=ids[found.data]), out / path.name)

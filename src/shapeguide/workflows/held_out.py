"""Which cases a training kept for testing: its run folder notes them."""

from __future__ import annotations

from pathlib import Path

from shapeguide.data.dataset import Dataset
from shapeguide.data.layouts import is_description
from shapeguide.data.scan_files import list_scans
from shapeguide.data.splits import Split, read_split
from shapeguide.training.engine.run_folder import SPLIT_FILE


def held_out_cases(run_dir: str | Path, dataset: Dataset) -> Dataset | None:
    """The cases of a dataset that the training of a run kept for testing.

    Args:
        run_dir: Run folder.
        dataset: What it was trained on, or another dataset.

    Returns:
        None where the run kept none, or the dataset is not the one of its training.

    Raises:
        DataError: If the split file of the run is damaged.
    """
    split, known = _split_of(run_dir), {case.id for case in dataset}
    if not split.test or not known.issuperset((*split.train, *split.test)):
        return None
    kept = set(split.test)
    return dataset.select(case.id for case in dataset if case.id in kept)


def trained_on(run_dir: str | Path, dataset: Dataset) -> tuple[str, ...]:
    """Ids of the cases of a dataset that a run was trained on, as far as its split tells.

    Raises:
        DataError: If the split file of the run is damaged.
    """
    trained = set(_split_of(run_dir).train)
    return tuple(case.id for case in dataset if case.id in trained)


def is_dataset(path: Path) -> bool:
    """Whether a path is a description or table, or a folder of one or in a layout: not of scans."""
    if not path.is_dir():
        return is_description(path)
    return (path / "dataset.json").is_file() or not list_scans(path)


def _split_of(run_dir: str | Path) -> Split:
    path = Path(run_dir) / SPLIT_FILE
    return read_split(path) if path.is_file() else Split((), ())

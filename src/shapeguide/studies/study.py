"""What all studies share: whose folder it is, who has which structure, cells, and their seconds.

A study compares conditions. It claims its results folder, hands `run_study` the cells that are not
finished, and makes its tables from all that are; so the same call goes on where a killed one ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shapeguide.cells import Cell, Ended, Workers, run_cells
from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset, check_apart, check_occurring
from shapeguide.errors import CheckpointError, ConfigError, DataError
from shapeguide.progress import ProgressBar
from shapeguide.storage.identity import FolderKind, claim
from shapeguide.storage.lock import locked
from shapeguide.storage.whole import read_json, write_json
from shapeguide.training.engine.run_folder import dataset_identity

HEARTBEAT_SECONDS = 5.0

Present = Mapping[str, Mapping[str, Sequence[str]]]
"""Ids of the cases that have a structure, by structure and side (`train` or `test`)."""


@dataclass(frozen=True)
class StudyFiles:
    """Where everything of a study lies."""

    folder: Path

    @property
    def cases(self) -> Path:
        """Which cases have which structure."""
        return self.folder / "cases.json"

    def table(self, name: str) -> Path:
        """A table of the results."""
        return self.folder / f"{name}.csv"

    @property
    def figures(self) -> Path:
        """Folder of the pictures."""
        return self.folder / "figures"


@contextmanager
def claimed_study(
    files: StudyFiles,
    kind: FolderKind,
    cases: tuple[Dataset, Dataset],
    identity: Mapping[str, Any],
) -> Iterator[Present]:
    """Work alone in the results folder of a study: a new one, or one that the same study left.

    Args:
        files: Where everything of the folder lies.
        kind: Which study it is.
        cases: Training cases and held-out ones.
        identity: What decides on the results besides the cases, as plain values.

    Yields:
        Which cases have which structure.

    Raises:
        ConfigError: If another process works in the folder, it holds another study or something
            else, no structure is chosen, held-out cases show people that are trained on, or no case
            at all has one of the structures.
        CheckpointError: If a file of an earlier start is damaged, or the folder cannot be written.
        DataError: If a file of a case cannot be read: now rather than after hours.
    """
    train, test = cases
    with locked(files.folder):
        train.require_structures()
        check_apart(train, test)
        dataset = dataset_identity(train, test=test)
        structures = dataset.pop("structures")
        claim(files.folder, kind, {"dataset": dataset, "structures": structures, **identity})
        yield _present_structures(train, test, files)


def _present_structures(train: Dataset, test: Dataset, files: StudyFiles) -> Present:
    """Which cases have which structure; label maps and test images are read once for a folder."""
    names = [item.name for item in train.structures]
    known = read_object(files.cases) if files.cases.is_file() else {}
    if any(name not in known for name in names):
        for case in test:
            case.read_volume()
        known |= {name: {"train": [], "test": []} for name in names}
        for side, cases in (("train", train), ("test", test)):
            for case in cases:
                label_map = case.read_label_map()
                for item in train.structures:
                    if label_map.mask(item).any():
                        known[item.name][side].append(case.id)
        write_json(files.cases, known)
    check_occurring(
        train, [item for item in train.structures if not any(known[item.name].values())]
    )
    return {name: known[name] for name in names}


def with_absolute_paths(cases: Dataset) -> Dataset:
    """The cases as a worker in another folder finds them."""

    def found(case: Case) -> Case:
        label_map = None if case.label_map is None else case.label_map.absolute()
        return replace(
            case,
            image=case.image.absolute(),
            label_map=label_map,
            further_channels=tuple(path.absolute() for path in case.further_channels),
        )

    pool = tuple(map(found, cases.pool))
    return replace(cases, cases=tuple(map(found, cases)), unlabelled=(), pool=pool)


def run_study(
    cells: Sequence[Cell],
    workers: Workers,
    *,
    counted: Collection[str],
    done: int = 0,
    progress: bool = True,
    on_end: Callable[[Ended], None] = lambda _: None,
) -> dict[str, str]:
    """Run the cells of a study that are not finished, with a bar that counts some of them.

    Args:
        cells: What is left to do; needs before what needs them.
        workers: Where they run.
        counted: Names of the cells that the bar counts.
        done: How many such were finished before.
        progress: Show the bar.
        on_end: Called for each cell that ends.

    Returns:
        Why each failed cell failed, by name.
    """
    start, ended_well = time.perf_counter(), 0
    with ProgressBar("cells", total=done + len(counted), done=done, shown=progress) as bar:

        def end(ended: Ended) -> None:
            nonlocal ended_well
            if ended.name in counted and ended.error is None:
                ended_well += 1
                hours = (time.perf_counter() - start) / 3600
                bar.update(done + ended_well, {"cells/h": ended_well / hours})
            on_end(ended)

        return run_cells(cells, workers, on_end=end)


def none_finished(folder: Path, failures: Mapping[str, str]) -> ConfigError:
    """The error of a study that has nothing to show."""
    reasons = "; ".join(f"{name}: {why}" for name, why in list(failures.items())[:3])
    return ConfigError(f"{folder}: no cell is finished: {reasons}")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a study.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        content = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{error}; delete it to have it made again") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} is damaged: it holds no object; delete it to have it made again"
        )
    return content


def seconds_of(folder: Path, step: str) -> float:
    """Seconds that a step took, over all its starts; 0 when it never ran.

    Raises:
        CheckpointError: If the file that notes them is damaged.
    """
    path = folder / f"seconds_{step}.json"
    if not path.is_file():
        return 0.0
    found = read_object(path).get("seconds")
    if not isinstance(found, float | int):
        raise CheckpointError(f"{path} is damaged: it states no seconds; delete it")
    return float(found)


@contextmanager
def stopwatch(folder: Path, step: str) -> Iterator[None]:
    """Add the seconds of the block to those of earlier starts.

    They are written every few seconds, so that a killed start counts too.
    """
    before, start = seconds_of(folder, step), time.perf_counter()
    path, ended = folder / f"seconds_{step}.json", threading.Event()

    def write() -> None:
        # Whoever works in the folder claims it first, and must find it empty.
        if folder.is_dir() and any(folder.iterdir()):
            write_json(path, {"seconds": round(before + time.perf_counter() - start, 2)})

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            write()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        write()

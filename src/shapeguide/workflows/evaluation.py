"""Score a folder of predictions against references, and against other predictions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.layouts import is_description
from shapeguide.data.nifti import read_label_map
from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.volume import LabelMap, Structure, check_structures
from shapeguide.inference.provenance import cases_in, structures_in
from shapeguide.metrics.scores import Row, Scores, error_rows, score, score_rows, score_table
from shapeguide.metrics.summary import compare, summarise
from shapeguide.storage.whole import write_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trouble:
    """Why one case has no scores."""

    case: str
    reason: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What became of every reference."""

    scores: pd.DataFrame
    """One row per case and structure; a case without scores has its rows too, with the error."""
    summary: pd.DataFrame
    """Per structure and metric, from `summarise`."""
    missing: tuple[str, ...]
    """Ids of the cases for which there is no prediction."""
    troubles: tuple[Trouble, ...]
    """Cases that could not be scored although there is a prediction."""
    comparison: pd.DataFrame | None = None
    """These predictions minus the other ones, from `compare`."""
    against: Evaluation | None = None
    """What became of the other predictions."""

    @property
    def complete(self) -> bool:
        """Whether every reference was scored, and for the other predictions too."""
        whole = not self.missing and not self.troubles
        return whole and (self.against is None or self.against.complete)


@dataclass(frozen=True)
class _Reference:
    case: str
    read: Callable[[], LabelMap]


def evaluate(
    predictions: str | Path,
    references: str | Path | Dataset,
    structures: tuple[Structure, ...] = (),
    *,
    out: str | Path | None = None,
    against: str | Path | None = None,
) -> Evaluation:
    """Score the label maps of a folder, paired with their references by case id.

    The case id is the file name without its ending. A case whose prediction is missing, broken or
    on another grid has rows with the error in the table and does not stop the others.

    A folder of `predict_files` notes which cases it was asked for. References that are named by a
    path are those of these cases, for instance of the test cases of a training; those of a
    `Dataset` are all of its cases.

    Args:
        predictions: Folder of label maps.
        references: A dataset, its description, its folder, or a folder of label maps. Cases of a
            dataset without a label map are left out.
        structures: What to score. By default those that the predictions were made for, which
            `predict_files` notes in their folder, and else those of the dataset. Where neither
            states any, they must be given.
        out: CSV file for the table of scores, written whole; an older one is replaced.
        against: Folder of other predictions of the same cases, to compare case by case.

    Returns:
        Scores, their summary, and everything that could not be scored.

    Raises:
        DataError: If a folder or all references are missing, or no case at all could be scored.
        GeometryError: If no case could be scored and the first had another grid than its reference.
        ConfigError: If it is not known which structures to score.
    """
    structures, cases = _references(references, structures or structures_in(Path(predictions)))
    if not isinstance(references, Dataset):
        cases = _asked_of(Path(predictions), cases)
    first = _evaluate_folder(Path(predictions), cases, structures)
    if out is not None:
        write_table(Path(out), first.scores)
    if against is None:
        return first
    second = _evaluate_folder(Path(against), cases, structures)
    return replace(first, comparison=compare(first.scores, second.scores), against=second)


def _evaluate_folder(
    folder: Path, references: list[_Reference], structures: tuple[Structure, ...]
) -> Evaluation:
    files = label_map_files(folder)
    missing: list[str] = []
    failures: dict[str, Exception] = {}
    rows: list[Row] = []
    for reference in references:
        case = reference.case
        if case not in files:
            missing.append(case)
            rows += error_rows(case, structures, f"no prediction in {folder}")
            continue
        try:
            scores = _score_case(files[case], reference, structures)
        except Exception as error:  # whatever is wrong with a case, the others are scored
            failures[case] = error
            rows += error_rows(case, structures, str(error) or type(error).__name__)
        else:
            rows += score_rows(case, scores)
    if len(missing) == len(references):
        raise DataError(
            f"{folder}: no prediction for any of {len(references)} cases; expected files such as "
            f"{references[0].case}.nii.gz, found {_names(list(files))}"
        )
    if len(missing) + len(failures) == len(references):
        raise next(iter(failures.values()))
    table = score_table(rows)
    troubles = tuple(
        Trouble(case, str(error) or type(error).__name__) for case, error in failures.items()
    )
    return Evaluation(table, summarise(table), tuple(missing), troubles)


def _score_case(path: Path, reference: _Reference, structures: tuple[Structure, ...]) -> Scores:
    prediction = read_label_map(path, structures=structures)
    reference_map = reference.read()
    try:
        return score(prediction, reference_map)
    except GeometryError as error:
        raise GeometryError(f"{reference.case}: {error}") from error


def _asked_of(folder: Path, references: list[_Reference]) -> list[_Reference]:
    """References of the cases that were asked of a folder of predictions; all where none are."""
    asked = set(cases_in(folder))
    wanted = [reference for reference in references if reference.case in asked]
    if wanted and len(wanted) < len(references):
        logger.info(
            "%s was asked for %d of %d cases; the others are not scored",
            folder, len(wanted), len(references),
        )  # fmt: skip
    return wanted or references


def label_map_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by case id, in order of the ids; hidden files are left out.

    Raises:
        DataError: If there is no such folder, or two files have the same case id.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected a folder of label maps")
    files: dict[str, Path] = {}
    for path in list_scans(folder):
        case = case_id_of(path)
        if case in files:
            raise DataError(f"case {case} has two files: {files[case]} and {path}; keep one")
        files[case] = path
    return files


def _references(
    references: str | Path | Dataset, structures: tuple[Structure, ...]
) -> tuple[tuple[Structure, ...], list[_Reference]]:
    """What to score, and how to read the reference of each case."""
    if not isinstance(references, Dataset):
        folder = Path(references)
        files = {} if is_description(folder) else label_map_files(folder)
        if files and not (folder / "dataset.json").exists():
            return _folder_references(folder, files, structures)
        references = read_dataset(folder)
    if structures:
        named = {structure.name: structure.label_ids for structure in structures}
        references = references.with_structures(**named)
    structures = references.all_structures

    def reader(case: Case) -> Callable[[], LabelMap]:
        return lambda: replace(case.read_label_map(), structures=structures)

    cases = [_Reference(case.id, reader(case)) for case in references if case.label_map is not None]
    if not cases:
        raise DataError(f"{references.name}: no case has a label map, so there is no reference")
    return structures, cases


def _folder_references(
    folder: Path, files: dict[str, Path], structures: tuple[Structure, ...]
) -> tuple[tuple[Structure, ...], list[_Reference]]:
    if not structures:
        raise ConfigError(
            f"{folder} holds label maps but does not say what their label ids stand for; "
            "name the structures, for instance --structure hippocampus=1,2"
        )
    check_structures(structures, nested=True)

    def reader(path: Path) -> Callable[[], LabelMap]:
        return lambda: read_label_map(path, structures=structures)

    return structures, [_Reference(case, reader(path)) for case, path in files.items()]


def _names(cases: list[str]) -> str:
    if not cases:
        return "no label maps"
    return ", ".join(cases[:3]) + (", ..." if len(cases) > 3 else "")

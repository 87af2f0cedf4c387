"""How well shape distances tell people apart, by objective and pose of the shape network: table 1.

As published it compares the mean distance of affine pairs of one case with that of two cases. Here
it does so on cases that no network was trained on, with what a mean hides: the chance that a
same-case pair is closer (AUC), retrieval, the spread of the signatures. Beside it stand two probes:
warps beyond the training range, and errors of rising size.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shapeguide.cells import HERE, Cell, Ended, Workers
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.storage.identity import FolderKind
from shapeguide.studies.separation.design import Condition, SeparationDesign
from shapeguide.studies.separation.figures import draw_figures
from shapeguide.studies.separation.measure import (
    Measured,
    SeparationFiles,
    SeparationStudy,
    finished,
    measure_condition,
)
from shapeguide.studies.separation.tables import condition_table, write_tables
from shapeguide.studies.study import (
    claimed_study,
    none_finished,
    run_study,
    with_absolute_paths,
)
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import resolve

KIND = FolderKind(
    "study of separation",
    "study.json",
    identity=("settings", "dataset", "structures", "pairs"),
    growing=("settings", "structures"),
)
"""More objectives, poses, seeds and structures may be added; settings and cases may not change."""
CHOSEN_BY_CONDITION: Mapping[str, Any] = {
    "machine": True,
    "seed": True,
    "guidance": True,
    "shape": {"objective", "pose"},
}
"""Settings that may differ between two starts, or differ between the conditions."""
FEWEST_PEOPLE = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SeparationResult:
    """What a study of separation found, and where it lies."""

    folder: Path
    table: pd.DataFrame
    """What `table1.csv` holds."""
    measured: Mapping[Condition, Measured]
    failures: Mapping[str, str]
    """Why a condition failed, by its name; the others are done all the same."""


def study_separation(
    train: Dataset,
    test: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    design: SeparationDesign | None = None,
    workers: Workers = HERE,
    progress: bool = True,
) -> SeparationResult:
    """Train a shape network for each condition and measure it on held-out cases.

    The same call on the folder of a killed study goes on where it ended; finished conditions are
    never computed again. More objectives, poses, seeds or structures may be added later.

    Args:
        train: Cases to train on.
        test: Cases to measure on, of other people.
        out: Results folder: `table1.csv`, `warps.csv`, `errors.csv`, `published.csv` where the
            paper names a structure, `figures/`, and a run folder for each condition in `cells/`.
        settings: Settings, or the name of a preset; objective, pose and seed are those of the
            condition.
        design: What is compared; every objective in every pose with one seed when not given.
        workers: Where the cells run.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder holds another study, a person is on both sides, fewer than two
            people of either side have a structure, or every condition fails.
        DataError: If a case cannot be used.
        CheckpointError: If a file of an earlier start is damaged.
    """
    settings, design = resolve(settings), design or SeparationDesign()
    files = SeparationFiles(Path(out).absolute())
    identity = {
        "settings": settings.model_dump(mode="json", exclude=dict(CHOSEN_BY_CONDITION)),
        "pairs": design.pairs,
    }
    with claimed_study(files, KIND, (train, test), identity) as present:
        train, test = with_absolute_paths(train), with_absolute_paths(test)
        study = SeparationStudy(files, train, test, settings, design.pairs, present)
        _check_people(study)
        return _run(study, design, workers, progress)


def _run(
    study: SeparationStudy, design: SeparationDesign, workers: Workers, progress: bool
) -> SeparationResult:
    files, structures = study.files, list(study.present)
    conditions = list(design.conditions(structures))
    gpu = study.settings.machine.device == "cuda"
    cells = [
        Cell(f"measure {one.folder_name}", measure_condition, (study, one), gpu=gpu)
        for one in conditions
        if not files.measured(one).is_file()
    ]

    def write(_: Ended) -> None:
        # After each cell, so that a long study can be looked at.
        write_tables(study.train.name, finished(files, structures), files)

    failures = run_study(
        cells,
        workers,
        counted={cell.name for cell in cells},
        done=len(conditions) - len(cells),
        progress=progress,
        on_end=write,
    )
    measured = finished(files, structures)
    if not measured:
        raise none_finished(files.folder, failures)
    write_tables(study.train.name, measured, files)
    if cells or not files.figures.is_dir():
        draw_figures(files, measured, study.settings)
    return SeparationResult(
        files.folder, condition_table(study.train.name, measured), measured, failures
    )


def _check_people(study: SeparationStudy) -> None:
    """Refuse structures that too few people have, and say which cases are left out."""
    for structure in study.present:
        chosen = study.cases(structure)
        named = (("training", study.train), ("held-out", study.test))
        for (role, everyone), cases in zip(named, chosen, strict=True):
            lacking = len(everyone) - len(cases)
            people = len({case.person for case in cases})
            if people < FEWEST_PEOPLE:
                raise ConfigError(
                    f"{everyone.name}: the study of separation compares people and needs {role} "
                    f"cases of at least {FEWEST_PEOPLE} with {structure}, found {people} ({lacking}"
                    f" of {len(everyone)} cases lack it); choose another split or leave the "
                    "structure out"
                )
            if lacking:
                logger.warning(
                    "%s: %d of %d %s cases lack it and are left out",
                    structure, lacking, len(everyone), role,
                )  # fmt: skip

"""Systems compared, from the first training to the last figure: table 2."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shapeguide.cells import HERE, Cell, Workers
from shapeguide.data.dataset import Dataset
from shapeguide.data.working_space import choose_working_space
from shapeguide.errors import ConfigError, DataError
from shapeguide.models.segmenter import divisor_of
from shapeguide.storage.identity import FolderKind, compare
from shapeguide.storage.whole import write_table
from shapeguide.studies.study import (
    Present,
    claimed_study,
    none_finished,
    run_study,
    seconds_of,
    with_absolute_paths,
)
from shapeguide.studies.systems.cases_shown import write_case_pictures
from shapeguide.studies.systems.compare import comparisons, summary
from shapeguide.studies.systems.design import Condition, SystemsDesign
from shapeguide.studies.systems.figures import write_figures
from shapeguide.studies.systems.scoring import is_scored, read_scores, score_condition
from shapeguide.studies.systems.training import (
    SYSTEM,
    GuideKey,
    SystemsFiles,
    SystemsStudy,
    guide_key,
    restorers,
    train_condition,
    train_guide,
    training_cases,
    unguided_of,
)
from shapeguide.training.cohort import hold_out
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.guidance import ShapeGuidance
from shapeguide.training.settings.presets import resolve

KIND = FolderKind(
    "study of systems",
    "study.json",
    identity=("settings", "dataset", "structures"),
    growing=("settings",),
)
"""Systems, seeds, regimes and corruptions are no part of its identity: more of them may be asked
for later. Groups of settings that an earlier version did not know are no difference."""
CHOSEN_BY_CONDITION = ("seed", "guidance", "machine")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SystemsResult:
    """What a study of systems found, and where it lies."""

    folder: Path
    scores: pd.DataFrame
    """One row per case, structure, condition, image, post-processing and weights, with whom the
    case shows; `table2.csv`."""
    summary: pd.DataFrame
    """`table2_summary.csv`."""
    comparisons: pd.DataFrame
    """`table2_comparisons.csv`."""
    cells: pd.DataFrame
    """Seconds of each finished condition over all its starts; `table2_cells.csv`."""
    failures: Mapping[str, str]
    """Why a training or a test failed, by its name; the others are done all the same."""
    left_out: Mapping[str, Sequence[str]]
    """Cases by structure that they do not have; they count in nothing of it."""
    not_shown: int = 0
    """Finished conditions of the folder that this design does not ask for: the tables are without
    them, until it does."""

    @property
    def complete(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def study_systems(
    train: Dataset,
    test: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    design: SystemsDesign | None = None,
    workers: Workers = HERE,
    only: str | None = None,
    keep_predictions: bool = False,
    progress: bool = True,
) -> SystemsResult:
    """Train every system in every regime by every seed, test it, and compare in pairs.

    In a regime, all systems of a seed see the same cases; those with the plain 3D U-Net's network
    take over its iterations on Dice and see the same batches afterwards.

    Args:
        train: Cases with label maps and structures.
        test: Cases that no training sees.
        out: Results folder. The same call goes on with a stopped study; more systems, seeds,
            regimes or corruptions may be added later, and what is finished is never done again.
        settings: Those of every training, or the name of a preset; seed and guidance are the
            condition's own.
        design: What is compared; everything when not given.
        workers: Where the cells run.
        only: One condition to do, as `regime/seed/system`, with what it branches from.
        keep_predictions: Also write the label maps of the test cases, and pictures of the best,
            the median and the worst of them.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder holds another study, or a regime or system cannot be trained on
            these cases.
        DataError: If a label map or test image cannot be read, or no case holds a structure.
    """
    design, settings = design or SystemsDesign(), resolve(settings)
    for system in design.systems:
        system.settings(settings, 0)  # what does not fit is refused before the folder is claimed
    settings = _in_one_space(train, settings, design)
    files = SystemsFiles(Path(out).absolute())
    plain = settings.model_dump(mode="json", exclude=set(CHOSEN_BY_CONDITION))
    with claimed_study(files, KIND, (train, test), {"settings": plain}) as present:
        left_out = _lacking(present, train, test)
        train, test = (
            with_absolute_paths(_with_any(cases, present, side))
            for side, cases in (("train", train), ("test", test))
        )
        study = SystemsStudy(files, train, test, settings, design, keep_predictions)
        _check(study, present)
        conditions = _chosen(design, only)
        cells = open_cells(study, conditions)
        counted = {cell.name for cell in cells} & {f"score {one.name}" for one in conditions}
        done = len(conditions) - len(counted)
        failures = run_study(cells, workers, counted=counted, done=done, progress=progress)
        return _collect(study, failures, left_out)


def open_cells(study: SystemsStudy, conditions: Iterable[Condition]) -> list[Cell]:
    """What is missing of these conditions, needs before what needs them; nothing that is finished.

    Raises:
        ConfigError: If the folder of a condition holds another system of that name.
    """
    cells: dict[str, Cell] = {}
    gpu = study.settings.machine.device == "cuda"

    def add_score(condition: Condition) -> None:
        needs = (add_training(condition),)
        # Without a restorer, the rest is scored all the same.
        waits = tuple(add_guide(key) for key in restorers(study, condition).values())
        add(f"score {condition.name}", Cell("", score_condition, (study, condition), needs, waits))

    def add_training(condition: Condition) -> str:
        name = f"train {condition.name}"
        if name not in cells and not study.is_trained(condition):
            unguided = [unguided_of(condition)] if study.takes_over(condition) else []
            needs = [add_training(one) for one in unguided]
            key = guide_key(condition)
            needs += [] if key is None else [add_guide(key)]
            add(name, Cell("", train_condition, (study, condition), tuple(needs)))
        return name

    def add_guide(key: GuideKey) -> str:
        name = f"guide {key.text}"
        if name not in cells and not study.is_trained(key):
            add(name, Cell("", train_guide, (study, key)))
        return name

    def add(name: str, cell: Cell) -> None:
        cells[name] = Cell(name, cell.call, cell.arguments, cell.needs, cell.waits, gpu)

    for condition in conditions:
        folder = study.files.condition(condition)
        found = compare(folder, SYSTEM, condition.system.described()) if folder.is_dir() else None
        if found is not None and found.differences:
            raise ConfigError(
                f"{folder} holds another system of that name: {found.told}. Choose another results "
                "folder, or delete this one"
            )
        if not is_scored(study, condition):
            add_score(condition)
    return list(cells.values())


def _in_one_space(train: Dataset, settings: TrainSettings, design: SystemsDesign) -> TrainSettings:
    """The space of all training cases, for all conditions: they differ in nothing else."""
    train.require_structures()
    data = settings.data
    courses = [one.settings(settings, 0).segmentation for one in design.systems]
    space = choose_working_space(
        train,
        spacing_mm=data.spacing_mm,
        spatial_shape=data.spatial_shape,
        largest_shape=data.largest_shape,
        centre=data.centre,
        normalisation=data.normalisation,
        # What every network of the table can halve, whichever of them are compared.
        divisor=max(divisor_of("unet3d", course.channels) for course in courses),
    )
    shared = data.changed(spacing_mm=space.spacing_mm, spatial_shape=space.spatial_shape)
    return settings.changed(data=shared)


def _lacking(present: Present, *sides: Dataset) -> dict[str, list[str]]:
    """Ids of the cases without each structure."""
    cases = [case.id for side in sides for case in side]
    return {
        name: [one for one in cases if one not in {*found["train"], *found["test"]}]
        for name, found in present.items()
    }


def _with_any(cases: Dataset, present: Present, side: str) -> Dataset:
    """The cases that have a structure."""
    for name, found in present.items():
        ids = [case.id for case in cases if case.id not in found[side]]
        if ids:
            listed = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
            logger.warning("%s: %d cases without it are left out: %s", name, len(ids), listed)
    kept = {one for found in present.values() for one in found[side]}
    if not kept:
        raise DataError(
            f"{cases.name}: none of {len(cases)} cases holds {', '.join(present)}; correct the "
            "label ids, or choose other cases"
        )
    return cases.select(case.id for case in cases if case.id in kept)


def _check(study: SystemsStudy, present: Present) -> None:
    """Refuse what could not be trained, before anything is.

    Raises:
        ConfigError: If a regime has too few cases, for itself or for a guide, or none with one of
            the structures, or weights are asked for that the settings do not keep.
    """
    train, design, settings = study.train, study.design, study.settings
    for condition in design.conditions():
        chosen = condition.system.settings(settings, condition.seed)
        cases = training_cases(train, condition.regime, condition.seed)
        if "best" in design.weights and hold_out(cases, chosen)[1] is None:
            raise ConfigError(
                f"{train.name}: {condition.name} holds no cases out of its {len(cases)} for "
                "validation, so it has no best weights to test; leave them or this regime out, or "
                "raise segmentation.validation_cases"
            )
        absent = [
            name for name, has in present.items() if not {c.id for c in cases} & {*has["train"]}
        ]
        if absent:
            raise ConfigError(
                f"{train.name}: none of the {len(cases)} training cases of {condition.name} has "
                f"{', '.join(absent)}; leave the structure or this regime out"
            )
        maps = train if condition.system.label_maps == "all" else cases
        if isinstance(chosen.guide, ShapeGuidance) and len(maps) < 2:
            raise ConfigError(
                f"{train.name}: {condition.name} has {len(maps)} training case; shape guidance "
                "learns how people differ and needs two; give more cases or leave "
                f"{condition.system.name} out"
            )
    if "average" in design.weights and settings.segmentation.average_decay == 0:
        raise ConfigError(
            "the average of the weights is to be tested but average_decay is 0, which keeps none; "
            "raise it, or test the last weights only"
        )


def _chosen(design: SystemsDesign, only: str | None) -> tuple[Condition, ...]:
    conditions = design.conditions()
    if only is None:
        return conditions
    chosen = tuple(one for one in conditions if one.name == only)
    if not chosen:
        names = ", ".join(one.name for one in conditions[:8])
        raise ConfigError(f"--only {only}: there is no such cell; cells are {names}, ...")
    return chosen


def _collect(
    study: SystemsStudy, failures: dict[str, str], left_out: dict[str, list[str]]
) -> SystemsResult:
    """Write the tables and figures of all finished conditions."""
    files, design = study.files, study.design
    finished = [one for one in design.conditions() if files.scores(one).is_file()]
    if not finished:
        raise none_finished(files.folder, failures)
    scores = pd.concat([_asked(design, read_scores(files.scores(one))) for one in finished])
    scores["person"] = scores["case"].map({case.id: case.person for case in study.test})
    found = SystemsResult(
        folder=files.folder,
        scores=scores.reset_index(drop=True),
        summary=summary(scores),
        comparisons=comparisons(scores),
        cells=_seconds(study, finished),
        failures=failures,
        left_out=left_out,
        not_shown=len(list(files.folder.glob("cells/*/*/*/scores.csv"))) - len(finished),
    )
    write_table(files.table("table2"), found.scores)
    write_table(files.table("table2_summary"), found.summary)
    write_table(files.table("table2_comparisons"), found.comparisons)
    write_table(files.table("table2_cells"), found.cells)
    write_figures(files, found.summary)
    if study.keep_predictions:
        write_case_pictures(study, finished, found.scores)
    return found


def _asked(design: SystemsDesign, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that this design asks for: a condition may hold more from an earlier one."""
    corruption = scores["regime"].str.partition("+")[2]
    clean = corruption == ""
    degraded = corruption.isin(design.corruptions) & scores["severity"].isin(design.severities)
    return scores[(clean | degraded) & scores["weights"].isin(design.weights)]


def _seconds(study: SystemsStudy, finished: Sequence[Condition]) -> pd.DataFrame:
    """Seconds of each condition: its guide, which others may share, its training and its test."""
    files, rows = study.files, []
    for condition in finished:
        key = guide_key(condition)
        folder = files.condition(condition)
        rows.append(
            {
                "cell": condition.name,
                "guide_seconds": 0.0 if key is None else seconds_of(files.guide(key), "train"),
                "train_seconds": seconds_of(folder, "train"),
                "score_seconds": seconds_of(folder, "score"),
            }
        )
    return pd.DataFrame(rows)

"""Table 2 from the first training to the last figure; a stopped one goes on where it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.progress import ProgressBar
from shapeguide.storage.whole import written_whole
from shapeguide.studies.systems.design import Cell, Table2Design
from shapeguide.studies.systems.experiment import Experiment
from shapeguide.studies.systems.figures import write_figures
from shapeguide.studies.systems.folder import ResultFiles, seconds_of
from shapeguide.studies.systems.guides import guide_key
from shapeguide.studies.systems.plan import plan_tasks
from shapeguide.studies.systems.regimes import check_design
from shapeguide.studies.systems.scheduler import run_tasks
from shapeguide.studies.systems.scoring import read_scores
from shapeguide.studies.systems.setup import set_up
from shapeguide.studies.systems.tables import comparisons, summary
from shapeguide.training.settings.groups import TrainSettings, resolve


@dataclass(frozen=True, eq=False)
class Table2:
    """What an experiment found, and where it lies."""

    folder: Path
    scores: pd.DataFrame
    """One row per case, structure, cell, image, post-processing and weights, with whom the case
    shows; `table2.csv`."""
    summary: pd.DataFrame
    """`table2_summary.csv`."""
    comparisons: pd.DataFrame
    """`table2_comparisons.csv`."""
    cells: pd.DataFrame
    """Seconds of each finished cell over all its starts; `table2_cells.csv`."""
    failures: Mapping[str, str]
    """Why a training or a test failed, by its name; the others are done all the same."""
    left_out: Mapping[str, Sequence[str]]
    """Cases by structure that they do not have; they count in nothing of it."""
    not_shown: int = 0
    """Finished cells of the folder that this design does not ask for: the tables are without them,
    until it does."""

    @property
    def complete(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def table2(
    train: Dataset,
    test: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    design: Table2Design | None = None,
    jobs: int = 1,
    only: str | None = None,
    keep_predictions: bool = False,
    progress: bool = True,
) -> Table2:
    """Train every system in every regime by every seed, test it, and compare in pairs.

    In a regime, all systems of a seed see the same cases; those with the plain 3D U-Net's network
    take over its iterations on Dice and see the same batches afterwards.

    Args:
        train: Cases with label maps and structures.
        test: Cases that no training sees.
        out: Results folder. The same call goes on with a stopped experiment; more systems, seeds,
            regimes or corruptions may be added later, and what is finished is never done again.
        settings: Of every training, or the name of a preset; seed and guidance are those of the
            cell.
        design: What is compared; everything when not given.
        jobs: Cells that are worked on at a time, each in its own process.
        only: One cell to do, as `regime/seed/system`, with what it branches from.
        keep_predictions: Also write the label maps of the test cases.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder holds another experiment, or a regime or system cannot be trained
            on these cases.
        DataError: If a label map or test image cannot be read, or no case holds a structure.
    """
    if jobs < 1:
        raise ConfigError(f"jobs: at least 1, found {jobs}")
    design, settings = design or Table2Design(), resolve(settings)
    for system in design.systems:
        system.settings(settings, 0)  # what does not fit is refused before the folder is claimed
    experiment, left_out = set_up(
        train,
        test,
        ResultFiles(Path(out)),
        settings=settings,
        design=design,
        keep_predictions=keep_predictions,
    )
    check_design(design, experiment.train, experiment.settings)
    failures = _run(experiment, _chosen(design, only), jobs, progress)
    return _collect(experiment, failures, left_out)


def _chosen(design: Table2Design, only: str | None) -> tuple[Cell, ...]:
    cells = design.cells()
    if only is None:
        return cells
    chosen = tuple(cell for cell in cells if cell.name == only)
    if not chosen:
        names = ", ".join(cell.name for cell in cells[:8])
        raise ConfigError(f"--only {only}: there is no such cell; cells are {names}, ...")
    return chosen


def _run(
    experiment: Experiment, cells: tuple[Cell, ...], jobs: int, progress: bool
) -> dict[str, str]:
    tasks = plan_tasks(experiment, cells)
    open_cells = {f"score {cell.name}" for cell in cells} & {task.name for task in tasks}
    done = len(cells) - len(open_cells)
    start, finished = time.perf_counter(), 0
    with ProgressBar("cells", total=len(cells), done=done, shown=progress) as bar:

        def on_done(name: str) -> None:
            nonlocal finished
            if name in open_cells:
                finished += 1
                hours = (time.perf_counter() - start) / 3600
                bar.update(done + finished, {"cells/h": finished / hours})

        return run_tasks(tasks, jobs=jobs, on_done=on_done)


def _collect(
    experiment: Experiment, failures: dict[str, str], left_out: dict[str, list[str]]
) -> Table2:
    """Write the tables and figures of all finished cells."""
    files, design = experiment.files, experiment.design
    cells = [cell for cell in design.cells() if files.scores(cell).is_file()]
    if not cells:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(failures.items())[:3])
        raise ConfigError(f"{files.folder}: no cell is finished: {reasons}")
    scores = pd.concat([_asked(design, read_scores(files.scores(cell))) for cell in cells])
    person = {case.id: case.person for case in experiment.test}
    scores["person"] = scores["case"].map(person)
    found = Table2(
        folder=files.folder,
        scores=scores.reset_index(drop=True),
        summary=summary(scores),
        comparisons=comparisons(scores),
        cells=_cell_table(experiment, cells),
        failures=failures,
        left_out=left_out,
        not_shown=len(list(files.folder.glob("cells/*/*/*/scores.csv"))) - len(cells),
    )
    for name, table in (
        ("table2", found.scores),
        ("table2_summary", found.summary),
        ("table2_comparisons", found.comparisons),
        ("table2_cells", found.cells),
    ):
        with written_whole(files.table(name)) as temporary:
            table.to_csv(temporary, index=False)
    write_figures(files, found.summary)
    return found


def _asked(design: Table2Design, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that this design asks for: a cell may hold more from an earlier one."""
    corruption = scores["regime"].str.partition("+")[2]
    clean = corruption == ""
    degraded = corruption.isin(design.corruptions) & scores["severity"].isin(design.severities)
    return scores[(clean | degraded) & scores["weights"].isin(design.weights)]


def _cell_table(experiment: Experiment, cells: Sequence[Cell]) -> pd.DataFrame:
    """Seconds of each cell: its guide, which other cells may share, its training and its test."""
    files = experiment.files
    rows = []
    for cell in cells:
        key = guide_key(cell)
        guide = 0.0
        if key is not None:
            guide = seconds_of(files.guide(key.regime, key.seed, key.name), "train")
        rows.append(
            {
                "cell": cell.name,
                "guide_seconds": guide,
                "train_seconds": seconds_of(files.cell(cell), "train"),
                "score_seconds": seconds_of(files.cell(cell), "score"),
            }
        )
    return pd.DataFrame(rows)

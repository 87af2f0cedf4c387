"""Table 1: how well shape distances tell people apart, by objective and pose of the shape network.

As published it compares the mean distance of affine pairs of one case with that of two cases. Here
it does so on cases that no network was trained on, with what a mean hides: the chance that a
same-case pair is closer (AUC), retrieval, the spread of the signatures. Beside it stand two probes:
warps beyond the training range, and errors of rising size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shapeguide.data.dataset import Dataset, check_apart
from shapeguide.studies.separation.cases import HeldOutMasks, cases_with_structures
from shapeguide.studies.separation.cell import Bench, Measured, finished_cells, measure_cell
from shapeguide.studies.separation.design import Cell, Table1Design
from shapeguide.studies.separation.figures import draw_figures
from shapeguide.studies.separation.folder import Table1Files, claim_results
from shapeguide.studies.separation.tables import cell_table, text_rows, write_tables
from shapeguide.training.settings.groups import TrainSettings, resolve


@dataclass(frozen=True, eq=False)
class Table1Result:
    """What table 1 found, and where it lies."""

    folder: Path
    table: pd.DataFrame
    """What `table1.csv` holds."""
    measured: Mapping[Cell, Measured]

    def rows(self) -> list[tuple[str, ...]]:
        """The table as text beside the published figures; the first row holds headings."""
        return text_rows(self.measured)


def table1(
    train: Dataset,
    test: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    design: Table1Design | None = None,
    progress: bool = True,
) -> Table1Result:
    """Train a shape network for each cell of the table and measure it on held-out cases.

    The same call on the folder of a killed experiment goes on where it ended; finished cells are
    never computed again. More objectives, poses, seeds or structures may be added later.

    Args:
        train: Cases to train on.
        test: Cases to measure on, of other people.
        out: Results folder: `table1.csv`, `warps.csv`, `errors.csv`, `published.csv` where the
            paper names a structure, `figures/`, and a run folder for each cell in `cells/`.
        settings: Settings, or the name of a preset; objective, pose and seed are those of the cell.
        design: What is compared; every objective in every pose with one seed when not given.
        progress: Show progress bars.

    Raises:
        ConfigError: If the folder holds another table, a case is on both sides, or fewer than two
            people of either side have a structure.
        DataError: If a case cannot be used.
        CheckpointError: If a file of an earlier start is damaged.
    """
    files, settings, design = Table1Files(Path(out)), resolve(settings), design or Table1Design()
    _check_sides(train, test)
    claim_results(files, train, test, settings, design.pairs)
    cases = cases_with_structures(train, test, files)
    bench = Bench(files, settings, design.pairs, HeldOutMasks(settings), progress)
    news = not files.pictures.is_dir()
    for cell in design.cells(list(cases)):
        news |= measure_cell(cell, cases[cell.structure], bench)
        # After each cell, so that a long experiment can be looked at.
        measured = finished_cells(files, list(cases))
        write_tables(train.name, measured, files)
    if news:
        draw_figures(files, measured, settings)
    return Table1Result(files.folder, cell_table(train.name, measured), measured)


def _check_sides(train: Dataset, test: Dataset) -> None:
    train.require_structures()
    check_apart(train, test)

"""The study of controls, from the first training to the last table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shapeguide.cells import HERE, Cell, Ended, Workers
from shapeguide.data.dataset import Dataset
from shapeguide.report.theme import LIGHT, as_png, write_picture
from shapeguide.storage.identity import FolderKind
from shapeguide.storage.whole import write_table
from shapeguide.studies.controls.design import ControlsDesign, Setting
from shapeguide.studies.controls.figures import ratio_figure
from shapeguide.studies.controls.measure import (
    ControlsFiles,
    ControlsStudy,
    measure_setting,
    read_measured,
)
from shapeguide.studies.separation.tables import published_of, published_table
from shapeguide.studies.study import claimed_study, none_finished, run_study, with_absolute_paths
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import resolve

KIND = FolderKind(
    "study of controls",
    "study.json",
    identity=("settings", "dataset", "structures", "pairs"),
    growing=("settings", "structures"),
)
"""More settings, seeds and structures may be added; what is common and cases may not change."""
READING = ("pose", "centre", "translation_mm", "offset_mm", "maps", "levels", "normalised")
"""Columns that say how masks were shown."""
DIGITS = 4


@dataclass(frozen=True, eq=False)
class ControlsResult:
    """What a study of controls found, and where it lies."""

    folder: Path
    table: pd.DataFrame
    """A row for each structure, seed, setting, observer and side; `controls.csv`."""
    summary: pd.DataFrame
    """Means over structures and seeds; `controls_summary.csv`."""
    failures: Mapping[str, str]


def study_controls(
    train: Dataset,
    test: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "paper",
    design: ControlsDesign | None = None,
    workers: Workers = HERE,
    progress: bool = True,
) -> ControlsResult:
    """Measure the published shape network in every reading of its table 1, with controls.

    The same call on the folder of a killed study goes on where it ended.

    Args:
        train: Cases to train on.
        test: Cases of other people, to measure on beside those.
        out: Results folder: `controls.csv`, `controls_summary.csv`, `published.csv` where the paper
            names a structure, `figures/ratios.png`.
        settings: Their working space, limits of warps and iterations count.
        design: What is varied.
        workers: Where the cells run.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder holds another study, or every setting fails.
        DataError: If a case cannot be used.
        CheckpointError: If a file of an earlier start is damaged.
    """
    settings, design = resolve(settings), design or ControlsDesign()
    files = ControlsFiles(Path(out).absolute())
    identity = {
        "settings": _common(settings),
        "pairs": design.pairs,
    }
    with claimed_study(files, KIND, (train, test), identity) as present:
        study = ControlsStudy(
            files, with_absolute_paths(train), with_absolute_paths(test), settings, design.pairs,
            present,
        )  # fmt: skip
        wanted = list(design.settings(list(present)))
        gpu = settings.machine.device == "cuda"
        cells = [
            Cell(one.folder_name, measure_setting, (study, one), gpu=gpu)
            for one in wanted
            if not files.measured(one).is_file()
        ]

        def write(_: Ended) -> None:
            _write_tables(files, wanted)

        failures = run_study(
            cells,
            workers,
            counted={cell.name for cell in cells},
            done=len(wanted) - len(cells),
            progress=progress,
            on_end=write,
        )
        if not any(files.measured(one).is_file() for one in wanted):
            raise none_finished(files.folder, failures)
        table, found = _write_tables(files, wanted)
        published = published_table(list(present))
        if len(published):
            write_table(files.table("published"), published, digits=DIGITS)
        figure = ratio_figure(found, _published_range(list(present)), LIGHT)
        write_picture(files.figures / "ratios.png", as_png(figure))
        return ControlsResult(files.folder, table, found, failures)


def summary_of(table: pd.DataFrame) -> pd.DataFrame:
    """Means over structures and seeds of each reading, observer and side, and the least and most.

    `scale` is the mean distance of two people over that of the network before training, of the
    same structure, seed and reading; where nothing was trained there is none.
    """
    named = ["structure", "seed", *READING, "people"]
    before = table[table["observer"] == "untrained"].set_index(named)["different"]
    scaled = table.join(before.rename("before"), on=named)
    trained = scaled["observer"] == "trained"
    scaled["scale"] = (scaled["different"] / scaled["before"]).where(trained)
    groups = scaled.groupby([*READING, "observer", "people"], sort=False)
    return groups.agg(
        ratio=("ratio", "mean"),
        ratio_least=("ratio", "min"),
        ratio_most=("ratio", "max"),
        auc=("auc", "mean"),
        rank1=("rank1", "mean"),
        scale=("scale", "mean"),
        count=("ratio", "size"),
    ).reset_index()


def _common(settings: TrainSettings) -> dict[str, Any]:
    warp = {"rotation_deg": settings.warp.rotation_deg, "scale": list(settings.warp.scale)}
    return {
        "data": settings.data.model_dump(mode="json"),
        "warp": warp,
        "shape": {"iterations": settings.shape.iterations},
    }


def _write_tables(
    files: ControlsFiles, wanted: Sequence[Setting]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        row
        for one in wanted
        if files.measured(one).is_file()
        for row in read_measured(files.measured(one))
    ]
    table = pd.DataFrame(rows)
    if table.empty:
        return table, table
    found = summary_of(table)
    write_table(files.table("controls"), table, digits=DIGITS)
    write_table(files.table("controls_summary"), found, digits=DIGITS)
    return table, found


def _published_range(structures: Sequence[str]) -> tuple[float, float] | None:
    """Least and largest published ratio of these structures; None where the paper has none."""
    found = [pair for name in structures if (pair := published_of(name)) is not None]
    ratios = [different / same for same, different in found]
    return (min(ratios), max(ratios)) if ratios else None

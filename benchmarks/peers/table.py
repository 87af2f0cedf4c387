"""Scores of all systems of an out folder, what they took, and the Markdown table of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shapeguide.data.dataset import Dataset
from shapeguide.data.nifti import read_label_map, write_label_map
from shapeguide.metrics.components import keep_largest_component
from shapeguide.metrics.statistics import cluster_interval, finite_mean
from shapeguide.storage.whole import read_json, write_table
from shapeguide.workflows.evaluation import evaluate, label_map_files

from .steps import Training, Usage, read_training, read_usage
from .systems import PREDICTIONS_FOLDER, SYSTEM_FILE

LARGEST_FOLDER = "predictions_largest"
SCORES_FILE = "scores.csv"
TABLE_FILE = "table.md"


@dataclass(frozen=True)
class Measure:
    """A metric of the table, of predictions as they come or with their largest component kept."""

    name: str
    metric: str
    digits: int
    largest: bool = False


MEASURES = (
    Measure("Dice", "dice", 3),
    Measure("HD95, mm", "hd95_mm", 2),
    Measure("Hausdorff, mm", "hausdorff_mm", 2),
    Measure("Dice, largest component", "dice", 3, largest=True),
    Measure("HD95, mm, largest component", "hd95_mm", 2, largest=True),
    Measure("Hausdorff, mm, largest component", "hausdorff_mm", 2, largest=True),
)


def score_systems(out: Path, test: Dataset) -> pd.DataFrame:
    """Score the predictions of every system of an out folder; written to its `scores.csv`.

    Args:
        out: Out folder of the comparison.
        test: Test cases, with their structures.

    Returns:
        One row per system, post-processing, case and structure: the columns of `evaluate`, and
        system (name of its folder), largest (whether the largest component was kept), person.

    Raises:
        SystemExit: If no system has predictions, or a prediction is missing or broken.
    """
    folders = system_folders(out)
    if not folders:
        raise SystemExit(f"{out}: no system has predicted anything there yet")
    people = {case.id: case.person for case in test}
    tables = []
    for folder in folders:
        _keep_largest(folder, test)
        for largest, name in ((False, PREDICTIONS_FOLDER), (True, LARGEST_FOLDER)):
            found = evaluate(folder / name, test)
            if not found.complete:
                raise SystemExit(
                    f"{folder / name}: missing {found.missing}, not scored {found.troubles}; "
                    "delete predict.json there and predict again"
                )
            scores = found.scores.assign(system=folder.name, largest=largest)
            tables.append(scores.assign(person=scores["case"].map(people)))
    table = pd.concat(tables, ignore_index=True)
    write_table(out / SCORES_FILE, table)
    return table


def system_folders(out: Path) -> list[Path]:
    """Folders of the systems that have predicted: ours first, then by name."""
    found = sorted(path.parent for path in out.glob(f"*/{SYSTEM_FILE}"))
    return sorted(found, key=lambda folder: not folder.name.startswith("shapeguide"))


def markdown_table(out: Path, scores: pd.DataFrame) -> str:
    """The table of all systems: a column for each, a row for each figure.

    Scores are means over scans with their 95 % interval over people, resampled with all their
    scans. Distances are means of found structures, and how many were missed stands beside them.

    Args:
        out: Out folder of the comparison.
        scores: From `score_systems`.
    """
    folders = [out / name for name in scores["system"].unique()]
    titles = [read_json(folder / SYSTEM_FILE)["title"] for folder in folders]
    lines = [_line("", titles), _line("---", ["---"] * len(titles))]
    for measure in MEASURES:
        for structure in scores["structure"].unique():
            chosen = scores[
                (scores["structure"] == structure) & (scores["largest"] == measure.largest)
            ]
            cells = [_mean(chosen[chosen["system"] == folder.name], measure) for folder in folders]
            lines.append(_line(f"{measure.name}, {structure.replace('_', ' ')}", cells))
    as_they_come = scores[~scores["largest"]]
    missed = as_they_come.groupby("system")["missed"].sum()
    of = as_they_come.groupby("system").size()
    lines.append(
        _line("missed", [f"{missed[folder.name]} of {of[folder.name]}" for folder in folders])
    )
    costs = [_costs(folder, scans=scores["case"].nunique()) for folder in folders]
    lines += [_line(name, [cost[name] for cost in costs]) for name in costs[0]]
    return "\n".join(lines) + "\n"


def _keep_largest(folder: Path, test: Dataset) -> None:
    """Write the predictions of a system with the largest component of each structure."""
    for case, path in label_map_files(folder / PREDICTIONS_FOLDER).items():
        kept = keep_largest_component(read_label_map(path, structures=test.structures))
        write_label_map(kept, folder / LARGEST_FOLDER / f"{case}.nii.gz")


def _mean(rows: pd.DataFrame, measure: Measure) -> str:
    values = rows.pivot_table(
        index="person", columns="case", values=measure.metric, dropna=False
    ).to_numpy(dtype=np.float64)
    low, high = cluster_interval(values)
    digits, mean = measure.digits, f"{finite_mean(values):.{measure.digits}f}"
    if mean == "nan":
        return "-"
    return f"{mean} ({low:.{digits}f} to {high:.{digits}f})" if np.isfinite(low) else mean


def _costs(folder: Path, *, scans: int) -> dict[str, str]:
    """What a system took, by what is told of it; a dash where it is not known."""
    prepared_in = read_json(folder / SYSTEM_FILE)["prepared_in"]
    preparing = read_usage(folder.parent / prepared_in, "prepare") if prepared_in else None
    training, predicting = read_usage(folder, "train"), read_usage(folder, "predict")
    return {
        "minutes of planning and preprocessing": _minutes(preparing),
        "minutes of the training command": _minutes(training),
        **_seen(read_training(folder)),
        "prediction, seconds per scan": f"{predicting.seconds / scans:.1f}" if predicting else "-",
        "peak memory of training, GB": f"{training.peak_memory_gb:.1f}" if training else "-",
        "peak memory of prediction, GB": f"{predicting.peak_memory_gb:.1f}" if predicting else "-",
    }


def _minutes(usage: Usage | None) -> str:
    return f"{usage.seconds / 60:.1f}" if usage else "-"


def _seen(training: Training | None) -> dict[str, str]:
    names = ("iterations", "batch, patch", "parameters, million", "million voxels trained a second")
    if training is None:
        return dict.fromkeys(names, "-")
    values = (
        str(training.iterations),
        f"{training.batch_size} of {'x'.join(map(str, training.patch))}",
        f"{training.parameters / 1e6:.1f}",
        f"{training.voxels_per_second / 1e6:.2f}",
    )
    return dict(zip(names, values, strict=True))


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"

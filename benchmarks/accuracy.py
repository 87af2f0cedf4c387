"""Accuracy of the plain and the guided segmenter on real data, as one command.

    python benchmarks/accuracy.py hippocampus --data DATA --out OUT
    python benchmarks/accuracy.py hippocampus-parts --data DATA --out OUT
    python benchmarks/accuracy.py heads --data DATA --out OUT --seeds 0 1

For each seed the plain segmenter is trained, the guided one branches from its Dice iterations,
and both predict the test cases with and without keeping the largest component; `restored` is the
guided one with its shape restorer, which is what `shapeguide train` and `predict` do. A stopped
command goes on where it was; the seconds of each training are written with its result.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.inference.prediction_files import PredictionOptions, predict_files
from shapeguide.metrics.summary import compare
from shapeguide.metrics.summary_text import comparison_rows
from shapeguide.models.restorer_model import RESTORER_FOLDER
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.workflows.evaluation import evaluate

BRAIN_MM = (160, 192, 144)


@dataclass(frozen=True)
class Task:
    """A dataset with its structures, its split and the settings that it needs."""

    folder: str
    structures: dict[str, tuple[int, ...]]
    split: str | None
    """File with the split; 40 test cases by the seed when not given."""
    settings: TrainSettings


def tasks(iterations: tuple[int, int] | None, spacing_mm: float) -> dict[str, Task]:
    """All tasks by name."""
    default = preset("default")
    if iterations is not None:
        dice, guided = iterations
        chosen = default.segmentation.changed(dice_iterations=dice, guided_iterations=guided)
        default = default.changed(segmentation=chosen)
    # Just the brain; prediction slides this window over the whole scan.
    i, j, k = (8 * round(length / spacing_mm / 8) for length in BRAIN_MM)
    heads = default.changed(
        data=default.data.changed(
            spacing_mm=(spacing_mm,) * 3, spatial_shape=(i, j, k), centre="foreground"
        ),
        warp=replace(default.warp, translation_mm=10.0),
        segmentation=default.segmentation.changed(batch_size=1, segmenter="unet3d"),
    )
    return {
        "hippocampus": Task("Task04_Hippocampus", {"hippocampus": (1, 2)}, None, default),
        "hippocampus-parts": Task(
            "Task04_Hippocampus", {"anterior": (1,), "posterior": (2,)}, None, default
        ),
        "heads": Task(
            "miccai2012",
            {"left_hippocampus": (48,), "left_caudate": (37,)},
            "split.json",
            heads,
        ),
    }


def main(
    task: tyro.conf.Positional[str],
    data: Path,
    out: Path,
    *,
    seeds: tuple[int, ...] = (0,),
    iterations: tuple[int, int] | None = None,
    spacing_mm: float = 2.0,
    systems: tuple[Literal["plain", "guided", "restored"], ...] = ("plain", "guided", "restored"),
) -> None:
    """Train, predict, score.

    Args:
        task: hippocampus, hippocampus-parts or heads.
        data: Folder that holds the datasets.
        out: Folder for runs, predictions and tables.
        seeds: One pair of trainings for each.
        iterations: Dice and guided iterations; those of the preset when not given.
        spacing_mm: Working spacing of the heads.
        systems: Guided alone is trained from the start, which gives the same weights. Restored is
            the guided run.
    """
    chosen = tasks(iterations, spacing_mm)[task]
    dataset = sg.read_dataset(data / chosen.folder).with_structures(**chosen.structures)
    tables = []
    for seed in seeds:
        train, test = (
            dataset.split(data / chosen.folder / chosen.split)
            if chosen.split
            else dataset.split_at_random(test_count=40, seed=0)
        )
        settings = chosen.settings.changed(seed=seed)
        for system in systems:
            run = out / f"seed{seed}_{'plain' if system == 'plain' else 'guided'}"
            seconds = train_one(train, system, run, settings, out / f"seed{seed}_plain")
            if system == "restored":
                seconds += train_its_restorer(train, run, settings)
            tables += predict_and_score(run, test, dataset, system, seed, seconds)
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(out / "scores.csv", index=False)
    show(table, out)


def train_one(
    train: Dataset, system: str, run: Path, settings: TrainSettings, plain: Path
) -> float:
    """Train a system unless it is finished; seconds that its trainings took in all starts."""
    clock = run / "seconds.json"
    spent = json.loads(clock.read_text()) if clock.is_file() else 0.0
    if (run / "model.json").is_file():
        return float(spent)
    start = time.monotonic()
    try:
        if system == "plain":
            sg.train_segmenter(train, run_dir=run, settings=settings)
        else:
            shape = sg.train_shape(train, run_dir=run / "shape", settings=settings)
            branch = plain if plain.is_dir() else None
            sg.train_segmenter(train, shape, run_dir=run, settings=settings, branch_from=branch)
    finally:
        spent += time.monotonic() - start
        if run.is_dir():
            clock.write_text(json.dumps(spent))
    return float(spent)


def train_its_restorer(train: Dataset, run: Path, settings: TrainSettings) -> float:
    """Train the restorer of a guided run unless it is finished; seconds of this start."""
    start = time.monotonic()
    sg.train_restorer(train, run_dir=run / RESTORER_FOLDER, settings=settings)
    sg.calibrate_restorer(run, train, share=settings.restorer.usual_share)
    return time.monotonic() - start


def predict_and_score(
    run: Path, test: Dataset, dataset: Dataset, system: str, seed: int, seconds: float
) -> list[pd.DataFrame]:
    """Scores of the test cases without and with the largest component kept."""
    tables = []
    for post in ("none", "largest"):
        name = f"{system}_{post}"
        folder = run / f"predictions_{name}"
        report = predict_files(
            sg.load_run(run, restorer="shape" if system == "restored" else "none"),
            [case.image for case in test],
            out_dir=folder,
            options=PredictionOptions(largest_component=post == "largest"),
        )
        if not report.complete:
            raise SystemExit(f"not predicted: {report.failed}")
        found = evaluate(folder, test, dataset.structures, out=run / f"scores_{name}.csv")
        scores = found.scores.assign(system=system, seed=seed, postprocess=post, seconds=seconds)
        tables.append(scores)
    return tables


def show(table: pd.DataFrame, out: Path) -> None:
    """Means over found cases with the count of missed ones, and paired comparisons."""
    names = ("structure", "system", "postprocess", "seed")
    shown = Table(*names, "cases", "missed", "Dice", "HD mm", "HD95 mm", "ASSD mm", "train s")
    for key, rows in table.groupby(list(names)):
        found = rows[~rows["missed"].astype(bool)]
        figures = [found[c].mean() for c in ("hausdorff_mm", "hd95_mm", "assd_mm")]
        shown.add_row(
            *map(str, key),
            str(len(rows)),
            str(len(rows) - len(found)),
            f"{rows['dice'].mean():.4f}",
            *(f"{value:.2f}" for value in figures),
            f"{rows['seconds'].iloc[0]:.0f}",
        )
    console = Console(width=150)
    console.print(shown)
    for (seed, post), rows in table.groupby(["seed", "postprocess"]):
        for first in ("guided", "restored"):
            one, plain = (rows[rows["system"] == system] for system in (first, "plain"))
            if len(one) and len(plain):
                headings, *compared = comparison_rows(compare(one, plain))
                title = f"{first} (first) against plain (second), seed {seed}, postprocess {post}"
                paired = Table(*headings, title=title)
                for row in compared:
                    paired.add_row(*row)
                console.print(paired)
    console.print(f"every case: {out / 'scores.csv'}")


if __name__ == "__main__":
    tyro.cli(main)

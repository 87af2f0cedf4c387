"""Recipes of the plain segmenter against each other, on cases that no test ever sees.

    python benchmarks/recipe.py crops-60 --data DATA --out OUT --trials base deep --seeds 0 1
    python benchmarks/recipe.py hippocampus --data DATA --out OUT --trials base deep
    python benchmarks/recipe.py heads --data DATA --out OUT --trials deep full --against deep

The crops are training cases of the Decathlon hippocampus, those that `accuracy.py` keeps for its
test left out: 42 of them are scored, 20 or 60 others are trained on. The regions are boxes around
one structure in the training heads of MICCAI 2012, or around caudate and hippocampus of both sides
(`heads`, as large as the region that the default preset lays there), their middle off by up to 3
voxels: 4 heads are scored, 11 trained on. Every scored scan is predicted as it is, and under one of
the degradations of the studies at severity 2, which go round over the cases (with the last weights
only); `heads` also as old people's, their ventricles grown by 3 and by 6 mm (`aged_heads.py`).
Crops are worked on at 1.5 mm, regions at 1 mm. A stopped command goes on where it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

import shapeguide as sg
from aged_heads import aged
from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.disturbing.images import degrade
from shapeguide.inference.prediction import predict
from shapeguide.metrics.scores import score, score_rows
from shapeguide.models.segmenter import load_segmenter
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.vocabulary import CORRUPTIONS

SEVERITY = 2
SCORED, SMALL_CROP = 42, (40, 56, 40)
OFF_VOXELS = 3
TaskName = Literal["crops-20", "crops-60", "hippocampus", "caudate", "heads"]
Shape = tuple[int, int, int]
BOXES: dict[str, tuple[dict[str, int], Shape]] = {
    "hippocampus": ({"hippocampus": 48}, (64, 64, 64)),
    "caudate": ({"caudate": 37}, (48, 72, 56)),
    "heads": (
        {
            "left_caudate": 37,
            "right_caudate": 36,
            "left_hippocampus": 48,
            "right_hippocampus": 47,
        },
        (96, 96, 80),
    ),
}
"""Structures with their label ids, and the shape of the box around them along R, A, S."""
DEVELOPMENT_HEADS = ("1000", "1006", "1012", "1036")
AGED_MM = (3, 6)
"""How far the ventricles of the aged heads are grown."""

DEEP_FAST = {"deep_supervision": True, "learning_rate": 5e-3}
DEEP_WARPED = {"deep_supervision": True, "warped_share": 0.8}
FULL = {**DEEP_WARPED, "elastic_mm": 1.5, "scanner_faults": 0.07}
BASE: dict[str, Any] = {
    "deep_supervision": False,
    "warped_share": 0.5,
    "elastic_mm": 0.0,
    "swelling_mm": 0.0,
    "scanner_faults": 0.0,
}
"""The default preset as it was."""
TRIALS: dict[str, dict[str, Any]] = {
    "base": {},
    "deep": {"deep_supervision": True},
    "faults": {"scanner_faults": 0.15},
    "deep-faults": {"scanner_faults": 0.15, "deep_supervision": True},
    "lr5e-3": {"learning_rate": 5e-3},
    "lr1e-2": {"learning_rate": 1e-2},
    "deep-lr5e-3": DEEP_FAST,
    "deep-lr5e-3-faults0.07": {**DEEP_FAST, "scanner_faults": 0.07},
    "deep-lr5e-3-warp0.8": {**DEEP_FAST, "warped_share": 0.8},
    "deep-lr5e-3-ce1": {**DEEP_FAST, "cross_entropy_weight": 1.0},
    "deep-lr5e-3-plain-images": {**DEEP_FAST, "intensity_augmentation": False},
    "deep-lr5e-3-levels3": {**DEEP_FAST, "channels": (16, 32, 64)},
    "deep-warp0.8": DEEP_WARPED,
    "deep-warp0.8-faults0.07": {**DEEP_WARPED, "scanner_faults": 0.07},
    "deep-warp0.8-elastic": {**DEEP_WARPED, "elastic_mm": 1.5},
    "full": FULL,
    "full-elastic2.5": {**FULL, "elastic_mm": 2.5},
    "full-faults0.12": {**FULL, "scanner_faults": 0.12},
    "full-lr4e-3": {**FULL, "learning_rate": 4e-3},
    "full-warp1": {**FULL, "warped_share": 1.0},
    "full-ce1": {**FULL, "cross_entropy_weight": 1.0},
    "full-no-deep": {**FULL, "deep_supervision": False},
    "full-levels3": {**FULL, "channels": (16, 32, 64)},
    "full-wide": {**FULL, "channels": (32, 64, 128, 256), "dice_iterations": 0.4},
    "base-long": {"dice_iterations": 2},
    "full-long": {**FULL, "dice_iterations": 2},
    "batch1": {"batch_size": 1, "dice_iterations": 2},
    "deep-x3": {"deep_supervision": True, "dice_iterations": 3},
    "deep-warp0.8-elastic-x3": {**DEEP_WARPED, "elastic_mm": 1.5, "dice_iterations": 3},
    "full-x3": {**FULL, "dice_iterations": 3},
    "full-x6": {**FULL, "dice_iterations": 6},
    "full-elastic3-x6": {**FULL, "elastic_mm": 3.0, "dice_iterations": 6},
    "full-elastic5-x3": {**FULL, "elastic_mm": 5.0, "dice_iterations": 3},
    "full-elastic3-swelling8-x3": {
        **FULL,
        "elastic_mm": 3.0,
        "swelling_mm": 8.0,
        "swollen_share": 0.75,
        "dice_iterations": 3,
    },
    "full-elastic5-swelling10-x3": {
        **FULL,
        "elastic_mm": 5.0,
        "swelling_mm": 10.0,
        "swollen_share": 0.75,
        "dice_iterations": 3,
    },
    "full-elastic5-swelling10-x6": {
        **FULL,
        "elastic_mm": 5.0,
        "swelling_mm": 10.0,
        "dice_iterations": 6,
    },
    "full-elastic3-swelling10-share0.25-x6": {
        **FULL,
        "elastic_mm": 3.0,
        "swelling_mm": 10.0,
        "swollen_share": 0.25,
        "dice_iterations": 6,
    },
    "full-elastic3-mirrored-x6": {
        **FULL,
        "elastic_mm": 3.0,
        "mirrored": True,
        "dice_iterations": 6,
    },
    "deep-faults0.07": {"deep_supervision": True, "scanner_faults": 0.07},
    "deep-unet3d": {"deep_supervision": True, "segmenter": "unet3d", "dice_iterations": 0.3},
    "deep-wide": {
        "deep_supervision": True,
        "channels": (16, 48, 96, 192),
        "dice_iterations": 0.55,
    },
}
"""Changes of the segmentation settings of the base; `dice_iterations` is a factor."""


@dataclass(frozen=True)
class Task:
    """Cases to train on and cases to score."""

    train: Dataset
    scored: Dataset
    iterations: int
    spacing_mm: float
    batch_size: int = 2
    aged: dict[str, Dataset] = field(default_factory=dict)
    """The scored cases as they would be in old age, by the name of the condition."""


def main(
    task: tyro.conf.Positional[TaskName],
    data: Path,
    out: Path,
    *,
    trials: tuple[str, ...] = ("base",),
    seeds: tuple[int, ...] = (0, 1),
    against: str = "base",
) -> None:
    """Train, predict, score.

    Args:
        task: Which cases.
        data: Folder that holds the datasets.
        out: Folder for runs and tables.
        trials: Names of `TRIALS`.
        seeds: One training of each trial for each.
        against: Trial that the others are compared with, seed by seed.
    """
    cases = read_task(task, data, out)
    for seed in seeds:
        for trial in trials:
            folder = out / task / f"{trial}_seed{seed}"
            if not (folder / "scores.csv").is_file():
                run_trial(cases, trial, seed, folder)
            if cases.aged and not (folder / "aged.csv").is_file():
                score_aged(cases, trial, seed, folder)
    show(task, out, against)


def read_task(name: TaskName, data: Path, out: Path) -> Task:
    """The cases of a task."""
    if name in BOXES:
        return _regions(name, data, out)
    dataset = sg.read_dataset(data / "Task04_Hippocampus")
    dataset = dataset.with_structures(anterior=(1,), posterior=(2,))
    rest, _ = dataset.split_at_random(test_count=40, seed=0)
    rest, scored = rest.split_at_random(test_count=SCORED, seed=1)
    # Small crops train faster; those that are scored are not chosen by size.
    rest = rest.select([c.id for c in rest if np.all(c.read_grid().spatial_shape <= SMALL_CROP)])
    _, train = rest.split_at_random(test_count=int(name.removeprefix("crops-")), seed=2)
    return Task(train, scored, 300, 1.5)


def _regions(name: TaskName, data: Path, out: Path) -> Task:
    structures, shape = BOXES[name]
    heads = sg.read_dataset(data / "miccai2012").with_structures(**structures)
    heads, _ = heads.split(data / "miccai2012" / "split.json")
    folder = out / f"{name}_regions"
    if not folder.is_dir():
        generator = np.random.default_rng(0)
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True)
        for case in heads:
            _cut(case, shape, generator, folder)
    regions = sg.read_dataset(folder).with_structures(**structures)
    train = regions.select([c.id for c in regions if c.id not in DEVELOPMENT_HEADS])
    scored = regions.select(DEVELOPMENT_HEADS)
    if len(structures) > 1:
        return Task(train, scored, 400, 1.0, batch_size=1, aged=_aged_regions(scored, out))
    return Task(train, scored, 300, 1.0)


def _aged_regions(scored: Dataset, out: Path) -> dict[str, Dataset]:
    """The regions with grown ventricles, written beside the others."""
    found = {}
    for amount_mm in AGED_MM:
        folder = out / f"heads_aged_{amount_mm}mm"
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for case in scored:
            assert case.label_map is not None
            kept = tuple(label_id for one in case.structures for label_id in one.label_ids)
            files = [folder / kind / f"{case.id}.nii.gz" for kind in ("images", "labels")]
            if not all(path.is_file() for path in files):
                image, labels = (nib.nifti1.load(path) for path in (case.image, case.label_map))
                grown = aged(image, labels, amount_mm=amount_mm, kept=kept)
                for volume, path in zip(grown, files, strict=True):
                    nib.save(volume, path)
        structures = {one.name: one.label_ids for one in scored.structures}
        found[f"aged {amount_mm} mm"] = sg.read_dataset(folder).with_structures(**structures)
    return found


def _cut(
    case: Case, shape: tuple[int, int, int], generator: np.random.Generator, folder: Path
) -> None:
    """Write the box around the structures of a head, its middle off by a few voxels."""
    assert case.label_map is not None
    label_ids = [label_id for one in case.structures for label_id in one.label_ids]
    image, labels = (nib.as_closest_canonical(nib.load(p)) for p in (case.image, case.label_map))
    places = np.argwhere(np.isin(np.asarray(labels.dataobj), label_ids))
    middle = (places.min(0) + places.max(0)) // 2
    middle = middle + generator.integers(-OFF_VOXELS, OFF_VOXELS + 1, 3)
    starts = middle - np.array(shape) // 2
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(starts, shape, strict=True))
    for kind, volume in (("images", image), ("labels", labels)):
        nib.save(volume.slicer[box], folder / kind / f"{case.id}.nii.gz")


def run_trial(task: Task, trial: str, seed: int, folder: Path) -> None:
    """Train one network and write the scores of all predictions."""
    settings = trial_settings(task, trial, seed)
    start = time.monotonic()
    sg.train_segmenter(task.train, run_dir=folder, settings=settings, progress=False)
    seconds = time.monotonic() - start
    tables = []
    for weights in ("last", "average"):
        segmenter = load_segmenter(folder, weights=weights)
        for place, case in enumerate(task.scored):
            volume, reference = case.read_volume(), case.read_label_map()
            corrupted = CORRUPTIONS[place % len(CORRUPTIONS)]
            for condition in ("clean", corrupted) if weights == "last" else ("clean",):
                seen = volume
                if condition != "clean":
                    seen = degrade(volume, condition, SEVERITY, seed=(place,))
                rows = score_rows(case.id, score(predict(segmenter, seen), reference))
                tables.append(pd.DataFrame(rows).assign(weights=weights, condition=condition))
    table = pd.concat(tables, ignore_index=True).assign(trial=trial, seed=seed, seconds=seconds)
    table.to_csv(folder / "scores.csv", index=False)


def score_aged(task: Task, trial: str, seed: int, folder: Path) -> None:
    """Write the scores of the aged heads, by the last weights of a trained network."""
    segmenter = load_segmenter(folder)
    tables = []
    for condition, heads in task.aged.items():
        for case in heads:
            found = score(predict(segmenter, case.read_volume()), case.read_label_map())
            rows = pd.DataFrame(score_rows(case.id, found))
            tables.append(rows.assign(weights="last", condition=condition))
    table = pd.concat(tables, ignore_index=True).assign(trial=trial, seed=seed)
    table.to_csv(folder / "aged.csv", index=False)


def trial_settings(task: Task, trial: str, seed: int) -> TrainSettings:
    """The default preset in small batches, without guidance, changed as the trial says."""
    changes = {**BASE, **TRIALS[trial]}
    iterations = round(task.iterations * changes.pop("dice_iterations", 1))
    default = preset("default")
    segmentation = default.segmentation.changed(
        **{"batch_size": task.batch_size, **changes},
        dice_iterations=iterations,
        guided_iterations=0,
        validation_cases=0,
    )
    data = default.data.changed(spacing_mm=(task.spacing_mm,) * 3)
    return default.changed(seed=seed, guidance="none", data=data, segmentation=segmentation)


def show(task: str, out: Path, against: str) -> None:
    """Means over cases, and the paired difference to one of them by the same seeds."""
    files = [*(out / task).glob("*/scores.csv"), *(out / task).glob("*/aged.csv")]
    table = pd.concat([pd.read_csv(path) for path in sorted(files)], ignore_index=True)
    conditions = table["condition"]
    as_named = (conditions == "clean") | conditions.str.startswith("aged")
    table["kind"] = conditions.where(as_named, "corrupted")
    table.to_csv(out / f"{task}.csv.gz", index=False)
    names = ("Dice", "difference", "HD95 mm", "difference", "HD mm", "missed")
    shown = Table("scans", "trial", "weights", "seeds", *names, "s", title=task)
    paired = ["seed", "case", "structure", "condition"]
    for kind, rows in table.groupby("kind"):
        base = rows[(rows["trial"] == against) & (rows["weights"] == "last")].set_index(paired)
        for (trial, weights), own in rows.groupby(["trial", "weights"]):
            own = own.set_index(paired)
            found = own[~own["missed"].astype(bool)]
            cells = [f"{own['dice'].mean():.4f}", _against(own, base, "dice", 4)]
            cells += [f"{found['hd95_mm'].mean():.3f}", _against(found, base, "hd95_mm", 3)]
            cells += [f"{found['hausdorff_mm'].mean():.2f}", str(len(own) - len(found))]
            seeds = own.index.get_level_values("seed").nunique()
            seconds = own.groupby("seed")["seconds"].first().mean()
            shown.add_row(*map(str, (kind, trial, weights, seeds)), *cells, f"{seconds:.0f}")
    Console(width=150).print(shown)


def _against(own: pd.DataFrame, base: pd.DataFrame, column: str, digits: int) -> str:
    """Mean difference over cases, and the half-width of its 95 % interval over cases."""
    found = (own[column] - base[column]).replace([np.inf, -np.inf], np.nan).dropna()
    by_case = found.groupby("case").mean()
    if by_case.empty:
        return ""
    half = 1.96 * by_case.std() / np.sqrt(len(by_case))
    return f"{by_case.mean():+.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    tyro.cli(main)

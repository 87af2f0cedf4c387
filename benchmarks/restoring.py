"""What should be restored, and how cautiously: looked at on training cases, never on test cases.

    python benchmarks/restoring.py DATASET RESULTS --structure hippocampus=1,2 [--regime all]

RESULTS is the folder of a finished `shapeguide study systems` on that dataset. Of each seed the
guided segmenter and the restorer of its regime are taken. How much the restorer disagrees with the
segmenter is measured on some of its own scans, as `shapeguide train` does; then other training
cases, clean and degraded, are restored where it disagrees more than with a share of those, with
several cautions. With few labels these are cases that the segmenter has not seen. The table shows
mean differences to predictions that are not restored; the largest component is kept in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

import shapeguide as sg
from shapeguide.commands.arguments import Structures, parse_structures
from shapeguide.data.case import Case
from shapeguide.disturbing.images import DEGRADATIONS, degrade
from shapeguide.models.restorer_model import RestorerModel, disagreement
from shapeguide.models.segmenter import Segmenter
from shapeguide.studies.systems.scoring import case_seed

METRICS = ("dice", "hausdorff_mm", "hd95_mm")


@dataclass(frozen=True)
class Options:
    """What is tried."""

    cautions: tuple[float, ...] = (0.0, 1.0, 3.0)
    shares: tuple[float, ...] = (0.0, 0.9, 0.95, 0.98, 1.0)
    """Shares of the segmenter's scans that would be left alone; with 0 all are restored."""
    measured: int = 40
    """Cases of the segmenter's training to measure disagreement on, at most."""
    looked_at: int = 20
    """Other training cases to restore."""
    corruptions: tuple[str, ...] = tuple(DEGRADATIONS)
    """Beside clean images."""
    severity: int = 2


def main(
    dataset: tyro.conf.Positional[Path],
    results: tyro.conf.Positional[Path],
    structure: Structures,
    regime: str = "all",
    seeds: tuple[int, ...] = (0, 1),
    options: Options = Options(),
) -> None:
    """Restore training cases in every way and print what it changes.

    Args:
        dataset: Any dataset that `shapeguide train` takes.
        results: Folder of table 2 on it.
        structure: Structures and their label ids, as of `shapeguide train`.
        regime: Of the segmenters.
        seeds: Of the segmenters.
        options: What is tried.
    """
    torch.set_num_threads(1)
    cases = sg.read_dataset(dataset).with_structures(**parse_structures(structure))
    test = set(json.loads((results / "study.json").read_text())["dataset"]["test"])
    rows = [
        row
        for seed in seeds
        for row in rows_of(
            Bench(results, regime, seed), [case for case in cases if case.id not in test], options
        )
    ]
    show(pd.DataFrame(rows), options)


class Bench:
    """One segmenter and its restorer."""

    def __init__(self, results: Path, regime: str, seed: int) -> None:
        run = results / f"cells/{regime}/seed{seed}/shape/run"
        self.seed = seed
        self.segmenter: Segmenter = sg.load_segmenter(run, weights="average")
        self.restorer: RestorerModel = sg.load_restorer(
            results / f"guides/{regime}/seed{seed}/restorer/run"
        )
        self.trained_on: list[str] = json.loads((run / "run.json").read_text())["dataset"]["train"]


def rows_of(bench: Bench, cases: list[Case], options: Options) -> Iterator[dict[str, object]]:
    """One row for each case, image, structure, share and caution."""
    order = np.random.default_rng(bench.seed).permutation(len(cases))
    shuffled = [cases[index] for index in order]
    own = [case for case in shuffled if case.id in bench.trained_on]
    unseen = [case for case in shuffled if case.id not in bench.trained_on]
    measured, others = own[: options.measured], own[options.measured :]
    if len(unseen) >= options.looked_at:
        others = unseen
    usual = [
        disagreement(bench.restorer, sg.predict_volume(bench.segmenter, case.read_volume()).seen)
        for case in track(measured, f"seed {bench.seed}, measuring")
    ]
    for case in track(others[: options.looked_at], f"seed {bench.seed}, restoring"):
        volume, reference = case.read_volume(), case.read_label_map()
        for image in (None, *options.corruptions):
            shown = volume
            if image is not None:
                shown = degrade(volume, image, options.severity, seed=case_seed(bench.seed, case))
            prediction = sg.predict_volume(bench.segmenter, shown)
            labels = prediction.label_map(largest_component=True)
            before = {s.structure: s for s in sg.score(labels, reference)}
            found = disagreement(bench.restorer, prediction.seen)
            for caution in options.cautions:
                restored = prediction.restored_by(replace(bench.restorer, caution=caution))
                after = sg.score(restored.label_map(largest_component=True), reference)
                for share in options.shares:
                    unusual = share == 0 or found > np.quantile(usual, share)
                    for scores in after:
                        base = before[scores.structure]
                        taken = scores if unusual else base
                        yield {
                            "images": "corrupted" if image else "clean",
                            "caution": caution,
                            "share": share,
                            **{m: getattr(taken, m) - getattr(base, m) for m in METRICS},
                        }


def show(table: pd.DataFrame, options: Options) -> None:
    """Mean differences to predictions that are not restored."""
    kinds = ("clean", "corrupted") if options.corruptions else ("clean",)
    heads = [f"{images}: {m}" for images in kinds for m in METRICS]
    shown = Table("caution", "left alone", *heads, title="restored minus not restored")
    for caution in options.cautions:
        for share in options.shares:
            rows = table[(table["caution"] == caution) & (table["share"] == share)]
            means = rows.groupby("images")[list(METRICS)].mean()
            shown.add_row(
                f"{caution:g}",
                f"{share:.0%}",
                *(
                    format(float(means[metric][images]), "+.4f" if metric == "dice" else "+.2f")
                    for images in kinds
                    for metric in METRICS
                ),
            )
    Console(width=150).print(shown)


if __name__ == "__main__":
    tyro.cli(main)

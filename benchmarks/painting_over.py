"""How much of what is truly missing the shape restorer paints over.

    python benchmarks/painting_over.py DATASET RESULTS --structure hippocampus=1,2 [--regime all]

RESULTS is the folder of a finished `shapeguide study systems` on that dataset. In each test
scan a part of the structure is taken out, an end as by a resection or a ball as by a lesion, and
filled with dark fluid; the reference loses it too. The guided segmenter's prediction is then
restored as `shapeguide predict` does. The table shows how much of the missing part is predicted all
the same, without and with the restorer, and what that does to Dice and Hausdorff distance; the
largest component is kept in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

import shapeguide as sg
from restoring import Bench
from shapeguide.commands.arguments import Structures, parse_structures
from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.data.intensities import foreground_mask
from shapeguide.disturbing.graded import shape_of, with_hole, without_tip
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.inference.usual import calibrated
from shapeguide.storage.whole import read_json
from shapeguide.studies.systems.scoring import case_seed

TAKEN_OUT = {"end": without_tip, "ball": with_hole}
FLUID_PERCENTILE = 2.0
"""Percentile of the foreground: on a T1 image fluid is dark."""
FLUID_SPREAD = 0.05
"""Standard deviation inside the fluid, in standard deviations of the foreground."""
EDGE_MM = 0.7
"""Standard deviation of the blur of its edge."""
SYSTEMS = ("segmenter", "default")
"""Without and with the restorer."""


@dataclass(frozen=True)
class Options:
    """What is taken out."""

    kinds: tuple[str, ...] = tuple(TAKEN_OUT)
    shares: tuple[float, ...] = (0.1, 0.2, 0.3)
    """Share of the volume of the structure that is cut out."""


def main(
    dataset: tyro.conf.Positional[Path],
    results: tyro.conf.Positional[Path],
    structure: Structures,
    regime: str = "all",
    seeds: tuple[int, ...] = (0, 1),
    options: Options = Options(),
) -> None:
    """Take parts out of test scans, restore the predictions, and print what is painted over.

    Args:
        dataset: Any dataset that `shapeguide train` takes.
        results: Folder of table 2 on it.
        structure: One structure and its label ids, as of `shapeguide train`.
        regime: Of the segmenters.
        seeds: Of the segmenters.
        options: What is taken out.
    """
    torch.set_num_threads(1)
    cases = sg.read_dataset(dataset).with_structures(**parse_structures(structure))
    if len(cases.structures) != 1:
        raise SystemExit("give one structure: a part is taken out of one at a time")
    test = set(read_json(results / "study.json")["dataset"]["test"])
    rows = [
        row
        for seed in seeds
        for row in rows_of(
            bench_of(results, regime, seed, cases),
            [case for case in cases if case.id in test],
            options,
        )
    ]
    show(pd.DataFrame(rows))


def bench_of(results: Path, regime: str, seed: int, cases: Dataset) -> Bench:
    """A segmenter and its restorer, which knows what is usual on the segmenter's own scans."""
    bench = Bench(results, regime, seed)
    own = cases.select(bench.trained_on)
    bench.restorer = calibrated(bench.restorer, {"average": bench.segmenter}, own)["average"]
    return bench


def rows_of(bench: Bench, cases: list[Case], options: Options) -> Iterator[dict[str, object]]:
    """One row for each case, kind and share."""
    for case in track(cases, f"seed {bench.seed}"):
        volume, reference = case.read_volume(), case.read_label_map()
        for kind in options.kinds:
            for share in options.shares:
                # Every share of a kind is the same draw: the same end.
                generator = np.random.default_rng(case_seed(bench.seed, case))
                shown, remainder, missing = taken_out(volume, reference, kind, share, generator)
                yield {
                    "kind": kind,
                    "share": share,
                    **predicted(bench, shown, remainder, missing),
                }


def taken_out(
    volume: Volume, reference: LabelMap, kind: str, share: float, generator: np.random.Generator
) -> tuple[Volume, LabelMap, NDArray[np.bool_]]:
    """The scan with fluid in place of a part, the reference without it, and the part (I, J, K)."""
    structure, spacing_mm = reference.structures[0], volume.grid.spacing_mm
    mask = reference.mask(structure)
    left = TAKEN_OUT[kind](shape_of(mask, spacing_mm=spacing_mm), share, generator)
    missing = mask & ~left
    foreground = volume.data[foreground_mask(volume.data)]
    fluid = np.percentile(foreground, FLUID_PERCENTILE) + generator.normal(
        scale=FLUID_SPREAD * float(foreground.std()), size=mask.shape
    )
    widths = [EDGE_MM / step for step in spacing_mm]
    share_of_fluid = ndimage.gaussian_filter(missing.astype(np.float64), widths)
    share_of_fluid[missing] = np.maximum(share_of_fluid[missing], 0.5)
    data = volume.data * (1 - share_of_fluid) + fluid * share_of_fluid
    labels = np.where(left, reference.data, 0).astype(reference.data.dtype)
    return (
        replace(volume, data=data.astype(np.float32)),
        replace(reference, data=labels),
        missing,
    )


def predicted(
    bench: Bench, shown: Volume, remainder: LabelMap, missing: NDArray[np.bool_]
) -> dict[str, object]:
    """How much of the missing part is predicted, and the scores, without and with the restorer."""
    seen = sg.predict_volume(bench.segmenter, shown)
    restored = seen.restored_by(bench.restorer)
    found: dict[str, object] = {"restored": restored.restored}
    for name, prediction in zip(SYSTEMS, (seen, restored), strict=True):
        labels = prediction.label_map(largest_component=True)
        (scores,) = sg.score(labels, remainder)
        found[f"{name}_painted"] = float((labels.data > 0)[missing].mean())
        found[f"{name}_dice"] = scores.dice
        found[f"{name}_hausdorff_mm"] = scores.hausdorff_mm
    return found


def show(table: pd.DataFrame) -> None:
    """Means over cases and seeds."""
    pairs = [f"{name}_{what}" for what in ("painted", "dice", "hausdorff_mm") for name in SYSTEMS]
    heads = [name.replace("_", ": ", 1).replace("_mm", " (mm)") for name in pairs]
    shown = Table(
        "taken out", "share", "restored", *heads,
        title="painted: share of the missing part that is predicted all the same",
    )  # fmt: skip
    for (kind, share), rows in table.groupby(["kind", "share"], sort=False):
        means = rows.drop(columns=["kind", "share"]).astype(float).mean()
        shown.add_row(
            str(kind),
            f"{share:.0%}",
            f"{means['restored']:.0%}",
            *(f"{means[name]:.2f}" if "mm" in name else f"{means[name]:.3f}" for name in pairs),
        )
    Console(width=170).print(shown)


if __name__ == "__main__":
    tyro.cli(main)

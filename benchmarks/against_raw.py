"""The default against plain predictions as they come, without and with the lost slabs.

    python benchmarks/against_raw.py RESULTS

RESULTS is the folder of a finished `shapeguide study systems` with plain and shape. Its
comparisons pair predictions of the same post-processing. Keeping the largest component throws away
what lies beyond a missing slab, so here the default, restored and with its largest component kept,
stands against plain predictions with and without theirs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from shapeguide.metrics.statistics import (
    cluster_interval,
    finite_mean,
    signed_rank_over_people,
)

METRICS = {"dice": 4, "hausdorff_mm": 2, "hd95_mm": 2}
KEY = ["structure", "regime", "severity", "weights", "seed", "case"]


def main(results: tyro.conf.Positional[Path]) -> None:
    """Print mean differences with 95 % intervals over people and p of Wilcoxon's test.

    Args:
        results: Folder of table 2.
    """
    table = scores_of(results)
    ours = table[(table["system"] == "shape") & (table["postprocess"] == "restored")]
    shown = Table("plain", "structure", "images", *METRICS, title="default minus plain")
    for postprocess in ("none", "largest"):
        plain = table[(table["system"] == "plain") & (table["postprocess"] == postprocess)]
        pairs = ours.merge(plain[[*KEY, *METRICS]], on=KEY, suffixes=("", "_plain"))
        regimes = pairs["regime"].str.partition("+")
        pairs = pairs.assign(labelled=regimes[0], image=regimes[2])
        for (structure, labelled), rows in pairs.groupby(["structure", "labelled"], sort=False):
            corrupted = rows[rows["image"] != ""]
            for name, chosen in (
                ("clean", rows[rows["image"] == ""]),
                ("corrupted", corrupted),
                ("corrupted, no slab", corrupted[corrupted["image"] != "slab"]),
            ):
                if len(chosen):
                    cells = [difference(chosen, metric, "plain") for metric in METRICS]
                    shown.add_row(postprocess, str(structure), f"{labelled}, {name}", *cells)
    Console(width=170).print(shown)


def scores_of(results: Path) -> pd.DataFrame:
    """Rows of `table2.csv`; where it does not say whom a case shows, each is somebody else."""
    table = pd.read_csv(results / "table2.csv", dtype={"case": str})
    return table if "person" in table.columns else table.assign(person=table["case"])


def difference(pairs: pd.DataFrame, metric: str, other: str) -> str:
    """Mean difference of a metric to that of the other, its interval over people, and p."""
    pairs = pairs.assign(difference=pairs[metric] - pairs[f"{metric}_{other}"])
    scores = ["case", "regime", "severity", "weights", "seed"]
    values = pairs.pivot_table(index="person", columns=scores, values="difference").to_numpy()
    digits = METRICS[metric]
    low, high = cluster_interval(values)
    mean, p = finite_mean(values), signed_rank_over_people(values)
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}] p = {p:.1g}"


if __name__ == "__main__":
    tyro.cli(main)

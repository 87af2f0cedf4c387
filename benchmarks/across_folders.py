"""One system of table 2 against one of another results folder, paired by case, seed and image.

    python benchmarks/across_folders.py RESULTS SYSTEM OTHER_RESULTS OTHER_SYSTEM

For systems that cannot stand in one folder because their settings differ, such as the depth of the
network. Both folders are of finished `shapeguide study systems` commands on the same test
cases; what only one of them has is left out. The largest component is kept in both.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from against_raw import KEY, METRICS, difference, scores_of


def main(
    results: tyro.conf.Positional[Path],
    system: tyro.conf.Positional[str],
    other_results: tyro.conf.Positional[Path],
    other_system: tyro.conf.Positional[str],
) -> None:
    """Print mean differences with 95 % intervals over people and p of Wilcoxon's test.

    Args:
        results: Folder of table 2.
        system: A system in it.
        other_results: Folder of table 2 with other settings.
        other_system: A system in it, which is taken from the first.
    """
    first, second = read(results, system), read(other_results, other_system)
    pairs = first.merge(second[[*KEY, *METRICS]], on=KEY, suffixes=("", "_other"))
    title = f"{system} minus {other_system}, {pairs['seed'].nunique()} seeds"
    shown = Table("structure", "regime", "severity", *METRICS, title=title)
    for (structure, regime, severity), rows in pairs.groupby(KEY[:3], sort=False):
        cells = [difference(rows, metric, "other") for metric in METRICS]
        shown.add_row(str(structure), str(regime), str(severity), *cells)
    Console(width=170).print(shown)


def read(results: Path, system: str) -> pd.DataFrame:
    """Scores of a system with the largest component kept."""
    table = scores_of(results)
    chosen = table[(table["system"] == system) & (table["postprocess"] == "largest")]
    if chosen.empty:
        raise SystemExit(f"{results}: no system {system}; it has {set(table['system'])}")
    return chosen


if __name__ == "__main__":
    tyro.cli(main)

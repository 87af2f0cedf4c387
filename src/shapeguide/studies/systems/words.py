"""The tables as plain rows of text, for the terminal."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from shapeguide.metrics.metric import METRICS
from shapeguide.report.words import p_text, records, shown, signed
from shapeguide.studies.systems.cube import ANY_SEVERITY, CORRUPTED

Row = tuple[str, ...]
SHOWN = ("dice", "hausdorff_mm", "hd95_mm")
LARGEST = "largest"


def summary_rows(summary: pd.DataFrame) -> list[Row]:
    """Means on clean images and over all corruptions, with the largest component kept.

    Args:
        summary: From `tables.summary`.

    Returns:
        The first row holds the headings.
    """
    rows: list[Row] = [
        ("structure", "regime", "weights", "system", *(METRICS[m].name for m in SHOWN), "missed")
    ]
    kept = summary[_overall(summary)]
    columns = ["structure", "regime", "weights", "system"]
    for key, group in kept.groupby(columns, sort=False):
        by_metric = {row["metric"]: row for row in records(group)}
        means = [_with_interval(metric, by_metric[metric]) for metric in SHOWN]
        rows.append((*map(str, key), *means, str(by_metric["dice"]["missed"])))
    return rows


def effect_rows(effects: pd.DataFrame) -> list[Row]:
    """Main effects on clean images and over all corruptions, with the largest component kept.

    Args:
        effects: From `factorial.main_effects`.

    Returns:
        The first row holds the headings.
    """
    headings: Row = ("structure", "regime", "weights", "factor", "level", "metric")
    rows: list[Row] = [(*headings, "difference", "95 %", "p", "missed", "missed by plain")]
    if effects.empty:
        return rows
    for row in records(effects[_overall(effects) & effects["metric"].isin(SHOWN)]):
        metric = str(row["metric"])
        interval = f"{signed(metric, row['low'])} to {signed(metric, row['high'])}"
        named = [str(row[name]) for name in headings]
        missed = (str(row["missed"]), str(row["missed_plain"]))
        rows.append(
            (*named, signed(metric, row["mean_difference"]), interval, p_text(row), *missed)
        )
    return rows


def cell_rows(cells: pd.DataFrame) -> list[Row]:
    """Seconds of each cell; the first row holds the headings."""
    rows: list[Row] = [("cell", "guide", "training", "test")]
    for row in records(cells):
        seconds = (row["guide_seconds"], row["train_seconds"], row["score_seconds"])
        rows.append((str(row["cell"]), *(f"{value:.0f}" for value in seconds)))
    return rows


def _with_interval(metric: str, row: dict[str, Any]) -> str:
    """Mean and interval; round brackets, for a terminal may take square ones as markup."""
    if math.isnan(row["low"]):
        return shown(metric, row["mean"])
    return f"{shown(metric, row['mean'])} ({row['low']:.3g} to {row['high']:.3g})"


def _overall(table: pd.DataFrame) -> pd.Series[bool]:
    clean = table["severity"] == "0"
    pooled = table["regime"].str.endswith(f"+{CORRUPTED}") & (table["severity"] == ANY_SEVERITY)
    return (clean | pooled) & (table["postprocess"] == LARGEST)

"""The tables of studies as plain rows of text, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from shapeguide.metrics.metric import MAIN_METRICS, METRICS
from shapeguide.report.words import p_text, records, shown, signed
from shapeguide.studies.controls.design import USUAL_LEVELS
from shapeguide.studies.scores import ANY_SEVERITY, CORRUPTED, LARGEST
from shapeguide.studies.separation.design import Condition
from shapeguide.studies.separation.measure import Measured
from shapeguide.studies.separation.tables import published_of

Row = tuple[str, ...]
SEPARATION_SHOWN = (
    *("same", "different", "ratio", "AUC", "rank-1", "spread", "seconds", "train", "held out"),
)
PUBLISHED_NAME = "published"


def summary_rows(summary: pd.DataFrame) -> list[Row]:
    """Means on clean images and over all corruptions, with the largest component kept.

    Args:
        summary: From `compare.summary`.

    Returns:
        The first row holds the headings.
    """
    rows: list[Row] = [
        (
            "structure",
            "regime",
            "weights",
            "system",
            *(METRICS[m].name for m in MAIN_METRICS),
            "missed",
        )
    ]
    kept = summary[_overall(summary)]
    columns = ["structure", "regime", "weights", "system"]
    for key, group in kept.groupby(columns, sort=False):
        by_metric = {row["metric"]: row for row in records(group)}
        means = [_with_interval(metric, by_metric[metric]) for metric in MAIN_METRICS]
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
    for row in records(effects[_overall(effects) & effects["metric"].isin(MAIN_METRICS)]):
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


def separation_rows(measured: Mapping[Condition, Measured]) -> list[tuple[str, ...]]:
    """The table as text for the terminal, the published figures first; the first row: headings."""
    several = len({condition.seed for condition in measured}) > 1
    head = ("structure", "objective", "pose", *(("seed",) if several else ()))
    rows = [(*head, *SEPARATION_SHOWN)]
    above = ""
    for condition, found in measured.items():
        seed = (str(condition.seed),) if several else ()
        if condition.structure != above:
            rows += _published_row(condition.structure, columns=len(rows[0]))
            above = condition.structure
        figures = (
            f"{found.same:.3g}",
            f"{found.different:.3g}",
            f"{found.ratio:.2f} [{found.ratio_low:.2f}, {found.ratio_high:.2f}]",
            f"{found.auc:.3f} [{found.auc_low:.3f}, {found.auc_high:.3f}]",
            f"{found.rank1:.2f} [{found.rank1_low:.2f}, {found.rank1_high:.2f}]",
            f"{found.signature_std:.3g}",
            f"{found.seconds:.0f}",
            _count(found.train_cases, found.train_lacking),
            _count(found.test_cases, found.test_lacking),
        )
        rows.append((condition.structure, condition.objective, condition.pose, *seed, *figures))
    return rows


def control_rows(summary: pd.DataFrame) -> list[Row]:
    """Means of a study of controls as text for the terminal; the first row: headings."""
    head = ("reading", "looks", "people", "ratio (least to most)", "AUC", "rank-1", "scale")
    rows: list[Row] = [head]
    for row in summary.to_dict("records"):
        scale = "" if pd.isna(row["scale"]) else f"{row['scale']:.2g}"
        rows.append(
            (
                _reading(row),
                str(row["observer"]),
                str(row["people"]),
                f"{row['ratio']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})",
                f"{row['auc']:.3f}",
                f"{row['rank1']:.2f}",
                scale,
            )
        )
    return rows


def _reading(row: Mapping[Hashable, object]) -> str:
    """How masks were shown, in words."""
    words = [f"about the {row['centre']}", f"up to {row['translation_mm']:g} mm"]
    if row["offset_mm"]:
        words.append(f"heads off by {row['offset_mm']:g} mm")
    if row["pose"] != "grid":
        words.append(f"pose {row['pose']}")
    if row["maps"] != "binary":
        words.append("soft maps")
    if row["levels"] != USUAL_LEVELS:
        words.append("1 level" if row["levels"] == 1 else f"{row['levels']} levels")
    if row["normalised"]:
        words.append("normalised")
    return ", ".join(words)


def _published_row(structure: str, *, columns: int) -> list[tuple[str, ...]]:
    figures = published_of(structure)
    if figures is None:
        return []
    same, different = figures
    shown = (f"{same:.3f}", f"{different:.3f}", f"{different / same:.2f}")
    head = (structure, PUBLISHED_NAME, "grid")
    filled = (*head, *("",) * (columns - len(head) - len(SEPARATION_SHOWN)), *shown)
    return [(*filled, *("",) * (columns - len(filled)))]


def _count(cases: int, lacking: int) -> str:
    return f"{cases} ({lacking} lack it)" if lacking else str(cases)

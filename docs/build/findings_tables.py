"""Result files as Markdown tables: one function for each kind of block of the findings page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from findings_numbers import (
    NOTHING,
    between,
    interval,
    number,
    p_value,
    significant,
)
from shapeguide.metrics.metric import METRICS
from shapeguide.report.words import records

P_NAMES = {
    "p": "p",
    "p_corrected": "p, corrected",
    "p_holm": "p, corrected (Holm, all)",
    "p_holm_test": "p, corrected (Holm, this test)",
}
"""Columns of p values that are shown; those of pairs taken as independent are not."""
COUNTS = ("missed", "cases", "people", "seeds")
MISSED = (("missed_first", "missed_second"), ("missed", "missed_plain"))
"""Columns with how often each side of a difference missed the structure."""
FIGURES = ("metric", "mean", "low", "high", "median", "count", *COUNTS)


@dataclass(frozen=True)
class Table:
    """Where a kind of block finds its table, and how it is shown."""

    file: str
    render: Callable[..., list[str]]
    """Table and the tables beside it, empty where there are none, to lines of Markdown."""
    beside: tuple[str, ...] = ()
    """Files that are used where they are there."""


def separation(table: pd.DataFrame, intervals: pd.DataFrame, published: pd.DataFrame) -> list[str]:
    """Table 1: a row for each cell, the published figures above those of their structure."""
    keys = [name for name in ("structure", "objective", "pose", "seed") if name in table.columns]
    if len(intervals):
        same = [*keys, *(() if "dataset" not in intervals else ("dataset",))]
        table = table.merge(intervals, on=same, how="left", validate="m:1")
    caption, shown = _constant(table, ["dataset", *keys], keep=("objective", "pose"))
    heads = [*shown, "same", "different", "ratio", "AUC", "rank-1", "signature spread", "seconds"]
    rows = []
    for structure, group in table.groupby("structure", sort=False):
        rows += _published_rows(published, str(structure), shown, len(heads))
        for row in records(group):
            figures = [
                significant(row["same"]),
                significant(row["different"]),
                *(_with_interval(row, name, digits=d) for name, d in SEPARATION_DIGITS.items()),
                significant(row["signature_std"]),
                f"{row['seconds']:.0f}",
            ]
            rows.append([*(str(row[name]) for name in shown), *figures])
    note = (
        "mean raw distances; 95 % intervals resample held-out people"
        if len(intervals)
        else ("mean raw distances")
    )
    return _markdown(heads, rows, caption, note)


SEPARATION_DIGITS = {"ratio": 2, "auc": 3, "rank1": 2}


def warps(table: pd.DataFrame) -> list[str]:
    """Distance under each size of warp: a row for each network and variation."""
    keys = ["dataset", "structure", "objective", "pose", "seed", "variation"]
    note = "mean distance with 95 % interval, 1 is as far as two held-out people are apart"
    return _pivoted(table, keys, ("objective", "pose"), "size", _interval_cell, note)


def errors(table: pd.DataFrame) -> list[str]:
    """Whether distance follows the true error: a row for each network, a column for each kind."""
    keys = ["dataset", "structure", "objective", "pose", "seed"]
    note = (
        "rank correlation of distance and true mean surface distance over cases and grades; "
        "whether the mean distance rises at every grade"
    )

    def cell(row: dict[str, Any]) -> str:
        verdict = "rises" if str(row["monotone"]) == "True" else "does not always rise"
        return f"{number(row['spearman'], 2)}, {verdict}"

    return _pivoted(table, keys, ("objective", "pose"), "error", cell, note)


def summary(table: pd.DataFrame) -> list[str]:
    """Means with intervals: a row for each system and test, a column for each metric."""
    table = _long(table)
    keys = [str(name) for name in table.columns if name not in FIGURES]
    counts = [name for name in COUNTS if name in table.columns]
    caption, shown = _constant(table, keys, keep=("system",))
    count_caption, shown_counts = _constant(table, counts, keep=("missed",))
    metrics = [str(metric) for metric in dict.fromkeys(table["metric"])]
    rows = []
    for _, group in table.groupby(keys, sort=False, dropna=False):
        by_metric = {row["metric"]: row for row in records(group)}
        first = next(iter(by_metric.values()))
        rows.append(
            [
                *(str(first[name]) for name in shown),
                *(
                    _metric_cell(by_metric[metric], metric) if metric in by_metric else NOTHING
                    for metric in metrics
                ),
                *(str(first[name]) for name in shown_counts),
            ]
        )
    heads = [*shown, *(_metric_head(metric) for metric in metrics), *shown_counts]
    return _markdown(heads, rows, [*caption, *count_caption], "mean with 95 % interval")


def differences(table: pd.DataFrame) -> list[str]:
    """Paired differences with intervals and tests: a row for each comparison and metric."""
    figures = {"mean_difference", "low", "high", "wins", "losses", "ties", "systems"}
    keys = [
        str(name)
        for name in table.columns
        if name not in figures
        and name not in COUNTS
        and not str(name).startswith(("p_", "mean_", "missed_", "low_", "high_"))
        and name not in ("p", "metric", "pairs")
    ]
    caption, shown = _constant(table, keys, keep=("first", "second", "system", "against", "level"))
    tests = [name for name in P_NAMES if name in table.columns]
    votes = {"wins", "losses", "ties"} <= set(table.columns)
    missed = next((pair for pair in MISSED if set(pair) <= set(table.columns)), None)
    over_seeds = "low_over_seeds" in table.columns and table["low_over_seeds"].notna().any()
    heads = [*shown, "metric", "difference"]
    heads += ["over seeds too"] if over_seeds else []
    heads += [P_NAMES[name] for name in tests]
    heads += ["wins / losses / ties"] if votes else []
    heads += ["missed"] if missed else []
    rows = []
    for row in records(table):
        metric = str(row["metric"])
        digits = 2 if metric.endswith("_mm") else 3
        cells = [*(str(row[name]) for name in shown), _metric_head(metric)]
        cells.append(between(row["mean_difference"], row["low"], row["high"], digits, sign=True))
        if over_seeds:
            ends = (row["low_over_seeds"], row["high_over_seeds"])
            cells.append(interval(*ends, digits, sign=True))
        cells += [p_value(row[name]) for name in tests]
        cells += [f"{row['wins']} / {row['losses']} / {row['ties']}"] if votes else []
        cells += [" / ".join(str(row[name]) for name in missed)] if missed else []
        rows.append(cells)
    counts = [name for name in ("cases", "people", "seeds") if name in table.columns]
    count_caption, _ = _constant(table, counts)
    order = "first minus second" if "first" in table.columns else "against plain"
    note = f"difference with 95 % interval over people, {order}, where both found the structure"
    return _markdown(heads, rows, [*caption, *count_caption], note)


def seconds(table: pd.DataFrame) -> list[str]:
    """A table as it is, with numbers that people can read."""
    rows = [
        [significant(value) if isinstance(value, float) else str(value) for value in row.values()]
        for row in records(table)
    ]
    return _markdown([str(name) for name in table.columns], rows, [], "")


TABLES = {
    "table1": Table("table1.csv", separation, ("table1_intervals.csv", "published.csv")),
    "warps": Table("warps.csv", warps),
    "errors": Table("errors.csv", errors),
    "table2": Table("table2_summary.csv", summary),
    "comparisons": Table("table2_comparisons.csv", differences),
    "factorial": Table("factorial.csv", differences),
    "seconds": Table("table2_cells.csv", seconds),
}
"""Kinds of blocks."""


def _published_rows(
    published: pd.DataFrame, structure: str, shown: Sequence[str], width: int
) -> list[list[str]]:
    if published.empty:
        return []
    names = {"structure": structure, "objective": "published", "pose": "grid"}
    return [
        [
            *(names.get(name, "") for name in shown),
            f"{row['same']:.3f}",
            f"{row['different']:.3f}",
            f"{row['ratio']:.2f}",
            *[NOTHING] * (width - len(shown) - 3),
        ]
        for row in records(published[published["structure"].astype(str) == structure])
    ]


def _pivoted(
    table: pd.DataFrame,
    keys: Sequence[str],
    keep: tuple[str, ...],
    across: str,
    cell: Callable[[dict[str, Any]], str],
    note: str,
) -> list[str]:
    """A row for each combination of the keys, a column for each value of `across`."""
    keys = [name for name in keys if name in table.columns]
    caption, shown = _constant(table, keys, keep=keep)
    columns = list(dict.fromkeys(table[across]))
    rows = []
    for _, group in table.groupby(keys, sort=False):
        cells = {row[across]: cell(row) for row in records(group)}
        first = records(group)[0]
        rows.append([*(str(first[n]) for n in shown), *(cells.get(at, NOTHING) for at in columns)])
    names = [f"{at:g}" if isinstance(at, float) else str(at) for at in columns]
    return _markdown([*shown, *names], rows, caption, note)


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric; columns such as `dice_mean`, `dice_low` become rows."""
    if "metric" in table.columns:
        return table
    metrics = [str(name)[: -len("_mean")] for name in table.columns if str(name).endswith("_mean")]
    ends = ("mean", "low", "high")
    own = [
        name
        for name in table.columns
        if not any(str(name) == f"{metric}_{end}" for metric in metrics for end in ends)
    ]
    parts = []
    for metric in metrics:
        part = table[own].assign(metric=metric)
        for end in ends:
            part[end] = table[f"{metric}_{end}"] if f"{metric}_{end}" in table else float("nan")
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _constant(
    table: pd.DataFrame, columns: Sequence[str], keep: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """What all rows share, in words, and the columns in which they differ or which are kept."""
    present = [name for name in columns if name in table.columns]
    shared = [n for n in present if n not in keep and table[n].nunique(dropna=False) == 1]
    words = [f"{name} {table[name].iloc[0]}" for name in shared]
    return words, [name for name in present if name not in shared]


def _markdown(
    heads: Sequence[str], rows: Sequence[Sequence[str]], caption: Sequence[str], note: str
) -> list[str]:
    words = "; ".join(part for part in (", ".join(caption), note) if part)
    lines = [f"*{words[0].upper()}{words[1:]}.*", ""] if words else []
    lines += [_line(heads), "|---" * len(heads) + "|"]
    return [*lines, *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _metric_head(metric: str) -> str:
    if metric in METRICS:
        return METRICS[metric].heading
    return f"{metric.removesuffix('_mm')} (mm)" if metric.endswith("_mm") else metric


def _metric_cell(row: dict[str, Any], metric: str) -> str:
    digits = 2 if metric.endswith("_mm") else 3
    return between(row["mean"], row["low"], row["high"], digits)


def _interval_cell(row: dict[str, Any]) -> str:
    return between(row["distance"], row["low"], row["high"], 2)


def _with_interval(row: dict[str, Any], name: str, *, digits: int) -> str:
    low, high = (row.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    return between(row[name], low, high, digits)

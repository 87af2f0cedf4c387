"""Summaries and comparisons as plain rows of text, for the terminal and for pages."""

from __future__ import annotations

import math

import pandas as pd

Row = tuple[str, ...]


def summary_rows(summary: pd.DataFrame) -> list[Row]:
    """What `summarise` found, as text; the first row holds the headings."""
    headings: Row = ("structure", "metric", "mean", "95 %", "median")
    rows = [(*headings, "cases", "missed", "both empty", "errors")]
    for found in summary.to_dict("records"):
        rows.append(
            (
                found["structure"],
                found["metric"],
                _number(found["mean"]),
                _interval(found["low"], found["high"]),
                _number(found["median"]),
                str(found["count"]),
                str(found["missed"]),
                str(found["both_empty"]),
                str(found["errors"]),
            )
        )
    return rows


def comparison_rows(comparison: pd.DataFrame) -> list[Row]:
    """What `compare` found, as text; the first row holds the headings."""
    headings: Row = ("structure", "metric", "cases", "first", "second", "difference", "95 %")
    rows = [(*headings, "p", "wins", "losses", "ties", "missed")]
    for found in comparison.to_dict("records"):
        rows.append(
            (
                found["structure"],
                found["metric"],
                f"{found['found']} of {found['pairs']}",
                _number(found["mean_first"]),
                _number(found["mean_second"]),
                _number(found["mean_difference"]),
                _interval(found["low"], found["high"]),
                "< 0.0001" if found["p"] < 0.0001 else f"{found['p']:.4f}",
                str(found["wins"]),
                str(found["losses"]),
                str(found["ties"]),
                f"{found['missed_first']} / {found['missed_second']}",
            )
        )
    return rows


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"

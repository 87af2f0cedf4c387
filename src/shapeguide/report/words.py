"""What a paired comparison says, in words that claim no more than its numbers do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from shapeguide.metrics.metric import METRICS

SIGNIFICANT = 0.05
Verdict = Literal["better", "worse", "no clear difference"]


def verdict(row: Mapping[str, Any]) -> Verdict:
    """Whether the first method is better than the second by one metric.

    A difference counts only when its 95 % interval leaves out 0, the signed-rank test agrees
    (p < 0.05) and the better side did not miss more structures: their distances are infinite and
    not in the mean.

    Args:
        row: One row of a comparison, first minus second, as `shapeguide.metrics.summary.compare`
            gives it.
    """
    low, high = float(row["low"]), float(row["high"])
    if math.isnan(low) or low <= 0 <= high or not float(row["p"]) < SIGNIFICANT:
        return "no clear difference"
    first_gains = (low > 0) == METRICS[str(row["metric"])].higher_is_better
    more_missed = int(row["missed_first"]) - int(row["missed_second"])
    if (more_missed > 0) if first_gains else (more_missed < 0):
        return "no clear difference"
    return "better" if first_gains else "worse"


def sentence(row: Mapping[str, Any], *, first: str, second: str) -> str:
    """One metric of a comparison as a sentence with its numbers.

    Args:
        row: One row of a comparison, as for `verdict`.
        first: Name of the first method.
        second: Name of the second method.
    """
    metric = str(row["metric"])
    name = METRICS[metric].name
    one, other = shown(metric, row["mean_first"]), shown(metric, row["mean_second"])
    interval = f"95 % interval {signed(metric, row['low'])} to {signed(metric, row['high'])}"
    difference = signed(metric, row["mean_difference"])
    found = verdict(row)
    if math.isnan(float(row["low"])):
        return f"{name}: too few cases for an interval; {first} {one}, {second} {other}."
    numbers = (
        f"{first} {one}, {second} {other}, difference {difference} ({interval}, {p_text(row)})"
    )
    tail = _missed(row, first, second)
    if found == "no clear difference":
        return f"{name}: no clear difference between {first} and {second}: {numbers}.{tail}"
    return f"{name}: {first} is {found} than {second}: {numbers}.{tail}"


def headline(comparison: pd.DataFrame, *, first: str, second: str, metrics: tuple[str, ...]) -> str:
    """The comparison in one line, by the metrics that matter most.

    Args:
        comparison: From `compare`, first minus second.
        first: Name of the first method.
        second: Name of the second method.
        metrics: Metrics to name.

    Raises:
        ValueError: If the comparison has none of these metrics.
    """
    rows = [row for row in records(comparison) if row["metric"] in metrics]
    if not rows:
        raise ValueError(f"the comparison has none of the metrics {', '.join(metrics)}")
    many = len({row["structure"] for row in rows}) > 1
    by_verdict: dict[str, list[str]] = {}
    for row in rows:
        name = METRICS[str(row["metric"])].name
        by_verdict.setdefault(verdict(row), []).append(
            f"{name} of {row['structure']}" if many else name
        )
    if set(by_verdict) == {"no clear difference"}:
        names = listed(by_verdict["no clear difference"])
        return f"No clear difference between {first} and {second} in {names}."
    parts = []
    if "better" in by_verdict:
        parts.append(f"{first} beats {second} in {listed(by_verdict['better'])}")
    if "worse" in by_verdict:
        parts.append(f"{first} loses to {second} in {listed(by_verdict['worse'])}")
    if "no clear difference" in by_verdict:
        parts.append(f"no clear difference in {listed(by_verdict['no clear difference'])}")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def listed(words: list[str]) -> str:
    """Words as a list in a sentence: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def shown(metric: str, value: float, *, sign: Literal["-", "+"] = "-") -> str:
    """A value of a metric with its unit, by `+` with any sign; a dash where there is none."""
    if math.isnan(value):
        return "–"  # noqa: RUF001
    return f"{value:{sign}.2f} mm" if metric.endswith("_mm") else f"{value:{sign}.3f}"


def signed(metric: str, value: float) -> str:
    """A difference of a metric with its sign and unit."""
    return shown(metric, value, sign="+")


def p_text(row: Mapping[str, Any]) -> str:
    """The p of a comparison, as text."""
    p = float(row["p"])
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.001 else f"p = {p:.3f}"


def _missed(row: Mapping[str, Any], first: str, second: str) -> str:
    one, other = int(row["missed_first"]), int(row["missed_second"])
    if not one and not other:
        return ""
    return f" Structures missed and not in these means: {first} {one}, {second} {other}."


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]

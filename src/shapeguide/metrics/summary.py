"""Summaries of a table of scores, and the paired comparison of two of them.

How the special cases enter:

- A missed structure (in one of the two label maps only) has Dice 0 and surface Dice 0, and these
  enter their means. Its distances are infinite: means, medians and intervals of distances are over
  the found cases, and the number of missed ones stands beside them.
- A structure that neither label map holds has no score; it is counted as both empty.
- A row with an error (missing or broken prediction) has no score; it is counted as an error.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeguide.errors import DataError
from shapeguide.metrics.metric import METRICS
from shapeguide.metrics.scores import COLUMNS
from shapeguide.metrics.statistics import (
    bootstrap_interval,
    finite_mean,
    paired_differences,
    signed_rank_p,
)


def summarise(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Summarise scores over cases, per structure and metric.

    Args:
        table: Rows with the columns `COLUMNS`, from `score_table` or a file that `evaluate` wrote.
        seed: Start of the bootstrap; the same table and seed give the same interval.

    Returns:
        Columns structure, metric, mean, low, high (95 % bootstrap interval of the mean), median,
        count (cases that these are over), missed, both_empty, errors.

    Raises:
        DataError: If columns are missing or a case appears twice for one structure.
    """
    _check_table(table)
    rows: list[dict[str, str | float | int]] = []
    for structure, group in table.groupby("structure", sort=False):
        failed = group["error"].fillna("") != ""
        scored = group[~failed]
        for metric in METRICS:
            values = scored[metric].to_numpy(dtype=np.float64)
            finite = values[np.isfinite(values)]
            low, high = bootstrap_interval(finite, seed=seed)
            rows.append(
                {
                    "structure": str(structure),
                    "metric": metric,
                    "mean": finite_mean(values),
                    "low": low,
                    "high": high,
                    "median": float(np.median(finite)) if finite.size else float("nan"),
                    "count": int(finite.size),
                    "missed": int(scored["missed"].sum()),
                    "both_empty": int(scored["dice"].isna().sum()),
                    "errors": int(failed.sum()),
                }
            )
    columns = ["structure", "metric", "mean", "low", "high", "median"]
    return pd.DataFrame(rows, columns=[*columns, "count", "missed", "both_empty", "errors"])


def compare(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Compare two tables of scores case by case, per structure and metric.

    Only cases that both tables scored are compared. The mean difference is over the cases in which
    both have a finite value. Wilcoxon's signed-rank test and the wins use all of them: where just
    one side missed the structure, that side is worse, and the size of the difference ranks above
    every finite one (above every other for distances; for Dice a missed structure is 0, which
    needs no rule). Where both missed it, or agree exactly, it is a tie, and ties are left out of
    the test; when there are only ties, p is 1. A structure that a case does not have is left out
    where both sides rightly found nothing; a side that found something there is the worse one.

    Every case counts by itself: where people were scanned more than once, p is too small.

    Args:
        first: Rows with the columns `COLUMNS`.
        second: Rows of other predictions of the same cases.
        seed: Start of the bootstrap.

    Returns:
        Columns structure, metric, pairs, found (pairs in which both are finite), mean_first,
        mean_second, mean_difference (first minus second), low, high (95 % bootstrap interval),
        p, wins, losses, ties (of the first), missed_first, missed_second.

    Raises:
        DataError: If a table is not one of scores, or no case and structure is in both.
    """
    merged = _matched(first, second)
    rows: list[dict[str, str | float | int]] = []
    for structure, group in merged.groupby("structure", sort=False):
        for metric in METRICS:
            rows.append({"structure": str(structure), **_compare_metric(group, metric, seed)})
    return pd.DataFrame(rows)


def _compare_metric(group: pd.DataFrame, metric: str, seed: int) -> dict[str, str | float | int]:
    first, second = _comparable(group, metric)
    differences = paired_differences(first, second)
    found = np.isfinite(first) & np.isfinite(second)
    low, high = bootstrap_interval(differences[found], seed=seed)
    gains = differences if METRICS[metric].higher_is_better else -differences
    return {
        "metric": metric,
        "pairs": int(found.size),
        "found": int(found.sum()),
        "mean_first": finite_mean(first[found]),
        "mean_second": finite_mean(second[found]),
        "mean_difference": finite_mean(differences[found]),
        "low": low,
        "high": high,
        "p": signed_rank_p(differences),
        "wins": int((gains > 0).sum()),
        "losses": int((gains < 0).sum()),
        "ties": int((gains == 0).sum()),
        "missed_first": int(group["missed_first"].sum()),
        "missed_second": int(group["missed_second"].sum()),
    }


def _comparable(
    group: pd.DataFrame, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of both sides, without the cases in which both rightly found nothing.

    Where just one side rightly found nothing, it counts as perfect against the other's invention.
    """
    first = group[f"{metric}_first"].to_numpy(dtype=np.float64)
    second = group[f"{metric}_second"].to_numpy(dtype=np.float64)
    perfect = METRICS[metric].perfect
    kept = ~(np.isnan(first) & np.isnan(second))
    first = np.where(np.isnan(first), perfect, first)
    second = np.where(np.isnan(second), perfect, second)
    return first[kept], second[kept]


def _matched(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    scored = []
    for table in (first, second):
        _check_table(table)
        rows = table[table["error"].fillna("") == ""].drop(columns="error")
        scored.append(rows.astype({"case": str, "structure": str}))
    merged = scored[0].merge(scored[1], on=["case", "structure"], suffixes=("_first", "_second"))
    if merged.empty:
        raise DataError(
            "no case and structure was scored in both tables; "
            f"the first holds cases {_examples(first)}, the second {_examples(second)}"
        )
    return merged


def _check_table(table: pd.DataFrame) -> None:
    lacking = [column for column in COLUMNS if column not in table.columns]
    if lacking:
        raise DataError(
            f"not a table of scores: columns {', '.join(lacking)} are missing; "
            "expected what `evaluate` writes"
        )
    repeated = table[table.duplicated(["case", "structure"])]
    if len(repeated):
        raise DataError(
            f"case {repeated['case'].iloc[0]} has more than one row for structure "
            f"{repeated['structure'].iloc[0]}; keep one of them"
        )


def _examples(table: pd.DataFrame) -> str:
    cases = [str(case) for case in table["case"].unique()]
    return ", ".join(cases[:3]) + (", ..." if len(cases) > 3 else "") if cases else "none"

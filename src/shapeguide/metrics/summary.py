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
from scipy import stats

from shapeguide.errors import DataError
from shapeguide.metrics.scores import COLUMNS, METRICS

HIGHER_IS_BETTER = frozenset({"dice", "surface_dice_1mm"})
RESAMPLES = 5000
CONFIDENCE = 0.95
_DRAWN_AT_ONCE = 2**22


def summarise(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Summarise scores over cases, per structure and metric.

    Args:
        table: Rows with the columns `COLUMNS`, from `score_table` or a file that `evaluate` wrote.
        seed: Of the bootstrap; the same table and seed give the same interval.

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
                    "mean": _mean(finite),
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
        seed: Of the bootstrap.

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


def bootstrap_interval(values: NDArray[np.float64], *, seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean.

    Args:
        values: Finite values of the cases, shape (N,).
        seed: Of the resampling.

    Returns:
        Low and high end; nan for fewer than two values, which say nothing about their spread.
    """
    count = values.size
    if count < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    block = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, RESAMPLES, block):
        stop = min(start + block, RESAMPLES)
        drawn = generator.integers(count, size=(stop - start, count))
        means[start:stop] = values[drawn].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros are left out, infinities rank largest.

    Args:
        differences: Paired differences, shape (N,); infinite where one side missed.

    Returns:
        In (0, 1]; 1 when no difference is left.
    """
    left = differences[differences != 0]
    if left.size == 0:
        return 1.0
    finite = np.abs(left[np.isfinite(left)])
    beyond = 2 * (finite.max() if finite.size else 1.0)
    ranked = np.where(np.isfinite(left), left, np.sign(left) * beyond)
    return float(stats.wilcoxon(ranked).pvalue)


def paired_differences(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """First minus second, shape (N,); infinite where one side missed, 0 where both did."""
    both_missed = np.isinf(first) & np.isinf(second)
    return np.subtract(first, second, out=np.zeros(first.shape), where=~both_missed)


def _compare_metric(group: pd.DataFrame, metric: str, seed: int) -> dict[str, str | float | int]:
    first, second = _comparable(group, metric)
    differences = paired_differences(first, second)
    found = np.isfinite(first) & np.isfinite(second)
    low, high = bootstrap_interval(differences[found], seed=seed)
    gains = differences if metric in HIGHER_IS_BETTER else -differences
    return {
        "metric": metric,
        "pairs": int(found.size),
        "found": int(found.sum()),
        "mean_first": _mean(first[found]),
        "mean_second": _mean(second[found]),
        "mean_difference": _mean(differences[found]),
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
    perfect = 1.0 if metric in HIGHER_IS_BETTER else 0.0
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
    merged = scored[0].merge(
        scored[1], on=["case", "structure"], suffixes=("_first", "_second"), validate="1:1"
    )
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


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")

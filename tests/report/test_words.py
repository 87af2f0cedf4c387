from __future__ import annotations

import pandas as pd
import pytest

from shapeguide.metrics.scores import COLUMNS
from shapeguide.metrics.summary import compare
from shapeguide.report.words import headline, listed, records, sentence, shown, verdict


def comparison(metric: str, first: list[float], second: list[float]) -> pd.DataFrame:
    """The comparison of two methods that differ in one metric only."""
    table = compare(_scores(metric, first), _scores(metric, second))
    return table[table["metric"] == metric]


def _scores(metric: str, values: list[float]) -> pd.DataFrame:
    rows = [
        {
            "case": str(place),
            "structure": "horn",
            "dice": 0.5,
            "hausdorff_mm": 5.0,
            "hd95_mm": 3.0,
            "assd_mm": 1.0,
            "surface_dice_1mm": 0.5,
            "missed": value == float("inf"),
            "prediction_mm3": 10.0,
            "reference_mm3": 10.0,
            "error": "",
        }
        | {metric: value}
        for place, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


LOW = [2.0, 2.5, 3.0, 2.2, 2.8, 3.1, 2.4, 2.6]
HIGH = [value + 1 + place / 10 for place, value in enumerate(LOW)]
MIXED = [value + (-1) ** place for place, value in enumerate(LOW)]


def test_a_smaller_distance_in_every_case_is_better() -> None:
    (row,) = records(comparison("hausdorff_mm", LOW, HIGH))
    assert verdict(row) == "better"
    text = sentence(row, first="guided", second="plain")
    assert "guided is better than plain: guided 2.58 mm, plain 3.93 mm" in text


def test_a_larger_distance_in_every_case_is_worse_and_said_so() -> None:
    table = comparison("hausdorff_mm", HIGH, LOW)
    (row,) = records(table)
    assert verdict(row) == "worse"
    assert "guided is worse than plain" in sentence(row, first="guided", second="plain")
    line = headline(table, first="guided", second="plain", metrics=("hausdorff_mm",))
    assert line == "Guided loses to plain in Hausdorff distance."


def test_a_larger_dice_is_better_not_worse() -> None:
    (row,) = records(comparison("dice", [v / 10 for v in HIGH], [v / 10 for v in LOW]))
    assert verdict(row) == "better"


def test_no_win_is_claimed_when_the_interval_holds_zero() -> None:
    table = comparison("hausdorff_mm", MIXED, LOW)
    (row,) = records(table)
    assert row["low"] < 0 < row["high"]
    assert verdict(row) == "no clear difference"
    assert "better" not in sentence(row, first="guided", second="plain")
    line = headline(table, first="guided", second="plain", metrics=("hausdorff_mm",))
    assert line == "No clear difference between guided and plain in Hausdorff distance."


def test_equal_scores_are_no_clear_difference() -> None:
    (row,) = records(comparison("dice", [0.8] * 6, [0.8] * 6))
    assert verdict(row) == "no clear difference"


def test_a_win_is_not_claimed_by_missing_structures_that_the_other_found() -> None:
    (row,) = records(comparison("hausdorff_mm", [*LOW, float("inf")], [*HIGH, 9.0]))
    assert row["high"] < 0
    assert verdict(row) == "no clear difference"
    text = sentence(row, first="guided", second="plain")
    assert "missed and not in these means: guided 1, plain 0" in text


def test_a_single_case_has_no_interval_and_no_verdict() -> None:
    (row,) = records(comparison("dice", [0.9], [0.5]))
    assert verdict(row) == "no clear difference"
    assert "too few cases" in sentence(row, first="guided", second="plain")


def test_the_headline_names_wins_and_losses_together() -> None:
    table = pd.concat(
        [comparison("hausdorff_mm", LOW, HIGH), comparison("dice", LOW, HIGH)], ignore_index=True
    )
    line = headline(table, first="guided", second="plain", metrics=("dice", "hausdorff_mm"))
    assert line == "Guided beats plain in Hausdorff distance; guided loses to plain in Dice."


def test_a_headline_needs_a_metric_of_the_comparison() -> None:
    with pytest.raises(ValueError, match="none of the metrics volume"):
        headline(comparison("dice", LOW, HIGH), first="a", second="b", metrics=("volume",))


def test_values_carry_their_unit_and_lists_read_like_sentences() -> None:
    assert shown("hd95_mm", 1.234) == "1.23 mm"
    assert shown("dice", 0.87654) == "0.877"
    assert shown("dice", float("nan")) == "–"  # noqa: RUF001
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a"]) == "a"

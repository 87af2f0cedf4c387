from __future__ import annotations

import io
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shapeguide.errors import DataError
from shapeguide.geometry.volume import Structure
from shapeguide.metrics.scores import Row, error_rows, score_table
from shapeguide.metrics.summary import compare, summarise
from shapeguide.metrics.summary_text import comparison_rows, summary_rows

MISSED, ABSENT = math.inf, math.nan


def row(case: str, distance_mm: float) -> Row:
    """A row whose Dice falls with its distance; `MISSED` and `ABSENT` as the scores have them."""
    overlap = ABSENT if math.isnan(distance_mm) else 1 / (1 + distance_mm)
    return {
        "case": case,
        "structure": "horn",
        "dice": overlap,
        "hausdorff_mm": distance_mm,
        "hd95_mm": distance_mm,
        "assd_mm": distance_mm,
        "surface_dice_1mm": overlap,
        "missed": math.isinf(distance_mm),
        "prediction_mm3": 1.0,
        "reference_mm3": 1.0,
        "error": "",
    }


def table(distances_mm: Iterable[float]) -> pd.DataFrame:
    return score_table([row(f"case_{n:02}", value) for n, value in enumerate(distances_mm)])


def line(frame: pd.DataFrame, metric: str) -> pd.Series:
    return frame[frame["metric"] == metric].iloc[0]


def test_a_missed_structure_never_enters_a_mean_of_distances_but_is_counted() -> None:
    summary = summarise(table([1.0, 3.0, MISSED, ABSENT]))
    hausdorff = line(summary, "hausdorff_mm")
    assert hausdorff["mean"] == hausdorff["median"] == 2.0
    assert hausdorff["count"] == 2
    assert (hausdorff["missed"], hausdorff["both_empty"], hausdorff["errors"]) == (1, 1, 0)


def test_a_missed_structure_enters_the_mean_dice_as_zero() -> None:
    overlap = line(summarise(table([1.0, 3.0, MISSED, ABSENT])), "dice")
    assert overlap["mean"] == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)
    assert overlap["count"] == 3


def test_a_row_with_an_error_is_counted_apart() -> None:
    rows = [row("a", 1.0), *error_rows("b", (Structure("horn", (1,)),), "no prediction")]
    found = line(summarise(score_table(rows)), "assd_mm")
    assert (found["count"], found["missed"], found["both_empty"], found["errors"]) == (1, 0, 0, 1)


def test_a_summary_where_every_case_is_missed_has_no_mean() -> None:
    found = line(summarise(table([MISSED, MISSED])), "hd95_mm")
    assert math.isnan(found["mean"])
    assert math.isnan(found["median"])
    assert (found["count"], found["missed"]) == (0, 2)


def test_wilcoxon_equals_scipy_on_plain_differences() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(1, 5, 25), generator.uniform(1, 6, 25)
    found = line(compare(table(first), table(second)), "hausdorff_mm")
    assert found["p"] == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert found["mean_difference"] == pytest.approx((first - second).mean())
    assert found["low"] < found["mean_difference"] < found["high"]
    assert found["wins"] == (first < second).sum()
    assert found["losses"] == (first > second).sum()


def test_equal_tables_differ_by_nothing_with_p_one() -> None:
    same = table([1.0, 2.0, MISSED, ABSENT])
    comparison = compare(same, same)
    assert (comparison["p"] == 1).all()
    assert (comparison["mean_difference"] == 0).all()
    assert (comparison["wins"] + comparison["losses"] == 0).all()
    assert (comparison["ties"] == 3).all()


def test_a_case_that_one_side_missed_ranks_above_every_finite_difference() -> None:
    # Ranks of the differences: 1, 2, 3 and, for the missed case, 4; the signs are -, -, -, +.
    first, second = table([1.0, 1.0, 1.0, MISSED]), table([2.0, 3.0, 4.0, 2.0])
    found = line(compare(first, second), "hausdorff_mm")
    assert found["p"] == pytest.approx(stats.wilcoxon([-1, -2, -3, 4]).pvalue)
    assert (found["wins"], found["losses"], found["ties"]) == (3, 1, 0)
    assert (found["pairs"], found["found"]) == (4, 3)
    assert found["mean_difference"] == pytest.approx(-2.0)
    assert (found["missed_first"], found["missed_second"]) == (1, 0)


def test_finding_nothing_where_nothing_is_beats_an_invention() -> None:
    comparison = compare(table([1.0, ABSENT]), table([1.0, MISSED]))
    assert (comparison["wins"] == 1).all()
    assert (comparison["losses"] == 0).all()


def test_finding_nothing_where_nothing_is_counts_as_a_perfect_score() -> None:
    comparison = compare(table([1.0, ABSENT]), table([1.0, 3.0]))
    assert line(comparison, "dice")["mean_first"] == pytest.approx((1 / 2 + 1) / 2)
    assert line(comparison, "hausdorff_mm")["mean_first"] == pytest.approx((1 + 0) / 2)
    assert line(comparison, "dice")["mean_second"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_structures_stay_in_the_order_of_the_table() -> None:
    rows = [{**row("a", 1.0), "structure": name} for name in ("tail", "body", "head")]
    found = score_table(rows)
    assert list(dict.fromkeys(summarise(found)["structure"])) == ["tail", "body", "head"]
    assert list(dict.fromkeys(compare(found, found)["structure"])) == ["tail", "body", "head"]


def test_higher_dice_wins_and_lower_distance_wins() -> None:
    comparison = compare(table([1.0, 1.0]), table([2.0, 3.0]))
    assert (comparison["wins"] == 2).all()
    assert line(comparison, "dice")["mean_difference"] > 0
    assert line(comparison, "assd_mm")["mean_difference"] < 0


def test_only_cases_scored_on_both_sides_are_compared_whatever_their_order() -> None:
    first = score_table([row("a", 1.0), row("b", 2.0), row("c", 9.0)])
    failed = error_rows("c", (Structure("horn", (1,)),), "broken")
    second = score_table([row("d", 7.0), *failed, row("b", 2.5), row("a", 1.5)])
    found = line(compare(first, second), "hausdorff_mm")
    assert found["pairs"] == 2
    assert found["mean_difference"] == pytest.approx(-0.5)


def test_a_table_read_from_its_csv_file_gives_the_same_results() -> None:
    rows = [row("1", 1.0), row("2", MISSED), row("3", ABSENT)]
    written = score_table([*rows, *error_rows("4", (Structure("horn", (1,)),), "broken")])
    read = pd.read_csv(io.StringIO(written.to_csv(index=False)))
    pd.testing.assert_frame_equal(summarise(read), summarise(written))
    other = score_table([row("1", 2.0), row("2", 4.0), row("3", 1.0)])
    pd.testing.assert_frame_equal(compare(read, other), compare(written, other))


def test_tables_without_a_common_case_are_refused() -> None:
    with pytest.raises(DataError, match=r"(?s)first holds cases a.*second z"):
        compare(score_table([row("a", 1.0)]), score_table([row("z", 1.0)]))


def test_tables_without_a_common_case_name_the_first_three_of_each() -> None:
    three = score_table([row(name, 1.0) for name in "abc"])
    four = score_table([row(name, 1.0) for name in "wxyz"])
    with pytest.raises(DataError, match=r"first holds cases a, b, c, the second w, x, y, \.\.\.$"):
        compare(three, four)


def test_a_table_with_other_columns_is_refused() -> None:
    with pytest.raises(DataError, match="columns hausdorff_mm are missing"):
        summarise(table([1.0]).drop(columns="hausdorff_mm"))


def test_a_case_that_appears_twice_is_refused() -> None:
    with pytest.raises(DataError, match="case a has more than one row for structure horn"):
        summarise(score_table([row("a", 1.0), row("a", 2.0)]))


def test_rows_for_the_terminal_have_headings_and_the_count_of_missed_cases() -> None:
    rows = summary_rows(summarise(table([1.0, 3.0, MISSED])))
    assert rows[0][-4:] == ("cases", "missed", "both empty", "errors")
    hausdorff = next(found for found in rows if found[1] == "hausdorff_mm")
    assert hausdorff[:5] == ("horn", "hausdorff_mm", "2.000", "1.000 to 3.000", "2.000")
    assert hausdorff[-4:] == ("2", "1", "0", "0")
    assert {len(found) for found in rows} == {9}


def test_rows_show_a_dash_where_there_is_no_value() -> None:
    rows = summary_rows(summarise(table([MISSED])))
    hausdorff = next(found for found in rows if found[1] == "hausdorff_mm")
    assert hausdorff[2:5] == ("-", "-", "-")


def test_comparison_rows_say_how_many_pairs_and_what_was_missed() -> None:
    rows = comparison_rows(compare(table([1.0, 1.0, MISSED]), table([2.0, 3.0, 2.0])))
    hausdorff = next(found for found in rows if found[1] == "hausdorff_mm")
    assert hausdorff[2:7] == ("2 of 3", "1.000", "2.500", "-1.500", "-2.000 to -1.000")
    assert hausdorff[-4:] == ("2", "1", "0", "1 / 0")
    assert {len(found) for found in rows} == {12}


def test_very_small_p_is_not_printed_as_zero() -> None:
    generator = np.random.default_rng(0)
    first = generator.uniform(1, 2, 40)
    rows = comparison_rows(compare(table(first), table(first + 1 + generator.uniform(0, 1, 40))))
    assert rows[1][7] == "< 0.0001"

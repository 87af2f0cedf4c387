from __future__ import annotations

import pandas as pd
import pytest

from shapeguide.report.theme import LIGHT
from shapeguide.studies.scores import COLUMNS, compared_systems, in_order
from shapeguide.studies.systems.compare import comparisons, pairs_to_compare, summary
from shapeguide.studies.systems.figures import systems_figure
from shapeguide.studies.text import summary_rows

CASES = 8


def rows_of(system: str, **dice: float) -> list[dict[str, object]]:
    """Rows of `table2.csv`: Dice of the first case by post-processing; each next is better."""
    shared = {"dataset": "d", "structure": "s", "regime": "few3", "severity": 0, "seed": 0}
    shared |= {"guidance": "none", "missed": False, "weights": "last", "system": system}
    distances = {"hausdorff_mm": 4.0, "hd95_mm": 2.0, "assd_mm": 1.0}
    return [
        {**shared, **distances, "case": f"c{case}", "postprocess": name, "dice": first + case / 100}
        for case in range(CASES)
        for name, first in dice.items()
    ]


@pytest.fixture
def table() -> pd.DataFrame:
    parts = [
        rows_of("plain", none=0.50, largest=0.52, srn=0.51, restored=0.60, restored_all_maps=0.62),
        rows_of("shape", none=0.53, largest=0.55, restored=0.65),
        rows_of("shape_all_maps", none=0.54, largest=0.56, restored=0.68),
        rows_of("srn", none=0.40, largest=0.42, srn=0.45),
    ]
    return pd.DataFrame([row for rows in parts for row in rows], columns=list(COLUMNS))


ORDER = [
    *("plain", "plain+restorer", "plain+restorer_all_maps", "plain+srn"),
    *("shape", "shape+restorer", "shape_all_maps", "shape_all_maps+restorer", "srn", "srn+srn"),
]


def test_a_restored_prediction_becomes_a_system_with_its_largest_component_kept(
    table: pd.DataFrame,
) -> None:
    before = table.copy()
    found = compared_systems(table)
    pd.testing.assert_frame_equal(table, before)
    assert len(found) == len(table)
    assert set(found["postprocess"]) == {"none", "largest"}
    first = found[found["case"] == "c0"].set_index(["system", "postprocess"])["dice"]
    assert first.to_dict() == {
        ("plain", "none"): 0.50,
        ("plain", "largest"): 0.52,
        ("plain+srn", "largest"): 0.51,
        ("plain+restorer", "largest"): 0.60,
        ("plain+restorer_all_maps", "largest"): 0.62,
        ("shape", "none"): 0.53,
        ("shape", "largest"): 0.55,
        ("shape+restorer", "largest"): 0.65,
        ("shape_all_maps", "none"): 0.54,
        ("shape_all_maps", "largest"): 0.56,
        ("shape_all_maps+restorer", "largest"): 0.68,
        ("srn", "none"): 0.40,
        ("srn", "largest"): 0.42,
        ("srn+srn", "largest"): 0.45,
    }


def test_a_table_without_restored_predictions_stays_as_it_is() -> None:
    table = pd.DataFrame(rows_of("plain", none=0.5, largest=0.6), columns=list(COLUMNS))
    pd.testing.assert_frame_equal(compared_systems(table), table)


def test_each_system_is_followed_by_its_restored_variants() -> None:
    mixed = ["shape", "plain+srn", "plain", "shape+restorer", "plain+restorer_all_maps", "shape"]
    assert in_order([*mixed, "plain+restorer"]) == [
        *("shape", "shape+restorer"),
        *("plain", "plain+restorer", "plain+restorer_all_maps", "plain+srn"),
    ]


def test_summary_terminal_and_figure_show_the_restored_systems_in_order(
    table: pd.DataFrame,
) -> None:
    found = summary(table)
    largest = found[found["postprocess"] == "largest"]
    assert list(largest["system"].unique()) == ORDER
    assert list(found[found["postprocess"] == "none"]["system"].unique()) == [
        *("plain", "shape", "shape_all_maps", "srn")
    ]
    means = largest[largest["metric"] == "dice"].set_index("system")["mean"]
    # Eight cases, 0.01 apart: the mean is 0.035 above the first.
    assert means["shape+restorer"] == pytest.approx(0.685)
    assert [row[3] for row in summary_rows(found)[1:]] == ORDER
    labels = systems_figure(found, LIGHT).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ORDER


def test_the_restored_guided_ones_are_compared_with_every_rival(table: pd.DataFrame) -> None:
    found = comparisons(table)
    largest = found[(found["postprocess"] == "largest") & (found["metric"] == "dice")]
    differences = largest.set_index(["first", "second"])["mean_difference"]
    for form, dice in (("shape+restorer", 0.65), ("shape_all_maps+restorer", 0.68)):
        assert differences[form, "plain"] == pytest.approx(dice - 0.52)
        assert differences[form, "plain+restorer"] == pytest.approx(dice - 0.60)
        assert differences[form, "shape"] == pytest.approx(dice - 0.55)
        assert differences[form, "srn"] == pytest.approx(dice - 0.42)
        assert differences[form, "srn+srn"] == pytest.approx(dice - 0.45)
    assert differences["shape", "plain+restorer"] == pytest.approx(0.55 - 0.60)
    none = found[(found["postprocess"] == "none") & (found["metric"] == "dice")]
    assert set(zip(none["first"], none["second"], strict=True)) == {
        *((name, "plain") for name in ("shape", "shape_all_maps", "srn")),
        *(("shape", name) for name in ("shape_all_maps", "srn")),
    }


def test_no_pair_is_compared_twice() -> None:
    pairs = pairs_to_compare(ORDER)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    # Nine against plain; shape against six that are neither plain nor a default form; each of two
    # default forms against those six and shape; SRN's restored by itself against SRN.
    assert len(pairs) == 9 + 6 + 2 * 7 + 1
    assert ("srn+srn", "srn") in pairs
    assert ("shape+restorer", "shape") in pairs
    assert ("shape+restorer", "shape_all_maps+restorer") not in pairs

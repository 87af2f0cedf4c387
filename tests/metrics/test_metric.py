from __future__ import annotations

import pytest

from shapeguide.metrics.metric import METRICS
from shapeguide.metrics.scores import COLUMNS


def test_every_metric_is_a_column_and_its_name_says_its_unit() -> None:
    assert set(METRICS) < set(COLUMNS)
    assert all((metric.unit == "mm") == name.endswith("_mm") for name, metric in METRICS.items())


@pytest.mark.parametrize(
    ("name", "heading", "perfect"),
    [("dice", "Dice", 1.0), ("hausdorff_mm", "Hausdorff distance (mm)", 0.0)],
)
def test_a_heading_has_the_unit_where_there_is_one(name: str, heading: str, perfect: float) -> None:
    assert (METRICS[name].heading, METRICS[name].perfect) == (heading, perfect)

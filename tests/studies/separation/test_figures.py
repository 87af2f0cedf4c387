from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from shapeguide.report.theme import LIGHT, as_png
from shapeguide.studies.separation.figures import (
    SeparationRow,
    error_panels,
    probe_figure,
    separation_figure,
    warp_panels,
)
from shapeguide.training.settings.groups import TrainSettings


def probe(**columns: object) -> pd.DataFrame:
    rows = [
        {"objective": "surface", "pose": pose, "seed": seed, "low": d, "high": d, "distance": d}
        for pose in ("grid", "canonical")
        for seed, d in ((0, 1.0), (1, 3.0))
    ]
    return pd.DataFrame([{**row, **columns} for row in rows])


def test_lines_are_means_over_seeds_and_the_training_range_is_shaded() -> None:
    table = pd.concat([probe(variation="rotation R", size=4.0), probe(variation="scale", size=0.6)])
    rotation, scale = warp_panels(table, TrainSettings())
    assert (rotation.title, rotation.shaded) == ("rotation about R", (0.0, 8.0))
    assert (scale.title, scale.shaded) == ("scale", (0.85, 1.15))
    assert set(scale.lines) == {("surface", "grid"), ("surface", "canonical")}
    assert scale.lines["surface", "grid"]["distance"].tolist() == [2.0]
    assert scale.lines["surface", "grid"]["at"].tolist() == [0.6]


def test_errors_are_drawn_over_their_true_size() -> None:
    table = pd.concat(
        [probe(error="hole", grade=g, assd_mm=true) for g, true in ((0.1, 0.4), (0.2, 0.7))]
    )
    [panel] = error_panels(table)
    assert panel.lines["surface", "canonical"]["at"].tolist() == [0.4, 0.7]
    figure = probe_figure([panel], "horn", LIGHT)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"surface, grid", "surface, canonical"}
    assert len(as_png(figure)) > 10_000


def test_the_published_mean_is_marked_where_the_paper_names_the_structure() -> None:
    row = SeparationRow("surface, grid", np.array([0.2]), np.array([1.0]), ("5.00", "1", "1"))
    marked, bare = (
        separation_figure([row], name, LIGHT).axes[0] for name in ("left_caudate", "horn")
    )
    [line] = [
        one for one in marked.lines if one.get_label() == "mean of the same case, as published"
    ]
    assert line.get_xdata()[0] == pytest.approx(0.120 / 0.316)  # type: ignore[index]
    assert len(marked.lines) == len(bare.lines) + 1

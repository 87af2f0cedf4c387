from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from shapeguide.report.charts import (
    CurvePanel,
    DistancePanel,
    Line,
    PairedPanel,
    curve_figure,
    distance_figure,
    moving_average,
    paired_figure,
)
from shapeguide.report.pictures import (
    CaseView,
    composite_figure,
    fullest_slice,
    slice_figure,
    surface_figure,
)
from shapeguide.report.theme import DARK, DOTS_PER_INCH, LIGHT, Theme, as_jpeg, as_png


def ball(centre: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    indices = np.indices((20, 24, 22))
    offsets = indices - np.reshape(centre, (3, 1, 1, 1))
    return np.asarray((offsets**2).sum(0) <= radius**2)


@pytest.fixture
def case() -> CaseView:
    reference = ball((10, 12, 11), 6)
    random = np.random.default_rng(0)
    return CaseView(
        title="worst: case_1",
        image=reference + 0.2 * random.normal(size=reference.shape),
        spacing_mm=(1.0, 1.0, 1.5),
        reference=reference,
        predictions={"plain": ball((10, 13, 11), 5), "guided": np.zeros_like(reference)},
        notes={"plain": "Dice 0.8", "guided": "missed"},
    )


def pixels_of(png: bytes) -> NDArray[np.float32]:
    return np.asarray(imread(BytesIO(png), format="png"))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_chart_has_the_size_of_its_panels_and_the_paper_of_its_theme(theme: Theme) -> None:
    lines = (Line("plain", [10, 20, 30], [1.0, 0.5, 0.4], 0), Line("b", [30], [0.9], 1, True))
    panel = CurvePanel("Dice loss", lines, starts_at=20, starts="guidance")
    pixels = pixels_of(as_png(curve_figure([panel, panel], theme)))
    assert pixels.shape[:2] == (int(2.75 * DOTS_PER_INCH), int(2 * 3.35 * DOTS_PER_INCH))
    paper = [int(theme.paper[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    np.testing.assert_allclose(pixels[0, 0, :3], paper, atol=0.01)
    assert pixels[..., :3].std() > 0.02


def test_paired_scores_show_missed_structures_as_crosses() -> None:
    values = np.array([[3.0, np.inf, 5.0], [2.0, 4.0, np.nan]])
    figure = paired_figure([PairedPanel("HD (mm)", ("plain", "guided"), values)], LIGHT)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "1 missed" in texts
    assert {"4.00", "3.00"} <= set(texts)
    assert len(as_png(figure)) > 5000


def test_distances_show_both_means() -> None:
    panel = DistancePanel("horn", np.array([0.1, 0.3]), np.array([1.0, 1.5]), "ratio 6.25")
    figure = distance_figure([panel], DARK)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"mean 0.20", "mean 1.25"} <= set(texts)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "different cases",
        "same case",
    ]


def test_a_chart_without_panels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        curve_figure([], LIGHT)
    with pytest.raises(ValueError, match="at least one case"):
        slice_figure([])


def test_the_moving_average_keeps_a_straight_line_and_its_ends() -> None:
    line = np.linspace(0, 1, 60)
    np.testing.assert_allclose(moving_average(line), line)


def test_pictures_of_cases_are_drawn_even_when_nothing_was_found(case: CaseView) -> None:
    for figure in (slice_figure([case]), surface_figure([case]), composite_figure(case)):
        width, height = figure.get_size_inches()
        pixels = pixels_of(as_png(figure))
        assert pixels.shape[:2] == (int(height * DOTS_PER_INCH), int(width * DOTS_PER_INCH))
        assert pixels[..., :3].std() > 0.05
    texts = [text.get_text() for axes in surface_figure([case]).axes for text in axes.texts]
    assert texts == ["nothing found"]


def test_a_jpeg_of_a_picture_is_a_jpeg(case: CaseView) -> None:
    assert as_jpeg(slice_figure([case]))[:3] == b"\xff\xd8\xff"


def test_the_fullest_slice_is_the_one_with_most_voxels() -> None:
    mask = np.zeros((4, 5, 6), dtype=bool)
    mask[1, 0, 0] = True
    mask[3, :2, 4] = True
    assert fullest_slice(mask, 0) == 3
    assert fullest_slice(mask, 2) == 4
    assert fullest_slice(np.zeros((4, 5, 6), dtype=bool), 1) == 2

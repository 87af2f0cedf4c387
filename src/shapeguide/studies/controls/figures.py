"""The figure of a study of controls: ratios by how far heads lie off, beside the published ones."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapeguide.report.theme import Theme, new_figure, style_axes, style_legend
from shapeguide.studies.controls.design import USUAL_LEVELS

PANEL_INCHES = (3.3, 3.0)
OBSERVERS = ("trained", "untrained", "view", "averaged view")
STYLES = {"train": "solid", "test": (0, (4, 2))}


def ratio_figure(
    summary: pd.DataFrame, published: tuple[float, float] | None, theme: Theme
) -> Figure:
    """A panel for each centre and translation: ratio over the offset, a line for each observer.

    Args:
        summary: As `controls_summary.csv`.
        published: Range of the published ratios, drawn as a band; None draws none.
        theme: Colours.
    """
    usual = summary[
        (summary["pose"] == "grid")
        & (summary["maps"] == "binary")
        & (summary["levels"] == USUAL_LEVELS)
        & ~summary["normalised"].astype(bool)
    ]
    centres = list(dict.fromkeys(usual["centre"]))
    translations = sorted(set(usual["translation_mm"]))
    width, height = PANEL_INCHES
    figure = new_figure(width * max(1, len(translations)), height * max(1, len(centres)), theme)
    panels = [(centre, one) for centre in centres for one in translations]
    for place, (centre, translation_mm) in enumerate(panels):
        axes = figure.add_subplot(len(centres), len(translations), place + 1)
        if published is not None:
            axes.axhspan(*published, color=theme.grid, zorder=0.5, label="published")
        shown = usual[(usual["centre"] == centre) & (usual["translation_mm"] == translation_mm)]
        _draw_lines(axes, shown, theme)
        axes.set_ylim(bottom=0.8)
        style_axes(axes, theme, title=f"about the {centre}, up to {translation_mm:g} mm")
        if place >= len(panels) - len(translations):
            axes.set_xlabel("heads lie off by (sd, mm)")
        if place % len(translations) == 0:
            axes.set_ylabel("ratio: two people / one")
        if place == 0:
            style_legend(axes, theme)
    return figure


def _draw_lines(axes: Axes, shown: pd.DataFrame, theme: Theme) -> None:
    """A line for each observer: solid where the people are those of the training."""
    for colour, observer in enumerate(OBSERVERS):
        for people, style in STYLES.items():
            chosen = (shown["observer"] == observer) & (shown["people"] == people)
            line = shown[chosen].sort_values("offset_mm")
            axes.plot(
                line["offset_mm"], line["ratio"], linestyle=style, marker="o", markersize=3,
                color=theme.colour(colour), label=observer if people == "train" else None,
            )  # fmt: skip

"""The figure of a structure: systems as dots with intervals, a panel for each regime and metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapeguide.report.theme import Theme, new_figure, style_axes
from shapeguide.studies.systems.compared import in_order
from shapeguide.studies.systems.cube import ANY_SEVERITY, CORRUPTED
from shapeguide.studies.systems.systems import GUIDED, PLAIN

SHOWN = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "hausdorff_mm": "Hausdorff (mm)"}
POSTPROCESSES = ("none", "largest")
READING = (
    "mean and 95 % interval; ring: as predicted,\n"
    "dot: largest component kept; dashed: that of plain"
)
ENDS = ["low", "mean", "high"]
PANEL_INCHES = 2.35
ROW_INCHES = 0.3
NARROWEST = 0.02
"""Least extent of an axis, in Dice or mm."""


def systems_figure(summary: pd.DataFrame, theme: Theme) -> Figure:
    """Systems by rows, regimes by columns of panels, metrics by rows of panels.

    A ring is the prediction as it comes, a dot the one with the largest component kept.

    Args:
        summary: Rows of one structure and one kind of weights.
        theme: Light or dark.
    """
    regimes = shown_regimes(summary)
    systems = in_order(summary["system"])
    height = (ROW_INCHES * len(systems) + 0.75) * len(SHOWN)
    figure = new_figure(PANEL_INCHES * len(regimes) + 1.2, height, theme)
    for row, (metric, title) in enumerate(SHOWN.items()):
        shared: Axes | None = None
        for column, (regime, severity) in enumerate(regimes):
            place = row * len(regimes) + column + 1
            axes = figure.add_subplot(len(SHOWN), len(regimes), place, sharey=shared)
            shared = shared or axes
            style_axes(axes, theme, title=regime if row == 0 else "")
            here = (summary["regime"] == regime) & (summary["severity"] == severity)
            _draw(axes, summary[here & (summary["metric"] == metric)], systems, theme)
            axes.set_xlabel(title, fontsize=8.5)
            axes.tick_params(labelleft=column == 0)
    figure.suptitle(READING, fontsize=8.5, color=theme.faint, x=0.01, ha="left")
    return figure


def _note(axes: Axes, text: str, place: float, theme: Theme) -> None:
    """Small text at the right end of a row."""
    axes.annotate(
        text,
        (1, place),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        fontsize=6.5,
        color=theme.ink,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1.0},
    )


def _widen(axes: Axes) -> None:
    """Limits that people can read where all values are equal."""
    low, high = axes.get_xlim()
    if high - low < NARROWEST:
        axes.set_xlim((low + high) / 2 - NARROWEST / 2, (low + high) / 2 + NARROWEST / 2)


def shown_regimes(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """Regime and severity of each column: clean images, and all corruptions together."""
    found = dict.fromkeys(zip(summary["regime"], summary["severity"], strict=True))
    clean = [(regime, severity) for regime, severity in found if "+" not in regime]
    pooled = [(regime, s) for regime, s in found if regime.endswith(f"+{CORRUPTED}")]
    return clean + [pair for pair in pooled if pair[1] == ANY_SEVERITY]


def _draw(axes: Axes, rows: pd.DataFrame, systems: Sequence[str], theme: Theme) -> None:
    places = np.arange(len(systems))[::-1]
    for offset, postprocess in zip((0.14, -0.14), POSTPROCESSES, strict=True):
        by_system = rows[rows["postprocess"] == postprocess].set_index("system")
        for place, system in zip(places, systems, strict=True):
            if system not in by_system.index:
                continue
            low, mean, high = by_system.loc[system, ENDS].to_numpy(np.float64)
            colour = theme.colour(1) if system.startswith(GUIDED) else theme.colour(0)
            colour = theme.faint if system == PLAIN else colour
            axes.plot([low, high], [place + offset] * 2, color=colour, lw=1.4)
            inside = colour if postprocess == "largest" else theme.paper
            axes.plot(
                mean,
                place + offset,
                "o",
                markersize=4.5,
                color=colour,
                markerfacecolor=inside,
            )
            if system == PLAIN and postprocess == "largest":
                axes.axvline(float(mean), color=theme.faint, linewidth=0.8, linestyle=(0, (3, 3)))
            missed = int(by_system["missed"].loc[system])
            # Keeping the largest component never loses all of a structure: one count for both.
            if missed and postprocess == "largest" and by_system["metric"].loc[system] != "dice":
                _note(axes, f"{missed} missed", float(place), theme)
    _widen(axes)
    axes.set_yticks(places, systems, color=theme.ink, fontsize=8.5)
    axes.set_ylim(-0.6, len(systems) - 0.4)
    axes.grid(visible=False, axis="y")

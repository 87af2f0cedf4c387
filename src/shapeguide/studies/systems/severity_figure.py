"""The figure of a structure over severities: how systems hold out as images get worse."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapeguide.report.theme import Theme, new_figure, style_axes
from shapeguide.studies.systems.compared import AND, LARGEST, in_order
from shapeguide.studies.systems.cube import ANY_SEVERITY, CORRUPTED
from shapeguide.studies.systems.systems import PLAIN
from shapeguide.studies.systems.systems_figure import SHOWN
from shapeguide.studies.systems.tables import DEFAULTS

READING = (
    "mean over all corruptions by severity, 0: none\n"
    "largest component kept; intervals (95 %) of plain and of the default, shape+restorer"
)
PANEL_INCHES = (3.0, 2.3)
LEAST_WIDTH_INCHES = 4.5
LEGEND_ROW_INCHES = 0.2
LEGEND_COLUMNS = 3
CLEAN = "0"


def has_severities(summary: pd.DataFrame) -> bool:
    """Whether degraded images of more than one severity were tested."""
    return summary.loc[_pooled(summary), "severity"].nunique() > 1


def severities_figure(summary: pd.DataFrame, theme: Theme) -> Figure:
    """A line for each system and a panel for each regime of the training and metric.

    Of restored systems, the default alone is shown.

    Args:
        summary: Rows of one structure and one kind of weights, over more than one severity.
        theme: Light or dark.
    """
    kept = summary[summary["postprocess"] == LARGEST]
    clean = kept[(kept["severity"] == CLEAN) & ~kept["regime"].str.contains(AND, regex=False)]
    degraded = kept[_pooled(kept)]
    degraded = degraded.assign(regime=degraded["regime"].str.removesuffix(f"{AND}{CORRUPTED}"))
    rows = pd.concat([clean, degraded])
    rows = rows[~rows["system"].str.contains(AND, regex=False) | rows["system"].isin(DEFAULTS)]
    regimes, systems = list(dict.fromkeys(rows["regime"])), in_order(rows["system"])
    width, height = PANEL_INCHES
    named_rows = ceil(len(systems) / LEGEND_COLUMNS)
    figure_height = height * len(SHOWN) + LEGEND_ROW_INCHES * (named_rows + 1)
    figure = new_figure(max(width * len(regimes), LEAST_WIDTH_INCHES), figure_height, theme)
    for row, (metric, title) in enumerate(SHOWN.items()):
        for column, regime in enumerate(regimes):
            place = row * len(regimes) + column + 1
            axes = figure.add_subplot(len(SHOWN), len(regimes), place)
            style_axes(axes, theme, title=regime if row == 0 else "")
            here = (rows["regime"] == regime) & (rows["metric"] == metric)
            _draw(axes, rows[here], systems, theme)
            axes.set_ylabel(title if column == 0 else "", fontsize=8.5)
            axes.set_xlabel("severity" if row == len(SHOWN) - 1 else "", fontsize=8.5)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        lines,
        names,
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize=8.5,
        labelcolor=theme.ink,
    )
    figure.suptitle(READING, fontsize=8.5, color=theme.faint, x=0.01, ha="left")
    return figure


def _pooled(summary: pd.DataFrame) -> pd.Series[bool]:
    """Over all corruptions at one severity."""
    found: pd.Series[bool] = summary["regime"].str.endswith(f"{AND}{CORRUPTED}")
    return found & (summary["severity"] != ANY_SEVERITY)


def _draw(axes: Axes, rows: pd.DataFrame, systems: Sequence[str], theme: Theme) -> None:
    rivals = [name for name in systems if name != PLAIN and name not in DEFAULTS]
    for system in systems:
        line = rows[rows["system"] == system].sort_values("severity")
        places = line["severity"].astype(int).to_numpy()
        low, mean, high = line[["low", "mean", "high"]].to_numpy(np.float64).T
        chief = system not in rivals
        colour = theme.colour(1) if chief else theme.colour(2 + rivals.index(system))
        colour = theme.ink if system == PLAIN else colour
        axes.plot(
            places,
            mean,
            marker="o",
            markersize=3.5,
            color=colour,
            linewidth=2.0 if chief else 1.1,
            label=system,
        )
        if chief:
            axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xticks(sorted(set(rows["severity"].astype(int))))
    axes.set_xlim(-0.15, rows["severity"].astype(int).max() + 0.15)
    axes.tick_params(axis="x", labelcolor=theme.ink)

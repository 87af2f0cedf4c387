"""The figure of a factorial experiment: what each level of each factor does, against plain."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapeguide.report.theme import Theme, as_png, new_figure, style_axes, themed
from shapeguide.storage.whole import written_whole
from shapeguide.studies.systems.compared import LARGEST
from shapeguide.studies.systems.folder import ResultFiles
from shapeguide.studies.systems.systems_figure import SHOWN, shown_regimes

READING = (
    "mean difference to plain over all combinations with a level,\n"
    "95 % interval over people; largest component kept"
)
PANEL_INCHES = 2.35
ROW_INCHES = 0.3


def write_effects_figures(files: ResultFiles, effects: pd.DataFrame) -> None:
    """Write the figure of each structure, for light and for dark pages, as `STRUCTURE_effects`."""
    if effects.empty:
        return
    for structure, rows in effects.groupby("structure", sort=False):
        chosen = rows[rows["weights"] == rows["weights"].iloc[0]]
        for suffix, theme in themed():
            with written_whole(files.figure(f"{structure}_effects{suffix}.png")) as temporary:
                temporary.write_bytes(as_png(effects_figure(chosen, theme)))


def effects_figure(effects: pd.DataFrame, theme: Theme) -> Figure:
    """Levels by rows, regimes by columns of panels, metrics by rows of panels.

    Args:
        effects: Rows of one structure and one kind of weights.
        theme: Light or dark.
    """
    kept = effects[effects["postprocess"] == LARGEST]
    regimes = shown_regimes(kept)
    levels = list(dict.fromkeys(zip(kept["factor"], kept["level"].astype(str), strict=True)))
    height = (ROW_INCHES * len(levels) + 0.75) * len(SHOWN)
    figure = new_figure(PANEL_INCHES * len(regimes) + 1.6, height, theme)
    for row, (metric, title) in enumerate(SHOWN.items()):
        for column, (regime, severity) in enumerate(regimes):
            place = row * len(regimes) + column + 1
            axes = figure.add_subplot(len(SHOWN), len(regimes), place)
            style_axes(axes, theme, title=regime if row == 0 else "")
            here = (kept["regime"] == regime) & (kept["severity"] == severity)
            _draw(axes, kept[here & (kept["metric"] == metric)], levels, theme)
            axes.set_xlabel(f"{title}, difference", fontsize=8.5)
            axes.tick_params(labelleft=column == 0)
    figure.suptitle(READING, fontsize=8.5, color=theme.faint, x=0.01, ha="left")
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, levels: list[tuple[str, str]], theme: Theme) -> None:
    factors = list(dict.fromkeys(factor for factor, _ in levels))
    found = rows.assign(level=rows["level"].astype(str)).set_index(["factor", "level"])
    places = np.arange(len(levels))[::-1]
    for place, named in zip(places, levels, strict=True):
        if named not in found.index:
            continue
        low, mean, high = found.loc[[named]][["low", "mean_difference", "high"]].to_numpy()[0]
        colour = theme.colour(factors.index(named[0]))
        axes.plot([low, high], [place] * 2, color=colour, linewidth=1.4)
        axes.plot(mean, place, "o", markersize=4.5, color=colour)
    axes.axvline(0, color=theme.faint, linewidth=0.8, linestyle=(0, (3, 3)))
    names = [f"{factor} {level}" for factor, level in levels]
    axes.set_yticks(places, names, color=theme.ink, fontsize=8.5)
    axes.set_ylim(-0.6, len(levels) - 0.4)
    axes.grid(visible=False, axis="y")

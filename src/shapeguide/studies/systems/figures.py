"""The figures of a structure: panels of systems, of severities, and of the levels of factors.

Every figure has a row of panels for each metric and a column for each regime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapeguide.metrics.metric import METRICS
from shapeguide.report.theme import Theme, few_ticks, new_figure, style_axes, write_themed
from shapeguide.studies.scores import AND, ANY_SEVERITY, AS_PREDICTED, CORRUPTED, LARGEST, in_order
from shapeguide.studies.study import StudyFiles
from shapeguide.studies.systems.compare import DEFAULTS
from shapeguide.studies.systems.systems import GUIDED, PLAIN

SHOWN = ("dice", "hd95_mm", "hausdorff_mm")
SYSTEMS_READING = (
    "mean and 95 % interval; ring: as predicted,\n"
    "dot: largest component kept; dashed: that of plain"
)
SEVERITIES_READING = (
    "mean over all corruptions by severity, 0: none\n"
    "largest component kept; intervals (95 %) of plain and of the default, shape+restorer"
)
EFFECTS_READING = (
    "mean difference to plain over all combinations with a level,\n"
    "95 % interval over people; largest component kept"
)
ENDS = ["low", "mean", "high"]
PANEL_INCHES = 2.35
ROW_INCHES = 0.3
SEVERITY_PANEL_INCHES = (3.0, 2.3)
LEAST_WIDTH_INCHES = 4.5
LEGEND_ROW_INCHES = 0.2
LEGEND_COLUMNS = 3
NARROWEST = 0.02
"""Least extent of an axis, in Dice or mm."""
MOST_SYSTEMS = 40
CLEAN = "0"
DASHED = (0, (3, 3))

Column = tuple[str, str]
"""Regime and severity."""


def write_figures(files: StudyFiles, summary: pd.DataFrame) -> None:
    """Write the figures of each structure, for light and for dark pages.

    A second one where degraded images of several severities were tested; none of more systems than
    anybody would read.
    """
    for structure, rows in summary.groupby("structure", sort=False):
        chosen = rows[rows["weights"] == rows["weights"].iloc[0]]
        if chosen["system"].nunique() <= MOST_SYSTEMS:
            _write(files, str(structure), "", systems_figure, chosen)
        if has_severities(chosen):
            _write(files, str(structure), "_severities", severities_figure, chosen)


def write_effects_figures(files: StudyFiles, effects: pd.DataFrame) -> None:
    """Write the figure of each structure, for light and for dark pages, as `STRUCTURE_effects`."""
    if effects.empty:
        return
    for structure, rows in effects.groupby("structure", sort=False):
        chosen = rows[rows["weights"] == rows["weights"].iloc[0]]
        _write(files, str(structure), "_effects", effects_figure, chosen)


def systems_figure(summary: pd.DataFrame, theme: Theme) -> Figure:
    """Systems by rows; a ring is the prediction as it comes, a dot its largest component.

    Args:
        summary: Rows of one structure and one kind of weights.
        theme: Light or dark.
    """
    systems = in_order(summary["system"])
    draw = partial(_draw_systems, systems=systems, theme=theme)
    return _rows_figure(summary, systems, draw, theme=theme, reading=SYSTEMS_READING)


def effects_figure(effects: pd.DataFrame, theme: Theme) -> Figure:
    """Levels of factors by rows.

    Args:
        effects: Rows of one structure and one kind of weights.
        theme: Light or dark.
    """
    kept = effects[effects["postprocess"] == LARGEST]
    named = list(dict.fromkeys(zip(kept["factor"], kept["level"].astype(str), strict=True)))
    draw = partial(_draw_effects, named=named, theme=theme)
    names = [f"{factor} {level}" for factor, level in named]
    return _rows_figure(
        kept, names, draw, theme=theme, reading=EFFECTS_READING, ending=", difference"
    )


def severities_figure(summary: pd.DataFrame, theme: Theme) -> Figure:
    """A line for each system over the severities; of restored systems the default alone.

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
    width, height = SEVERITY_PANEL_INCHES
    legend = LEGEND_ROW_INCHES * (ceil(len(systems) / LEGEND_COLUMNS) + 1)
    figure = new_figure(
        max(width * len(regimes), LEAST_WIDTH_INCHES), height * len(SHOWN) + legend, theme
    )
    for place, metric, regime, axes in _panels(figure, regimes, theme):
        here = (rows["regime"] == regime) & (rows["metric"] == metric)
        _draw_severities(axes, rows[here], systems, theme)
        axes.set_ylabel(_short_heading(metric) if place[1] == 0 else "", fontsize=8.5)
        axes.set_xlabel("severity" if place[0] == len(SHOWN) - 1 else "", fontsize=8.5)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False,
        fontsize=8.5, labelcolor=theme.ink,
    )  # fmt: skip
    _caption(figure, SEVERITIES_READING, theme)
    return figure


def has_severities(summary: pd.DataFrame) -> bool:
    """Whether degraded images of more than one severity were tested."""
    return summary.loc[_pooled(summary), "severity"].nunique() > 1


def shown_regimes(summary: pd.DataFrame) -> list[Column]:
    """Regime and severity of each column: clean images, and all corruptions together."""
    found = dict.fromkeys(zip(summary["regime"], summary["severity"], strict=True))
    clean = [(regime, severity) for regime, severity in found if AND not in regime]
    pooled = [(regime, s) for regime, s in found if regime.endswith(f"{AND}{CORRUPTED}")]
    return clean + [pair for pair in pooled if pair[1] == ANY_SEVERITY]


def _write(
    files: StudyFiles,
    structure: str,
    ending: str,
    draw: Callable[[pd.DataFrame, Theme], Figure],
    rows: pd.DataFrame,
) -> None:
    stem = quote(structure, safe=" ") + ending
    write_themed(files.figures, f"{stem}.png", lambda theme: draw(rows, theme))


def _rows_figure(
    table: pd.DataFrame,
    names: Sequence[str],
    draw: Callable[[Axes, pd.DataFrame], None],
    *,
    theme: Theme,
    reading: str,
    ending: str = "",
) -> Figure:
    """Panels whose rows have names, drawn from the rows of the table that belong to each."""
    columns = shown_regimes(table)
    height = (ROW_INCHES * len(names) + 0.75) * len(SHOWN)
    margin = 0.5 + 0.075 * max(map(len, names), default=0)
    figure = new_figure(PANEL_INCHES * len(columns) + margin, height, theme)
    for place, metric, column, axes in _panels(figure, [name for name, _ in columns], theme):
        severity = columns[place[1]][1]
        here = (table["regime"] == column) & (table["severity"] == severity)
        draw(axes, table[here & (table["metric"] == metric)])
        axes.set_yticks(range(len(names))[::-1], names, color=theme.ink, fontsize=8.5)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{_short_heading(metric)}{ending}", fontsize=8.5)
        axes.tick_params(labelleft=place[1] == 0)
        few_ticks(axes)
    _caption(figure, reading, theme)
    return figure


def _panels(
    figure: Figure, columns: Sequence[str], theme: Theme
) -> list[tuple[tuple[int, int], str, str, Axes]]:
    """Row and column, metric, title of the column, and axes of each panel."""
    panels = []
    for row, metric in enumerate(SHOWN):
        for column, title in enumerate(columns):
            number = row * len(columns) + column + 1
            axes = figure.add_subplot(len(SHOWN), len(columns), number)
            style_axes(axes, theme, title=title if row == 0 else "")
            panels.append(((row, column), metric, title, axes))
    return panels


def _draw_systems(axes: Axes, rows: pd.DataFrame, systems: Sequence[str], theme: Theme) -> None:
    places = np.arange(len(systems))[::-1]
    for offset, postprocess in ((0.14, AS_PREDICTED), (-0.14, LARGEST)):
        by_system = rows[rows["postprocess"] == postprocess].set_index("system")
        for place, system in zip(places, systems, strict=True):
            if system not in by_system.index:
                continue
            ends = by_system.loc[system, ENDS].to_numpy(np.float64)
            colour = theme.colour(1) if system.startswith(GUIDED) else theme.colour(0)
            colour = theme.faint if system == PLAIN else colour
            inside = colour if postprocess == LARGEST else theme.paper
            _draw_interval(axes, ends, place + offset, (colour, inside))
            if postprocess == AS_PREDICTED:
                continue
            if system == PLAIN:
                axes.axvline(float(ends[1]), color=theme.faint, linewidth=0.8, linestyle=DASHED)
            missed = int(by_system["missed"].loc[system])
            # Keeping the largest component never loses all of a structure: one count for both.
            if missed and by_system["metric"].loc[system] != "dice":
                _note(axes, f"{missed} missed", float(place), theme)
    low, high = axes.get_xlim()
    if high - low < NARROWEST:
        axes.set_xlim((low + high - NARROWEST) / 2, (low + high + NARROWEST) / 2)


def _draw_effects(
    axes: Axes, rows: pd.DataFrame, named: Sequence[tuple[str, str]], theme: Theme
) -> None:
    factors = list(dict.fromkeys(factor for factor, _ in named))
    found = rows.assign(level=rows["level"].astype(str)).set_index(["factor", "level"])
    for place, one in zip(np.arange(len(named))[::-1], named, strict=True):
        if one in found.index:
            ends = found.loc[[one]][["low", "mean_difference", "high"]].to_numpy()[0]
            colour = theme.colour(factors.index(one[0]))
            _draw_interval(axes, ends, float(place), (colour, colour))
    axes.axvline(0, color=theme.faint, linewidth=0.8, linestyle=DASHED)


def _draw_interval(
    axes: Axes, ends: NDArray[np.float64], place: float, colours: tuple[str, str]
) -> None:
    """A dot at the mean on a line from low to high."""
    low, mean, high = ends
    colour, inside = colours
    axes.plot([low, high], [place] * 2, color=colour, linewidth=1.4)
    axes.plot(mean, place, "o", markersize=4.5, color=colour, markerfacecolor=inside)


def _draw_severities(axes: Axes, rows: pd.DataFrame, systems: Sequence[str], theme: Theme) -> None:
    rivals = [name for name in systems if name != PLAIN and name not in DEFAULTS]
    for system in systems:
        line = rows[rows["system"] == system].sort_values("severity")
        places = line["severity"].astype(int).to_numpy()
        low, mean, high = line[ENDS].to_numpy(np.float64).T
        chief = system not in rivals
        colour = theme.colour(1) if chief else theme.colour(2 + rivals.index(system))
        colour = theme.ink if system == PLAIN else colour
        width = 2.0 if chief else 1.1
        axes.plot(
            places, mean, marker="o", markersize=3.5, color=colour, linewidth=width, label=system
        )
        if chief:
            axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
    severities = sorted(set(rows["severity"].astype(int)))
    axes.set_xticks(severities)
    axes.set_xlim(-0.15, max(severities, default=0) + 0.15)
    axes.tick_params(axis="x", labelcolor=theme.ink)


def _note(axes: Axes, text: str, place: float, theme: Theme) -> None:
    """Small text at the right end of a row."""
    axes.annotate(
        text, (1, place), xycoords=("axes fraction", "data"), ha="right", va="center",
        fontsize=6.5, color=theme.ink,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip


def _caption(figure: Figure, reading: str, theme: Theme) -> None:
    figure.suptitle(reading, fontsize=8.5, color=theme.faint, x=0.01, ha="left")


def _short_heading(metric: str) -> str:
    return METRICS[metric].heading.replace(" distance", "")


def _pooled(summary: pd.DataFrame) -> pd.Series[bool]:
    """Over all corruptions at one severity."""
    found: pd.Series[bool] = summary["regime"].str.endswith(f"{AND}{CORRUPTED}")
    return found & (summary["severity"] != ANY_SEVERITY)

"""The figures of a study of separation: distances of pairs, of warps, of errors; by structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapeguide.report.theme import LIGHT, Theme, as_png, new_figure, style_axes, write_picture
from shapeguide.storage.whole import read_table
from shapeguide.studies.separation.design import OBJECTIVES, Condition
from shapeguide.studies.separation.measure import Measured, SeparationFiles
from shapeguide.studies.separation.tables import published_of
from shapeguide.training.settings.groups import TrainSettings

SAME, DIFFERENT = 0, 1
LINE_STYLES = {"aligned": "solid", "canonical": (0, (1, 1)), "grid": (0, (4, 2))}
UNITS = "distance (1 = two people)"
PERCENTILE_SHOWN = 99.5
DISTANCES = ("same", "different")
CONDITION = ("dataset", "structure", "objective", "pose")
"""Columns of text that say which condition a row is of."""


@dataclass(frozen=True, eq=False)
class SeparationRow:
    """Distances of the pairs of one objective and pose, over all seeds."""

    name: str
    same: NDArray[np.float64]
    """In units of the mean distance between two cases, shape (N,)."""
    different: NDArray[np.float64]
    summary: tuple[str, ...]
    """Ratio, AUC and rank-1, as text."""


@dataclass(frozen=True, eq=False)
class ProbePanel:
    """Lines of one variation or one kind of error."""

    title: str
    label: str
    """Name of the horizontal axis."""
    lines: Mapping[tuple[str, str], pd.DataFrame]
    """Columns at, distance, low, high, by objective and pose."""
    shaded: tuple[float, float] | None = None
    """Range that training covers."""


def draw_figures(
    files: SeparationFiles, measured: Mapping[Condition, Measured], settings: TrainSettings
) -> None:
    """Write all figures of the results folder."""
    tables = [
        read_table(files.table(name), ("distance",), text=(*CONDITION, kind))
        for name, kind in (("warps", "variation"), ("errors", "error"))
    ]
    for structure in dict.fromkeys(condition.structure for condition in measured):
        chosen = {one: found for one, found in measured.items() if one.structure == structure}
        warps, errors = (table[table["structure"] == structure] for table in tables)
        drawn = {
            "separation": separation_figure(separation_rows(files, chosen), structure, LIGHT),
            "warps": probe_figure(warp_panels(warps, settings), structure, LIGHT),
            "errors": probe_figure(error_panels(errors), structure, LIGHT),
        }
        for name, figure in drawn.items():
            write_picture(files.figures / f"{name}_{quote(structure)}.png", as_png(figure))


def separation_rows(
    files: SeparationFiles, measured: Mapping[Condition, Measured]
) -> list[SeparationRow]:
    """What the first figure shows of the conditions of one structure."""
    rows = []
    for objective, pose in dict.fromkeys(
        (condition.objective, condition.pose) for condition in measured
    ):
        same_kind = {
            condition: found
            for condition, found in measured.items()
            if (condition.objective, condition.pose) == (objective, pose)
        }
        parts = []
        for condition, found in same_kind.items():
            pairs = read_table(files.part(condition, "pairs"), DISTANCES, text=())[
                [*DISTANCES]
            ].to_numpy()
            parts.append(pairs / found.different if found.different > 0 else pairs)
        same, different = np.concatenate(parts).T
        means = {
            name: float(np.mean([getattr(found, name) for found in same_kind.values()]))
            for name in ("ratio", "auc", "rank1")
        }
        summary = (f"{means['ratio']:.2f}", f"{means['auc']:.3f}", f"{means['rank1']:.2f}")
        rows.append(SeparationRow(f"{objective}, {pose}", same, different, summary))
    return rows


def warp_panels(table: pd.DataFrame, settings: TrainSettings) -> list[ProbePanel]:
    """One panel for each variation; the range of the training's warps is shaded."""
    panels = []
    for variation, rows in table.groupby("variation", sort=False):
        scale = variation == "scale"
        limits = settings.warp.scale if scale else (0.0, settings.warp.rotation_deg)
        label = "scale" if scale else "rotation (degrees)"
        title = str(variation) if scale else str(variation).replace("rotation", "rotation about")
        panels.append(ProbePanel(title, label, _lines(rows, "size"), limits))
    return panels


def error_panels(table: pd.DataFrame) -> list[ProbePanel]:
    """One panel for each kind of error, over the true error."""
    return [
        ProbePanel(str(kind), "true mean surface distance (mm)", _lines(rows, "assd_mm"))
        for kind, rows in table.groupby("error", sort=False)
    ]


def separation_figure(rows: Sequence[SeparationRow], structure: str, theme: Theme) -> Figure:
    """Every pair as a point: same case above, different cases below, one pair of rows each."""
    figure = new_figure(8.2, 1.3 + 0.62 * len(rows), theme)
    axes = figure.add_subplot()
    style_axes(axes, theme, title=structure)
    axes.grid(visible=False, axis="y")
    farthest = max(
        float(np.percentile(np.concatenate([row.same, row.different]), PERCENTILE_SHOWN))
        for row in rows
    )
    for place, row in enumerate(rows):
        for kind, values in ((SAME, row.same), (DIFFERENT, row.different)):
            height = -place + (0.19 if kind == SAME else -0.19)
            jitter = np.random.default_rng(place).uniform(-0.13, 0.13, len(values))
            axes.scatter(
                values,
                height + jitter,
                s=7,
                color=theme.colour(kind),
                alpha=0.45,
                linewidths=0,
                label=("same case", "different cases")[kind] if place == 0 else None,
            )
            axes.plot([values.mean()] * 2, [height - 0.17, height + 0.17], color=theme.ink, lw=2)
        _write_columns(axes, -place, row.summary, theme.ink)
    _write_columns(axes, 0.75, ("ratio", "AUC", "rank-1"), theme.faint)
    _mark_published(axes, structure, theme)
    axes.set_yticks([-place for place in range(len(rows))], [row.name for row in rows])
    axes.tick_params(axis="y", colors=theme.ink)
    axes.set_ylim(-len(rows) + 0.45, 0.6)
    axes.set_xlim(0, farthest * 1.05 or 1)
    axes.set_xlabel(UNITS, fontsize=8.5)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False,
        fontsize=8.5, labelcolor=theme.ink, markerscale=2.2,
    )  # fmt: skip
    return figure


def probe_figure(panels: Sequence[ProbePanel], structure: str, theme: Theme) -> Figure:
    """Mean distance with its interval; a colour for each objective, a dash for each pose."""
    columns = 2 if len(panels) == 4 else 3
    figure = new_figure(3.6 * columns, 2.9 * -(-len(panels) // columns) + 0.6, theme)
    figure.suptitle(structure, x=0.01, ha="left", fontsize=11, color=theme.ink, fontweight="bold")
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, place + 1)
        style_axes(axes, theme, title=panel.title)
        if panel.shaded:
            axes.axvspan(*panel.shaded, color=theme.grid, alpha=0.6, linewidth=0)
        axes.axhline(1, color=theme.faint, linewidth=1, linestyle=(0, (1, 2)))
        for (objective, pose), line in panel.lines.items():
            _draw_line(axes, line, objective, pose, theme)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(panel.label, fontsize=8.5)
        if place % columns == 0:
            axes.set_ylabel(UNITS, fontsize=8.5)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=8.5,
        labelcolor=theme.ink, handlelength=2.4,
    )  # fmt: skip
    return figure


def _lines(table: pd.DataFrame, at: str) -> dict[tuple[str, str], pd.DataFrame]:
    """Lines of each objective and pose, means over the seeds."""
    lines = {}
    for (objective, pose), rows in table.groupby(["objective", "pose"], sort=False):
        steps = rows.groupby("size" if at == "size" else "grade", sort=True)
        line = steps[["distance", "low", "high"]].mean()
        line["at"] = steps[at].mean()
        lines[str(objective), str(pose)] = line.reset_index(drop=True)
    return lines


def _draw_line(axes: Axes, line: pd.DataFrame, objective: str, pose: str, theme: Theme) -> None:
    colour = theme.colour(OBJECTIVES.index(objective))
    at = line["at"].to_numpy(np.float64)
    low, middle, high = (line[name].to_numpy(np.float64) for name in ("low", "distance", "high"))
    axes.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        at,
        middle,
        color=colour,
        linestyle=LINE_STYLES[pose],
        marker="o",
        markersize=2.8,
        linewidth=1.5,
        label=f"{objective}, {pose}",
    )


def _write_columns(axes: Axes, height: float, words: Sequence[str], colour: str) -> None:
    """Words in columns to the right of the axes."""
    for place, word in enumerate(words):
        # In points, for a share of the axes would change with them while the figure is laid out.
        axes.annotate(
            word, (1, height), xycoords=axes.get_yaxis_transform(), xytext=(26 + 46 * place, 0),
            textcoords="offset points", ha="center", va="center", fontsize=8.5, color=colour,
            annotation_clip=False,
        )  # fmt: skip


def _mark_published(axes: Axes, structure: str, theme: Theme) -> None:
    figures = published_of(structure)
    if figures is None:
        return
    same, different = figures
    axes.axvline(
        same / different, color=theme.faint, linewidth=1.2, linestyle=(0, (3, 3)),
        label="mean of the same case, as published",
    )  # fmt: skip

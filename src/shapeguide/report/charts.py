"""Charts of figures: curves over iterations, paired scores of cases, distances of affine pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapeguide.report.theme import Theme, new_figure, style_axes, style_legend

SMOOTHED_SHARE = 0.06
"""Width of the moving average, as a share of the points of a line."""
PANEL_INCHES = (3.35, 2.75)
LONGEST_ROW = 3
DISTANCES_INCHES = 6.4
"""Width of a panel of distances beside others."""


@dataclass(frozen=True)
class Line:
    """One curve: a figure by iteration."""

    name: str
    iterations: Sequence[float]
    values: Sequence[float]
    colour: int
    """Place of the method in the order of colours."""
    marked: bool = False
    """Whether each value is a point of its own rather than a noisy sample."""


@dataclass(frozen=True)
class CurvePanel:
    """Curves of one kind."""

    title: str
    lines: tuple[Line, ...]
    starts_at: float | None = None
    """Iteration at which something begins, marked by a vertical line."""
    starts: str = ""
    """What begins there."""


@dataclass(frozen=True)
class PairedPanel:
    """One metric of the same cases under several methods."""

    title: str
    methods: tuple[str, ...]
    values: NDArray[np.float64]
    """Shape (methods, cases); infinite where a structure was missed, nan without a score."""


@dataclass(frozen=True)
class DistancePanel:
    """Shape distances of affine pairs of one structure."""

    title: str
    same: NDArray[np.float64]
    """Pairs of one case under two warps, shape (N,)."""
    different: NDArray[np.float64]
    """Pairs of two cases, shape (N,)."""
    summary: str
    """Figures to show above the panel, such as ratio and AUC."""


def curve_figure(panels: Sequence[CurvePanel], theme: Theme) -> Figure:
    """Curves in panels side by side, three to a row; noisy ones with their moving average.

    Raises:
        ValueError: If there is no panel.
    """
    figure, grid = _panel_grid(len(panels), theme)
    for axes, panel in zip(grid, panels, strict=False):
        style_axes(axes, theme, title=panel.title)
        for line in panel.lines:
            _draw_line(axes, line, theme)
        first = min((line.iterations[0] for line in panel.lines if line.iterations), default=0)
        if panel.starts_at is not None and panel.starts_at > first:
            axes.axvline(panel.starts_at, color=theme.faint, linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                panel.starts,
                (panel.starts_at, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-4, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                rotation=90,
                fontsize=7.5,
                color=theme.faint,
            )
        axes.set_xlabel("iteration", fontsize=8.5)
        axes.margins(x=0.02)
        style_legend(axes, theme)
    return figure


def paired_figure(panels: Sequence[PairedPanel], theme: Theme) -> Figure:
    """One line per case from method to method, and the mean over found cases as a bar.

    Missed structures have no finite distance: they stand above the panel's line, as crosses.

    Raises:
        ValueError: If there is no panel.
    """
    figure, grid = _panel_grid(len(panels), theme)
    for axes, panel in zip(grid, panels, strict=False):
        style_axes(axes, theme, title=panel.title)
        axes.grid(visible=False, axis="x")
        _draw_pairs(axes, panel, theme)
        places = range(len(panel.methods))
        axes.set_xticks(list(places), panel.methods, color=theme.ink, fontsize=9)
        axes.set_xlim(-0.75, len(panel.methods) - 0.25)
    return figure


def distance_figure(panels: Sequence[DistancePanel], theme: Theme) -> Figure:
    """Every pair as a point, same case against different cases, with the two means.

    Raises:
        ValueError: If there is no panel.
    """
    # A lone panel takes the whole row, so that its words are as large as those of other figures.
    row_inches = LONGEST_ROW * PANEL_INCHES[0]
    width = max(DISTANCES_INCHES, row_inches / max(1, len(panels)))
    figure, grid = _panel_grid(len(panels), theme, width=width)
    for axes, panel in zip(grid, panels, strict=False):
        style_axes(axes, theme, title=f"{panel.title}: {panel.summary}")
        axes.grid(visible=False, axis="y")
        names: list[str] = []
        for row, (name, values) in enumerate(
            (("different cases", panel.different), ("same case", panel.same))
        ):
            _draw_strip(axes, row, values, theme, colour=theme.colour(1 - row))
            axes.annotate(
                f"mean {values.mean():.2f}",
                (values.mean(), row + 0.36),
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=theme.ink,
            )
            names.append(name)
        axes.set_yticks(range(len(names)), names, color=theme.ink, fontsize=9.5)
        axes.set_ylim(-0.5, 1.75)
        axes.set_xlim(left=0)
        axes.set_xlabel("shape distance (1 = as far as two people are apart)", fontsize=8.5)
    return figure


def _panel_grid(
    count: int, theme: Theme, *, width: float = PANEL_INCHES[0]
) -> tuple[Figure, list[Axes]]:
    if count < 1:
        raise ValueError("a figure needs at least one panel")
    rows = -(-count // LONGEST_ROW)
    columns = -(-count // rows)
    figure = new_figure(width * columns, PANEL_INCHES[1] * rows, theme)
    grid = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    return figure, grid


def _draw_line(axes: Axes, line: Line, theme: Theme) -> None:
    colour = theme.colour(line.colour)
    if line.marked:
        axes.plot(
            line.iterations, line.values, color=colour, label=line.name, marker="o", markersize=3.5
        )
        return
    axes.plot(line.iterations, line.values, color=colour, linewidth=0.8, alpha=0.3)
    smooth = moving_average(np.asarray(line.values, dtype=np.float64))
    axes.plot(line.iterations, smooth, color=colour, linewidth=1.9, label=line.name)


def moving_average(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a window around each value, (N,); the window shrinks at both ends."""
    half = round(len(values) * SMOOTHED_SHARE / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, len(values) - 1 - places))
    averaged: NDArray[np.float64] = (sums[places + reach + 1] - sums[places - reach]) / (
        2 * reach + 1
    )
    return averaged


def _draw_pairs(axes: Axes, panel: PairedPanel, theme: Theme) -> None:
    places = np.arange(len(panel.methods))
    finite = panel.values[np.isfinite(panel.values)]
    top = float(finite.max()) if finite.size else 1.0
    above = top + 0.08 * max(top - float(finite.min()) if finite.size else 1.0, 1e-3)
    shown = np.where(np.isposinf(panel.values), above, panel.values)
    axes.plot(places, shown, color=theme.faint, linewidth=0.9, alpha=0.55)
    for place in places:
        colour = theme.colour(int(place))
        found = panel.values[place][np.isfinite(panel.values[place])]
        missed = int(np.isposinf(panel.values[place]).sum())
        axes.plot(np.full(found.size, place), found, "o", color=colour, markersize=4, alpha=0.75)
        if missed:
            axes.plot(np.full(missed, place), np.full(missed, above), "x", color=colour)
            axes.text(
                place + 0.08, above, f"{missed} missed", fontsize=8, color=colour, va="center"
            )
        if found.size:
            axes.plot([place - 0.22, place + 0.22], [found.mean()] * 2, color=colour, linewidth=3)
            axes.annotate(
                f"{found.mean():.3f}" if found.mean() < 1 else f"{found.mean():.2f}",
                (place + (0.26 if place else -0.26), found.mean()),
                ha="left" if place else "right",
                va="center",
                fontsize=9,
                color=colour,
                fontweight="bold",
                annotation_clip=False,
            )


def _draw_strip(
    axes: Axes, row: int, values: NDArray[np.float64], theme: Theme, *, colour: str
) -> None:
    """Points in a band whose height at each place follows how many there are."""
    spread = np.random.default_rng(row).uniform(-1, 1, values.size)
    width = max(float(np.ptp(values)), 1e-6) / 12
    near = (np.abs(values[:, None] - values[None]) < width).sum(1)
    axes.scatter(
        values, row + spread * 0.3 * near / near.max(), s=13, color=colour, alpha=0.6, linewidths=0
    )
    axes.plot([values.mean()] * 2, [row - 0.34, row + 0.34], color=theme.ink, linewidth=2)

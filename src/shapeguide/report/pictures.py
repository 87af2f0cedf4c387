"""Pictures of cases: slices with contours, and shaded surfaces coloured by their distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from shapeguide.geometry.distance import signed_distance_mm
from shapeguide.report.rendering import (
    ERROR_COLOURS,
    SMOOTHING_VOXELS,
    render,
    view_of,
)
from shapeguide.report.theme import DARK, new_figure

HIGHEST_MM = 4.0
"""Distance of the last colour on surfaces."""
Planes: TypeAlias = Sequence[tuple[str, int]]
THREE_PLANES: Planes = (("sagittal", 0), ("coronal", 1), ("axial", 2))
"""Name and the axis across the plane, for arrays along R, A, S."""
PLANES: Planes = (THREE_PLANES[0], THREE_PLANES[2])
HALO = "#000000"
MARGIN_PIXELS = 8


@dataclass(frozen=True, eq=False)
class CaseView:
    """One case with its reference and the predictions of each method, on one grid along R, A, S."""

    title: str
    image: NDArray[np.floating]
    """Shape (I, J, K)."""
    spacing_mm: tuple[float, float, float]
    reference: NDArray[np.bool_]
    """Shape (I, J, K)."""
    predictions: Mapping[str, NDArray[np.bool_]]
    """Mask of each method by its name, in the order of colours."""
    notes: Mapping[str, str]
    """What to write under the surface of each method, such as its scores."""


def slice_figure(cases: Sequence[CaseView], *, planes: Planes = PLANES) -> Figure:
    """A row for each case: in each plane, every method's contour over that of the reference.

    The slice in each plane is the one with the largest area of the reference.

    Raises:
        ValueError: If there is no case.
    """
    columns = len(planes) * len(_first(cases).predictions)
    figure = new_figure(2.35 * columns, 2.45 * len(cases) + 0.6, DARK)
    _draw_slices(figure, cases, planes=planes, titles=True)
    return figure


def surface_figure(cases: Sequence[CaseView]) -> Figure:
    """A row for each case: the surface of the reference, then of each method, seen alike.

    Colours tell the distance to the surface of the reference in mm; the thin line is its outline.

    Raises:
        ValueError: If there is no case.
    """
    width = 3.1 * (1 + len(_first(cases).predictions))
    rows = [_surfaces_of(case) for case in cases]
    height = sum(_height_of(row, width) + 0.3 for row in rows) + 0.9
    figure = new_figure(width, height, DARK)
    _draw_surfaces(figure, rows, titles=True)
    return figure


def composite_figure(case: CaseView) -> Figure:
    """One case on one picture: its slices above, its surfaces below.

    For a first look, where one picture has to do.
    """
    surfaces = _surfaces_of(case)
    columns = len(PLANES) * len(case.predictions)
    width = 2.35 * columns
    heights = (2.5 + 0.35, _height_of(surfaces, width) + 0.9)
    figure = new_figure(width, sum(heights), DARK)
    parts = figure.add_gridspec(2, 1, height_ratios=heights)
    _draw_slices(_part(figure, parts[0]), [case], planes=PLANES, titles=False)
    _draw_surfaces(_part(figure, parts[1]), [surfaces], titles=False)
    return figure


def fullest_slice(mask: NDArray[np.bool_], axis: int) -> int:
    """Index along an axis of the slice of a mask (I, J, K) with the most voxels.

    Of equals it is the first; an empty mask gives the middle slice.
    """
    areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(areas.argmax()) if areas.any() else mask.shape[axis] // 2


def _part(figure: Figure, place: SubplotSpec) -> SubFigure:
    part = figure.add_subfigure(place)
    part.set_facecolor(DARK.paper)
    return part


def _first(cases: Sequence[CaseView]) -> CaseView:
    if not cases:
        raise ValueError("a picture needs at least one case")
    return cases[0]


def _draw_slices(
    figure: Figure | SubFigure, cases: Sequence[CaseView], *, planes: Planes, titles: bool
) -> None:
    methods = list(cases[0].predictions)
    columns = len(planes) * len(methods)
    for row, case in enumerate(cases):
        for column in range(columns):
            (name, axis), place = planes[column // len(methods)], column % len(methods)
            axes = figure.add_subplot(len(cases), columns, row * columns + column + 1)
            _draw_slice(axes, case, axis, place)
            if row == 0:
                axes.set_title(f"{name}, {methods[place]}", color=DARK.ink, fontsize=10)
            if titles and column == 0:
                axes.set_ylabel(case.title, color=DARK.ink, fontsize=10)
    figure.legend(
        handles=_contour_legend(methods),
        loc="outside lower center",
        ncols=1 + len(methods),
        frameon=False,
        labelcolor=DARK.ink,
        fontsize=9.5,
    )


def _draw_slice(axes: Axes, case: CaseView, axis: int, place: int) -> None:
    index = fullest_slice(case.reference, axis)
    across, up = (other for other in range(3) if other != axis)
    lengths = [case.image.shape[a] * case.spacing_mm[a] for a in (across, up)]
    extent = (0.0, lengths[0], 0.0, lengths[1])
    low, high = np.percentile(case.image, (1, 99.5))
    axes.imshow(
        case.image.take(index, axis).T,
        cmap="gray",
        origin="lower",
        extent=extent,
        vmin=float(low),
        vmax=float(high),
        interpolation="bilinear",
    )
    prediction = list(case.predictions.values())[place]
    for mask, colour, width, style in (
        (prediction, DARK.colour(place), 1.8, "solid"),
        (case.reference, DARK.reference, 1.1, (0, (3, 1.6))),
    ):
        plane = mask.take(index, axis).T
        if plane.any() and not plane.all():
            contour = axes.contour(
                plane.astype(float),
                levels=[0.5],
                colors=colour,
                linewidths=width,
                linestyles=[style],
                extent=extent,
            )
            contour.set_path_effects([_halo(width)])
    _bare(axes)


def _halo(width: float) -> withStroke:
    return withStroke(linewidth=width + 1.2, foreground=HALO, alpha=0.5)


def _contour_legend(methods: Sequence[str]) -> list[Line2D]:
    handles = [Line2D([], [], color=DARK.reference, linestyle=(0, (3, 1.6)), label="reference")]
    for place, method in enumerate(methods):
        handles.append(Line2D([], [], color=DARK.colour(place), linewidth=2, label=method))
    return handles


@dataclass(frozen=True, eq=False)
class _Surfaces:
    """Pictures of the surfaces of one case, cut to what they show."""

    case: CaseView
    pictures: Mapping[str, NDArray[np.float64]]
    """Shape (rows, columns, 4) by the name of the method, the reference first."""


def _surfaces_of(case: CaseView) -> _Surfaces:
    masks = {"reference": case.reference, **case.predictions}
    view = view_of(list(masks.values()), spacing_mm=case.spacing_mm)
    distance_mm = -signed_distance_mm(case.reference, spacing_mm=case.spacing_mm)
    distance_mm = gaussian_filter(np.minimum(distance_mm, 10 * HIGHEST_MM), SMOOTHING_VOXELS)
    pictures = {
        name: render(
            mask,
            view,
            spacing_mm=case.spacing_mm,
            distance_mm=None if name == "reference" else distance_mm,
            highest_mm=HIGHEST_MM,
        )
        for name, mask in masks.items()
    }
    filled = np.argwhere(np.max([picture[..., 3] for picture in pictures.values()], axis=0) > 0)
    if len(filled) == 0:
        return _Surfaces(case, pictures)
    low = np.maximum(filled.min(0) - MARGIN_PIXELS, 0)
    high = filled.max(0) + MARGIN_PIXELS
    cut = (slice(low[0], high[0]), slice(low[1], high[1]))
    return _Surfaces(case, {name: picture[cut] for name, picture in pictures.items()})


def _height_of(surfaces: _Surfaces, width: float) -> float:
    """Height in inches that a row of pictures takes in a figure of that width."""
    rows, columns = surfaces.pictures["reference"].shape[:2]
    return float(width / len(surfaces.pictures) * rows / columns)


def _draw_surfaces(figure: Figure | SubFigure, rows: Sequence[_Surfaces], *, titles: bool) -> None:
    columns = len(rows[0].pictures)
    heights = [_height_of(row, 1.0) for row in rows]
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    drawn = []
    for row, surfaces in enumerate(rows):
        for column, name in enumerate(surfaces.pictures):
            axes = figure.add_subplot(grid[row, column])
            drawn.append(axes)
            _draw_surface(axes, surfaces, name)
            if row == 0:
                axes.set_title(name, color=DARK.ink, fontsize=11, fontweight="bold")
            if titles and column == 0:
                axes.set_ylabel(surfaces.case.title, color=DARK.ink, fontsize=10)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, HIGHEST_MM), ERROR_COLOURS),
        ax=drawn,
        location="bottom",
        shrink=0.45,
        aspect=45,
        pad=0.03,
        extend="max",
    )
    bar.set_label("distance to the surface of the reference (mm)", color=DARK.faint, fontsize=8.5)
    bar.ax.tick_params(colors=DARK.faint, labelsize=8)
    bar.outline.set_visible(False)


def _draw_surface(axes: Axes, surfaces: _Surfaces, name: str) -> None:
    picture = surfaces.pictures[name]
    axes.imshow(picture, interpolation="bilinear")
    outline = surfaces.pictures["reference"][..., 3]
    if name != "reference" and outline.any():
        axes.contour(outline, levels=[0.5], colors=DARK.ink, linewidths=0.6, alpha=0.55)
    if not picture[..., 3].any():
        axes.text(
            0.5, 0.5, "nothing found", transform=axes.transAxes, ha="center", color=DARK.faint
        )
    axes.set_xlabel(surfaces.case.notes.get(name, ""), color=DARK.faint, fontsize=8.5)
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(DARK.paper)
    for spine in axes.spines.values():
        spine.set_visible(False)

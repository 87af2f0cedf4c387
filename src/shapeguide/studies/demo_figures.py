"""The figures of the demo: what is drawn, from which files, and how the shown cases are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from shapeguide.data.dataset import Case, Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.metrics.metric import MAIN_METRICS, METRICS
from shapeguide.models.shape_model import ShapeModel
from shapeguide.report.charts import (
    CurvePanel,
    DistancePanel,
    Line,
    PairedPanel,
    curve_figure,
    distance_figure,
    paired_figure,
)
from shapeguide.report.pictures import CaseView, composite_figure, slice_figure, surface_figure
from shapeguide.report.theme import as_jpeg, as_png, write_picture, write_themed
from shapeguide.studies.case_pictures import case_view, choose_cases, note_of
from shapeguide.studies.demo_files import METHODS, DemoFiles
from shapeguide.training.engine.log import LOG_FILE, read_log
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import mask_bank
from shapeguide.training.shape.separation import PairDistances, pair_distances

LOSS_TERMS = {
    "dice": "Dice loss",
    "cross_entropy": "cross-entropy (weighted)",
    "guide": "shape loss (weighted)",
    "shape_distance": "shape distance to the reference",
    "score": "Dice on validation cases",
}
MEMORY_LIMIT_BYTES = 2**30
SHAPE_COLOUR = 2
COMPOSITE_DOTS_PER_INCH = 120


def held_out_distances(
    model: ShapeModel, cases: Dataset, settings: TrainSettings
) -> list[PairDistances]:
    """Calibrated distances of affine pairs of cases that the shape network never saw."""
    prepared = PreparedCases(
        tuple(cases), model.space, cache_dir=None, memory_limit_bytes=MEMORY_LIMIT_BYTES
    )
    bank = mask_bank(prepared, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    raw = pair_distances(
        model.network.cpu(), bank, pairs=settings.shape.quality_pairs, generator=generator
    )
    return [
        replace(found, same=found.same / unit, different=found.different / unit)
        for found, unit in zip(raw, model.network.calibration, strict=True)
    ]


def draw_figures(
    files: DemoFiles,
    test: Dataset,
    tables: Mapping[str, pd.DataFrame],
    distances: list[PairDistances],
    settings: TrainSettings,
) -> None:
    """Write all figures of the demo; charts for light and for dark pages."""
    panels = curve_panels(files, settings)
    write_themed(files.figures, "training.png", lambda theme: curve_figure(panels, theme))
    pairs = paired_panels(tables)
    write_themed(files.figures, "scores.png", lambda theme: paired_figure(pairs, theme))
    strips = [distance_panel(found) for found in distances if len(found.same)]
    if strips:
        write_themed(
            files.figures, "shape_distances.png", lambda theme: distance_figure(strips, theme)
        )
    chosen = choose_cases(tables)
    by_id = {case.id: case for case in test}
    views = [
        _view_of(by_id[case_id], f"{name}: {case_id}", files, tables)
        for name, case_id in chosen.items()
    ]
    write_picture(files.figures / "slices.jpg", as_jpeg(slice_figure(views)))
    write_picture(files.figures / "surfaces.jpg", as_jpeg(surface_figure(views)))
    middle = views[min(1, len(views) - 1)]
    write_picture(
        files.figures / "composite.png",
        as_png(composite_figure(middle), dots_per_inch=COMPOSITE_DOTS_PER_INCH),
    )


def curve_panels(files: DemoFiles, settings: TrainSettings) -> list[CurvePanel]:
    """Loss terms and validation of both segmenters, and the loss of the shape network."""
    logs = {method: read_log(files.run(method) / LOG_FILE) for method in METHODS}
    panels = []
    for term, title in LOSS_TERMS.items():
        lines = tuple(
            line
            for place, (method, rows) in enumerate(logs.items())
            if (line := _line(method, rows, term, place)).values
        )
        if lines:
            start = settings.segmentation.suited().dice_iterations or None
            panels.append(CurvePanel(title, lines, start, "guidance starts"))
    shape = _line("shape network", read_log(files.run("shape") / LOG_FILE), "loss", SHAPE_COLOUR)
    return [*panels, CurvePanel("loss of the shape network", (shape,))]


def paired_panels(tables: Mapping[str, pd.DataFrame]) -> list[PairedPanel]:
    """Scores of every test case under both methods."""
    by_case = {method: tables[method].set_index(["case", "structure"]) for method in METHODS}
    order = by_case[METHODS[0]].index
    panels = []
    for metric in MAIN_METRICS:
        values: NDArray[np.float64] = np.stack(
            [by_case[method].loc[order, metric].to_numpy(np.float64) for method in METHODS]
        )
        panels.append(PairedPanel(METRICS[metric].heading, METHODS, values))
    return panels


def distance_panel(found: PairDistances) -> DistancePanel:
    """The distances of one structure, ready to draw."""
    return DistancePanel(
        title=found.structure,
        same=found.same.numpy().astype(np.float64),
        different=found.different.numpy().astype(np.float64),
        summary=f"ratio {found.ratio:.2f}, AUC {found.auc:.3f}",
    )


def _view_of(
    case: Case, title: str, files: DemoFiles, tables: Mapping[str, pd.DataFrame]
) -> CaseView:
    """A test case with its reference and the predictions of both methods."""
    return case_view(
        case,
        title,
        case.structures[0],
        {method: files.predictions(method) / f"{case.id}.nii.gz" for method in METHODS},
        {method: note_of(tables[method], case.id) for method in METHODS},
    )


def _line(name: str, rows: list[dict[str, float]], term: str, colour: int) -> Line:
    known = [row for row in rows if term in row]
    return Line(
        name=name,
        iterations=[row["iteration"] for row in known],
        values=[row[term] for row in known],
        colour=colour,
        marked=term == "score",
    )

"""Figure 3: contours and surfaces of the best, the median and the worst case of each structure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import pandas as pd

from shapeguide.report.pictures import THREE_PLANES, slice_figure, surface_figure
from shapeguide.report.theme import as_jpeg, write_picture
from shapeguide.studies.case_pictures import case_view, choose_cases, close_up, note_of
from shapeguide.studies.scores import AS_PREDICTED
from shapeguide.studies.systems.design import Condition, Variant
from shapeguide.studies.systems.scoring import prediction_file
from shapeguide.studies.systems.training import SystemsStudy

MOST_SHOWN = 3
"""Systems beside each other on a picture; more would be too small."""
AROUND_MM = 12.0


def write_case_pictures(
    study: SystemsStudy, finished: Sequence[Condition], scores: pd.DataFrame
) -> None:
    """Write `cases_STRUCTURE.jpg` and `surfaces_STRUCTURE.jpg` of each structure.

    Shown are the first systems of the first regime and seed, on images as they are, their
    predictions as they come. Which cases those are, all shown systems decide alike.

    Args:
        study: Whose predictions are kept.
        finished: Its finished conditions.
        scores: Their rows, as in `table2.csv`.
    """
    first = finished[0]
    shown = [one for one in finished if (one.regime, one.seed) == (first.regime, first.seed)][
        :MOST_SHOWN
    ]
    weights = study.design.weights[-1]
    clean = scores[
        (scores["regime"] == first.regime)
        & (scores["seed"] == first.seed)
        & (scores["postprocess"] == AS_PREDICTED)
        & (scores["weights"] == weights)
    ]
    by_id = {case.id: case for case in study.test}
    for structure in study.train.structures:
        own = clean[clean["structure"] == structure.name]
        tables = {one.system.name: own[own["system"] == one.system.name] for one in shown}
        views = []
        for name, case_id in choose_cases(tables).items():
            paths = {
                one.system.name: prediction_file(
                    study, one, Variant(), weights, AS_PREDICTED, case_id
                )
                for one in shown
            }
            if not all(path.is_file() for path in paths.values()):
                continue  # scored by an earlier start, which kept none
            notes = {system: note_of(table, case_id) for system, table in tables.items()}
            view = case_view(by_id[case_id], f"{name}: {case_id}", structure, paths, notes)
            views.append(close_up(view, around_mm=AROUND_MM))
        if not views:
            continue
        named = quote(structure.name)
        slices = slice_figure(views, planes=THREE_PLANES)
        write_picture(study.files.figures / f"cases_{named}.jpg", as_jpeg(slices))
        surfaces = surface_figure(views)
        write_picture(study.files.figures / f"surfaces_{named}.jpg", as_jpeg(surfaces))

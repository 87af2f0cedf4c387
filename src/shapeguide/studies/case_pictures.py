"""Pictures of the best, the median and the worst case of some methods, as studies show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from shapeguide.data.case import Case
from shapeguide.data.nifti import read_label_map
from shapeguide.geometry.boxes import foreground_box, grown_box
from shapeguide.geometry.resample import to_ras
from shapeguide.geometry.volume import Structure
from shapeguide.report.pictures import CaseView
from shapeguide.report.words import records

CHOSEN = ("best", "median", "worst")


def choose_cases(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Best, median and worst case by the mean Hausdorff distance of all methods.

    All methods count alike, so the choice favours none. A missed structure is infinitely far.

    Args:
        tables: Scores of each method.

    Returns:
        Case id by `best`, `median` and `worst`; fewer where there are fewer cases.
    """
    joined = pd.concat(list(tables.values()))
    means = joined.groupby("case")["hausdorff_mm"].mean().sort_values(kind="stable")
    ids = [str(case) for case in means.index]
    places = {"best": 0, "median": len(ids) // 2, "worst": len(ids) - 1}
    chosen: dict[str, str] = {}
    for name in CHOSEN:
        if ids[places[name]] not in chosen.values():
            chosen[name] = ids[places[name]]
    return chosen


def case_view(
    case: Case,
    title: str,
    structure: Structure,
    predictions: Mapping[str, Path],
    notes: Mapping[str, str],
) -> CaseView:
    """A test case with its reference and the predictions of all methods, brought to R, A, S.

    Args:
        case: The case.
        title: What stands beside it.
        structure: What is shown of it.
        predictions: Label map of each method.
        notes: What to write under the surface of each method.
    """
    image = to_ras(case.read_volume())
    return CaseView(
        title=title,
        image=image.data,
        spacing_mm=image.grid.spacing_mm,
        reference=to_ras(case.read_label_map()).mask(structure),
        predictions={
            method: to_ras(read_label_map(path, structures=(structure,))).data > 0
            for method, path in predictions.items()
        },
        notes=notes,
    )


def close_up(view: CaseView, *, around_mm: float) -> CaseView:
    """What lies around the structure alone: of whole heads one would see little of it.

    Args:
        view: A case.
        around_mm: Room around reference and predictions, as far as the scan goes.
    """
    box = foreground_box(np.logical_or.reduce([view.reference, *view.predictions.values()]))
    if box is None:
        return view
    margins = [round(around_mm / step) for step in view.spacing_mm]
    near = grown_box(box, margins, view.image.shape)
    return replace(
        view,
        image=view.image[near],
        reference=view.reference[near],
        predictions={name: mask[near] for name, mask in view.predictions.items()},
    )


def note_of(scores: pd.DataFrame, case_id: str) -> str:
    """Scores of a case in words.

    Args:
        scores: One row for each case.
        case_id: Which.
    """
    (row,) = records(scores[scores["case"] == case_id])
    if row["missed"]:
        return "missed"
    return f"Dice {row['dice']:.3f}, Hausdorff {row['hausdorff_mm']:.1f} mm"

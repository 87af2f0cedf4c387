"""Scores of one label map against its reference: one row per case and structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeguide.errors import ConfigError, GeometryError
from shapeguide.geometry.boxes import foreground_box
from shapeguide.geometry.volume import LabelMap, Structure, find_structure
from shapeguide.metrics.metric import METRICS
from shapeguide.metrics.overlap import dice
from shapeguide.metrics.surface import assd_mm, hausdorff_mm, surface_dice, surface_distances

COLUMNS = (
    "case",
    "structure",
    *METRICS,
    "missed",
    "prediction_mm3",
    "reference_mm3",
    "error",
)
"""Columns of a table of scores; `error` is empty for a case that was scored."""

SAME_GRID_VOXELS = 0.05
"""Grids of equal shape whose corners agree this well, in voxels, differ only by rounding."""

Row = dict[str, str | float | bool]


@dataclass(frozen=True)
class Score:
    """How well one structure of one case was found.

    When neither label map holds the structure, every metric is nan: there is nothing to score.
    """

    structure: str
    dice: float
    hausdorff_mm: float
    hd95_mm: float
    assd_mm: float
    surface_dice_1mm: float
    missed: bool
    """Whether exactly one of the two label maps holds the structure: Dice 0, distances infinite."""
    prediction_mm3: float
    reference_mm3: float

    def __str__(self) -> str:
        if self.missed:
            volumes = (
                f"prediction {self.prediction_mm3:.0f} mm3, reference {self.reference_mm3:.0f} mm3"
            )
            return f"{self.structure}: missed ({volumes})"
        if np.isnan(self.dice):
            return f"{self.structure}: in neither label map"
        return (
            f"{self.structure}: Dice {self.dice:.3f}, Hausdorff {self.hausdorff_mm:.2f} mm, "
            f"HD95 {self.hd95_mm:.2f} mm, ASSD {self.assd_mm:.2f} mm, "
            f"surface Dice {self.surface_dice_1mm:.3f} at 1 mm"
        )


@dataclass(frozen=True)
class Scores:
    """The scores of one case, in the order of its structures."""

    by_structure: tuple[Score, ...]

    def __iter__(self) -> Iterator[Score]:
        return iter(self.by_structure)

    def __len__(self) -> int:
        return len(self.by_structure)

    def __getitem__(self, structure: str) -> Score:
        for found in self.by_structure:
            if found.structure == structure:
                return found
        known = ", ".join(found.structure for found in self.by_structure)
        raise ConfigError(f"no score for structure {structure!r}; scored structures: {known}")

    def __str__(self) -> str:
        return "; ".join(str(found) for found in self.by_structure)


def score(prediction: LabelMap, reference: LabelMap) -> Scores:
    """Score every structure of a label map against its reference.

    The structures are those of the reference, or of the prediction where the reference names none.
    Each side is read with its own label ids for a structure, where it states them.

    Args:
        prediction: Label map on the grid of the reference.
        reference: Label map.

    Returns:
        One score per structure, distances in mm of the grid.

    Raises:
        GeometryError: If the grids differ.
        ConfigError: If neither label map names a structure, or the prediction names others.
    """
    _check_grids(prediction, reference)
    structures = reference.structures or prediction.structures
    if not structures:
        raise ConfigError(
            "neither the prediction nor the reference says what its label ids stand for; "
            "give one of them structures, for instance Structure('hippocampus', (1, 2))"
        )
    labelled = foreground_box((prediction.data != 0) | (reference.data != 0))
    box = labelled or (slice(0), slice(0), slice(0))
    cropped_prediction = np.ascontiguousarray(prediction.data[box])
    cropped_reference = np.ascontiguousarray(reference.data[box])
    scores: list[Score] = []
    for structure in structures:
        predicted_as = _same_structure(prediction, structure)
        scores.append(
            _score_structure(
                np.isin(cropped_prediction, predicted_as.label_ids),
                np.isin(cropped_reference, structure.label_ids),
                reference,
                structure.name,
            )
        )
    return Scores(tuple(scores))


def score_rows(case: str, scores: Scores) -> list[Row]:
    """The scores of one case as rows of a table."""
    return [{"case": case, **asdict(found), "error": ""} for found in scores]


def error_rows(case: str, structures: tuple[Structure, ...], reason: str) -> list[Row]:
    """Rows of a case that could not be scored: no values, and why."""
    empty = dict.fromkeys((*METRICS, "prediction_mm3", "reference_mm3"), float("nan"))
    return [
        {"case": case, "structure": structure.name, **empty, "missed": False, "error": reason}
        for structure in structures
    ]


def score_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Put rows from `score_rows` and `error_rows` into one table with the columns `COLUMNS`."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def _score_structure(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], on: LabelMap, name: str
) -> Score:
    distances = surface_distances(prediction, reference, spacing_mm=on.grid.spacing_mm)
    return Score(
        structure=name,
        dice=dice(prediction, reference),
        hausdorff_mm=hausdorff_mm(distances),
        hd95_mm=hausdorff_mm(distances, percentile=95),
        assd_mm=assd_mm(distances),
        surface_dice_1mm=surface_dice(distances, tolerance_mm=1.0),
        missed=distances.one_empty,
        prediction_mm3=int(np.count_nonzero(prediction)) * on.grid.voxel_volume_mm3,
        reference_mm3=int(np.count_nonzero(reference)) * on.grid.voxel_volume_mm3,
    )


def _same_structure(prediction: LabelMap, structure: Structure) -> Structure:
    if not prediction.structures:
        return structure
    return find_structure(prediction.structures, structure.name)


def _check_grids(prediction: LabelMap, reference: LabelMap) -> None:
    tolerance_mm = SAME_GRID_VOXELS * min(reference.grid.spacing_mm)
    if prediction.grid.matches(reference.grid, tolerance_mm=tolerance_mm):
        return
    raise GeometryError(
        "prediction and reference lie on different grids:\n"
        f"prediction {prediction.grid}\nreference {reference.grid}\n"
        "resample the prediction to the reference grid first"
    )

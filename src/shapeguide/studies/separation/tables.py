"""The tables of table 1: one row per cell as CSV, and as text beside the published figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from shapeguide.storage.whole import written_whole
from shapeguide.studies.separation.cell import Measured
from shapeguide.studies.separation.design import Cell
from shapeguide.studies.separation.folder import Table1Files

FIGURES = ("same", "different", "ratio", "auc", "rank1", "signature_std", "seconds")
COLUMNS = ("dataset", "structure", "objective", "pose", *FIGURES)
"""Columns of `table1.csv`; `seed` follows them where there are several."""
INTERVALS = tuple(f"{name}_{end}" for name in ("ratio", "auc", "rank1") for end in ("low", "high"))

PUBLISHED = {
    ("caudate", "left"): (0.120, 0.316),
    ("caudate", "right"): (0.083, 0.210),
    ("hippocampus", "left"): (0.251, 0.787),
    ("hippocampus", "right"): (0.088, 0.277),
}
"""Mean distance of the same and of different cases over 50 affine pairs, by structure and side.

Source: He, Bao, Chung, "3D Deep Affine-Invariant Shape Learning for Brain MR Image Segmentation",
DLMIA 2018, table 1 (LPBA40).
"""
SHOWN_FIGURES = (
    "same", "different", "ratio", "AUC", "rank-1", "spread", "seconds", "train", "held out",
)  # fmt: skip
SIDES = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right"}
PUBLISHED_NAME = "published"


def write_tables(dataset: str, measured: Mapping[Cell, Measured], files: Table1Files) -> None:
    """Write all tables of the results folder, each whole or not at all."""
    tables = {
        "table1": cell_table(dataset, measured),
        "table1_intervals": interval_table(dataset, measured),
        "warps": _joined(dataset, measured, files, "warps"),
        "errors": _joined(dataset, measured, files, "errors"),
    }
    published = published_table(list(dict.fromkeys(cell.structure for cell in measured)))
    if len(published):
        tables["published"] = published
    for name, table in tables.items():
        with written_whole(files.table(name)) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")


def cell_table(dataset: str, measured: Mapping[Cell, Measured]) -> pd.DataFrame:
    """One row per cell with the columns `COLUMNS`, and `seed` last if there are several."""
    rows = [
        {
            "dataset": dataset,
            "structure": cell.structure,
            "objective": cell.objective,
            "pose": cell.pose,
            **{name: getattr(found, name) for name in FIGURES},
            "seed": cell.seed,
        }
        for cell, found in measured.items()
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "seed"])
    return table if table["seed"].nunique() > 1 else table.drop(columns="seed")


def interval_table(dataset: str, measured: Mapping[Cell, Measured]) -> pd.DataFrame:
    """The 95 % bootstrap intervals of each cell, which resample people, and case counts."""
    rows = [
        {"dataset": dataset, **asdict(cell)}
        | {name: getattr(found, name) for name in INTERVALS}
        | {"train_cases": found.train_cases, "test_cases": found.test_cases}
        for cell, found in measured.items()
    ]
    return pd.DataFrame(rows)


def published_table(structures: Sequence[str]) -> pd.DataFrame:
    """What the paper reports of the structures that it names: structure, same, different, ratio."""
    rows = [
        {"structure": name, "same": same, "different": different, "ratio": different / same}
        for name in structures
        for same, different in [published_of(name) or (None, None)]
        if same is not None and different is not None
    ]
    return pd.DataFrame(rows, columns=["structure", "same", "different", "ratio"])


def published_of(structure: str) -> tuple[float, float] | None:
    """Published mean distance of the same and of different cases; none for other structures.

    The name must say which organ and which side, such as `left_caudate` or `Hippocampus-R`.
    """
    words = set(re.findall(r"[a-z]+", structure.lower()))
    sides = {SIDES[word] for word in words if word in SIDES}
    organs = {organ for organ, _ in PUBLISHED if organ in words}
    if len(sides) != 1 or len(organs) != 1:
        return None
    return PUBLISHED[organs.pop(), sides.pop()]


def _joined(
    dataset: str, measured: Mapping[Cell, Measured], files: Table1Files, name: str
) -> pd.DataFrame:
    """The table `warps` or `errors` of all cells below each other, with the cell in front."""
    parts = []
    for cell in measured:
        part = pd.read_csv(files.cell_table(cell, name))
        for place, column in enumerate(("structure", "objective", "pose", "seed")):
            part.insert(place, column, getattr(cell, column))
        part.insert(0, "dataset", dataset)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def text_rows(measured: Mapping[Cell, Measured]) -> list[tuple[str, ...]]:
    """The table as text for the terminal, the published figures first; the first row: headings."""
    several = len({cell.seed for cell in measured}) > 1
    head = ("structure", "objective", "pose", *(("seed",) if several else ()))
    rows = [(*head, *SHOWN_FIGURES)]
    above = ""
    for cell, found in measured.items():
        seed = (str(cell.seed),) if several else ()
        if cell.structure != above:
            rows += _published_row(cell.structure, columns=len(rows[0]))
            above = cell.structure
        figures = (
            f"{found.same:.3g}",
            f"{found.different:.3g}",
            f"{found.ratio:.2f} [{found.ratio_low:.2f}, {found.ratio_high:.2f}]",
            f"{found.auc:.3f} [{found.auc_low:.3f}, {found.auc_high:.3f}]",
            f"{found.rank1:.2f} [{found.rank1_low:.2f}, {found.rank1_high:.2f}]",
            f"{found.signature_std:.3g}",
            f"{found.seconds:.0f}",
            _count(found.train_cases, found.train_lacking),
            _count(found.test_cases, found.test_lacking),
        )
        rows.append((cell.structure, cell.objective, cell.pose, *seed, *figures))
    return rows


def _published_row(structure: str, *, columns: int) -> list[tuple[str, ...]]:
    figures = published_of(structure)
    if figures is None:
        return []
    same, different = figures
    shown = (f"{same:.3f}", f"{different:.3f}", f"{different / same:.2f}")
    head = (structure, PUBLISHED_NAME, "grid")
    filled = (*head, *("",) * (columns - len(head) - len(SHOWN_FIGURES)), *shown)
    return [(*filled, *("",) * (columns - len(filled)))]


def _count(cases: int, lacking: int) -> str:
    return f"{cases} ({lacking} lack it)" if lacking else str(cases)

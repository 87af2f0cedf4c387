"""The tables of a study of separation: a row per condition; and the published figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from shapeguide.storage.whole import read_table, write_table
from shapeguide.studies.separation.design import Condition
from shapeguide.studies.separation.measure import Measured, SeparationFiles

FIGURES = ("same", "different", "ratio", "auc", "rank1", "signature_std", "seconds")
COLUMNS = ("dataset", "structure", "objective", "pose", *FIGURES)
"""Columns of `table1.csv`; `seed` follows them where there are several."""
PROBED = ("variation", "error")
"""Columns of text in the tables of probes."""
DIGITS = 6
"""Significant ones of every number."""
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
SIDES = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right"}


def write_tables(
    dataset: str, measured: Mapping[Condition, Measured], files: SeparationFiles
) -> None:
    """Write all tables of the results folder, each whole or not at all."""
    tables = {
        "table1": condition_table(dataset, measured),
        "table1_intervals": interval_table(dataset, measured),
        "warps": _joined(dataset, measured, files, "warps"),
        "errors": _joined(dataset, measured, files, "errors"),
    }
    published = published_table(list(dict.fromkeys(condition.structure for condition in measured)))
    if len(published):
        tables["published"] = published
    for name, table in tables.items():
        write_table(files.table(name), table, digits=DIGITS)


def condition_table(dataset: str, measured: Mapping[Condition, Measured]) -> pd.DataFrame:
    """One row per condition with the columns `COLUMNS`, and `seed` last if there are several."""
    table = _table(dataset, measured)[[*COLUMNS, "seed"]]
    return table if table["seed"].nunique() > 1 else table.drop(columns="seed")


def interval_table(dataset: str, measured: Mapping[Condition, Measured]) -> pd.DataFrame:
    """The 95 % bootstrap intervals of each condition, which resample people, and case counts."""
    named = ["dataset", "structure", "objective", "pose", "seed"]
    return _table(dataset, measured)[[*named, *INTERVALS, "train_cases", "test_cases"]]


def _table(dataset: str, measured: Mapping[Condition, Measured]) -> pd.DataFrame:
    """All that is known of each condition."""
    rows = [
        {"dataset": dataset, **asdict(condition), **asdict(found)}
        for condition, found in measured.items()
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
    dataset: str, measured: Mapping[Condition, Measured], files: SeparationFiles, name: str
) -> pd.DataFrame:
    """The table `warps` or `errors` of all conditions below each other, each named in front."""
    parts = []
    for condition in measured:
        part = read_table(files.part(condition, name), ("distance",), text=PROBED)
        for place, column in enumerate(("structure", "objective", "pose", "seed")):
            part.insert(place, column, getattr(condition, column))
        part.insert(0, "dataset", dataset)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)

"""Test a trained condition: every test case, clean and degraded, with each post-processing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shapeguide.data.case import Case
from shapeguide.data.nifti import write_label_map
from shapeguide.disturbing.images import degrade
from shapeguide.errors import CheckpointError, DataError
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.inference.prediction import predict_shown
from shapeguide.inference.shown import Shown, channels_for, shown_to
from shapeguide.metrics.components import keep_largest_component
from shapeguide.metrics.scores import Scores, score
from shapeguide.models.restoration import Restorer
from shapeguide.models.segmenter import Segmenter, load_segmenter
from shapeguide.storage.whole import read_table, write_table
from shapeguide.studies.scores import AS_PREDICTED, COLUMNS, LARGEST, MEASURED, TEXT
from shapeguide.studies.study import stopwatch
from shapeguide.studies.systems.design import Condition, Variant
from shapeguide.studies.systems.training import (
    SystemsStudy,
    restoration,
    restorers,
)
from shapeguide.vocabulary import WeightsName

SCORED = (*MEASURED, "missed")
DIGITS = 6

Row = dict[str, object]


@dataclass(frozen=True)
class _Key:
    """One way that every test case is scored."""

    variant: Variant
    weights: WeightsName
    postprocess: str


def is_scored(study: SystemsStudy, condition: Condition) -> bool:
    """Whether all that the study asks of a condition stands in its scores."""
    return not _missing(study, condition, read_scores(study.files.scores(condition)))


def score_condition(study: SystemsStudy, condition: Condition) -> None:
    """Score what is missing of a condition, and write its scores whole.

    Args:
        study: With its test cases.
        condition: A trained one. What restores its predictions is there too; a post-processing is
            left out when the training of its restorer failed.

    Raises:
        ShapeguideError: If the segmenter cannot be loaded, or a test case cannot be used.
    """
    path = study.files.scores(condition)
    with stopwatch(study.files.condition(condition), "score"):
        earlier = read_scores(path)
        restoring = restorers(study, condition)
        absent = {name for name, k in restoring.items() if not study.is_trained(k)}
        missing = _missing(study, condition, earlier)
        keys = tuple(key for key in missing if key.postprocess not in absent)
        if not keys:
            return
        segmenters = {
            weights: load_segmenter(
                study.files.run(condition),
                weights=weights,
                device=study.settings.machine.device,
            )
            for weights in dict.fromkeys(key.weights for key in keys)
        }
        wanted = {key.postprocess for key in keys}
        restorations = {
            name: restoration(study, k, condition, segmenters)
            for name, k in restoring.items()
            if name in wanted
        }
        bench = _Bench(study, condition, segmenters, keys, restorations)
        rows = [row for case in study.test for row in bench.rows(case)]
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        table = pd.concat([earlier, table]) if len(earlier) else table
        write_table(path, table)


def read_scores(path: Path) -> pd.DataFrame:
    """The scores of a condition; without rows when there are none yet.

    Raises:
        CheckpointError: If the file is damaged.
    """
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        table = read_table(path, COLUMNS, text=TEXT)
    except DataError as error:
        raise CheckpointError(f"{error}; without it the cell is scored again") from error
    if list(table.columns) != list(COLUMNS):
        raise CheckpointError(f"{path} has other columns; delete it to score again")
    return table


def case_seed(seed: int, case: Case) -> tuple[int, ...]:
    """What the degradation of a test case depends on: all systems of a seed see the same image."""
    return seed, zlib.crc32(case.id.encode())


@dataclass(frozen=True)
class _Bench:
    """Everything that the scoring of one condition refers to."""

    study: SystemsStudy
    condition: Condition
    segmenters: dict[WeightsName, Segmenter]
    keys: tuple[_Key, ...]
    restorations: dict[str, Mapping[WeightsName, Restorer]]
    """By the name of the post-processing and the weights."""

    def rows(self, case: Case) -> Iterator[Row]:
        """Rows of one test case; the files are read once."""
        first = next(iter(self.segmenters.values()))
        channels, reference = channels_for(first, case), case.read_label_map()
        for variant in dict.fromkeys(key.variant for key in self.keys):
            shown = channels
            if variant.corruption is not None:
                seed = case_seed(self.condition.seed, case)
                shown = tuple(
                    degrade(one, variant.corruption, variant.severity, seed=seed)
                    for one in channels
                )
            parts = shown_to(first, shown)
            for weights, segmenter in self.segmenters.items():
                wanted = [k for k in self.keys if (k.variant, k.weights) == (variant, weights)]
                if wanted:
                    found = self._predicted(segmenter, parts, shown, wanted)
                    yield from self._scored(case, reference, found)

    def _predicted(
        self,
        segmenter: Segmenter,
        parts: tuple[Shown, ...],
        channels: tuple[Volume, ...],
        keys: list[_Key],
    ) -> dict[_Key, LabelMap]:
        """Label maps on the grid of the volume: one pass of the network serves them all."""
        prediction = predict_shown(segmenter, parts, channels)
        plain = prediction.label_map()
        found = {AS_PREDICTED: plain, LARGEST: keep_largest_component(plain)}
        for key in keys:
            name = key.postprocess
            if name not in self.restorations:
                continue
            restored = prediction.restored_by(self.restorations[name][key.weights])
            # Mostly there is nothing to restore.
            found[name] = (
                restored.label_map(largest_component=True) if restored.restored else found[LARGEST]
            )
        return {key: found[key.postprocess] for key in keys}

    def _scored(
        self, case: Case, reference: LabelMap, label_maps: dict[_Key, LabelMap]
    ) -> Iterator[Row]:
        known: list[tuple[LabelMap, Scores]] = []
        for key, label_map in label_maps.items():
            # Mostly there is but one component, and nothing new to measure.
            same = (s for other, s in known if np.array_equal(other.data, label_map.data))
            scores = next(same, None)
            if scores is None:
                scores = score(label_map, reference)
                known.append((label_map, scores))
            if self.study.keep_predictions:
                file = prediction_file(
                    self.study, self.condition, key.variant, key.weights, key.postprocess, case.id
                )
                write_label_map(label_map, file)
            yield from self._rows(case, key, scores)

    def _rows(self, case: Case, key: _Key, scores: Scores) -> Iterator[Row]:
        for found in scores:
            if found.reference_mm3 == 0:
                continue  # counted at the start of the study
            values = {name: getattr(found, name) for name in SCORED}
            yield {
                "dataset": self.study.train.name,
                "structure": found.structure,
                "regime": key.variant.regime(self.condition.regime),
                "severity": key.variant.severity,
                "system": self.condition.system.name,
                "guidance": self.condition.system.guidance,
                "seed": self.condition.seed,
                "case": case.id,
                "postprocess": key.postprocess,
                **{k: round(v, DIGITS) if isinstance(v, float) else v for k, v in values.items()},
                "weights": key.weights,
            }


def prediction_file(
    study: SystemsStudy,
    condition: Condition,
    variant: Variant,
    weights: WeightsName,
    postprocess: str,
    case_id: str,
) -> Path:
    """Where a label map of a condition lies if predictions are kept."""
    image = variant.corruption or "clean"
    name = f"{image}{variant.severity or ''}-{weights}-{postprocess}"
    return study.files.predictions(condition) / name / f"{case_id}.nii.gz"


def _missing(study: SystemsStudy, condition: Condition, scores: pd.DataFrame) -> tuple[_Key, ...]:
    design = study.design
    named = ["regime", "severity", "weights", "postprocess"]
    there = set(scores[named].itertuples(index=False, name=None))
    return tuple(
        _Key(variant, weights, postprocess)
        for variant in design.variants()
        for weights in design.weights
        for postprocess in (AS_PREDICTED, LARGEST, *restorers(study, condition))
        if (variant.regime(condition.regime), variant.severity, weights, postprocess) not in there
    )

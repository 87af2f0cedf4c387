"""How the guidance should enter: table 2 over all combinations of its factors, and main effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from shapeguide.cells import HERE, Workers
from shapeguide.data.dataset import Dataset
from shapeguide.metrics.statistics import holm
from shapeguide.storage.whole import write_table
from shapeguide.studies.scores import MEASURED, TEST, Cube, cubes
from shapeguide.studies.study import StudyFiles
from shapeguide.studies.systems.compare import difference
from shapeguide.studies.systems.design import SystemsDesign
from shapeguide.studies.systems.figures import write_effects_figures
from shapeguide.studies.systems.study import SystemsResult, study_systems
from shapeguide.studies.systems.systems import PLAIN, GuidanceFactors
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import resolve


@dataclass(frozen=True, eq=False)
class GuidanceResult:
    """What the study of the guidance found."""

    table: SystemsResult
    effects: pd.DataFrame
    """Main effect of each level of each factor; `factorial.csv`."""


def study_guidance(
    train: Dataset,
    test: Dataset,
    *,
    out: str | Path,
    settings: TrainSettings | str = "default",
    design: SystemsDesign | None = None,
    factors: GuidanceFactors | None = None,
    workers: Workers = HERE,
    only: str | None = None,
    progress: bool = True,
) -> GuidanceResult:
    """Run every combination of the factors beside the plain system, and measure main effects.

    Args:
        train: Cases with label maps and structures.
        test: Cases that no training sees.
        out: Results folder, as that of `study_systems`.
        settings: Those of every training, or the name of a preset.
        design: Seeds, regimes and test images; its systems are replaced by the combinations, and
            nothing is restored.
        factors: The levels of each factor.
        workers: Where the cells run.
        only: One cell to do, as `regime/seed/system`.
        progress: Show a progress bar.

    Raises:
        ConfigError: As `study_systems`, or if a level is out of range.
        DataError: As `study_systems`.
    """
    settings, factors = resolve(settings), factors or GuidanceFactors()
    systems = factors.systems(settings.segmentation)
    table = study_systems(
        train,
        test,
        out=out,
        settings=settings,
        design=replace(design or SystemsDesign(), systems=systems, restores=False),
        workers=workers,
        only=only,
        progress=progress,
    )
    effects = main_effects(table.scores, factors)
    files = StudyFiles(table.folder)
    write_table(files.table("factorial"), effects)
    write_effects_figures(files, effects)
    return GuidanceResult(table, effects)


def main_effects(table: pd.DataFrame, factors: GuidanceFactors) -> pd.DataFrame:
    """Mean difference to the plain system over all combinations with a level, for each level.

    Args:
        table: Rows of `table2.csv`.
        factors: What was varied.

    Returns:
        The columns that name a test, then metric, factor, level, systems (how many it is over),
        mean_difference, low, high (95 % bootstrap interval that resamples people), low_over_seeds,
        high_over_seeds (one that resamples people and seeds), p (signed-rank test over the mean
        differences of the people), missed and missed_plain (structures, over the same scores),
        cases, people, seeds, p_holm_test (corrected for all levels in one test and metric).
    """
    combinations = factors.combinations()
    rows: list[dict[str, object]] = []
    for named, cube in cubes(table):
        if PLAIN not in cube.systems:
            continue
        for factor, levels in factors.levels().items():
            for level in levels:
                chosen = [
                    name
                    for name in cube.systems
                    if name in combinations and getattr(combinations[name], factor) == level
                ]
                found = [_effect(cube, chosen, metric) for metric in MEASURED if chosen]
                rows += [{**named, **one, "factor": factor, "level": level} for one in found]
    effects = pd.DataFrame(rows)
    if not effects.empty:
        within = effects.groupby([*TEST, "metric"], sort=False)["p"]
        effects["p_holm_test"] = within.transform(lambda p: holm(p.to_numpy(np.float64)))
    return effects


def _effect(cube: Cube, systems: list[str], metric: str) -> dict[str, object]:
    """Against the plain system, over all scores of all systems: each case keeps its own."""
    measured = [cube.finite_differences(system, PLAIN, metric) for system in systems]
    differences = [cube.differences(system, PLAIN, metric) for system in systems]
    seeds = np.tile(cube.seeds, len(systems))
    there = np.logical_or.reduce([cube.there(system, PLAIN) for system in systems])
    return {
        "metric": metric,
        "systems": len(systems),
        **difference(np.concatenate(measured, axis=1), np.concatenate(differences, axis=1), seeds),
        "missed": sum(cube.missed_by(s, cube.there(s, PLAIN)) for s in systems),
        "missed_plain": sum(cube.missed_by(PLAIN, cube.there(s, PLAIN)) for s in systems),
        **cube.counts(there),
    }

"""The training cases of each regime, and whether they suffice."""

from __future__ import annotations

import numpy as np

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.studies.systems.design import Table2Design, case_count
from shapeguide.training.cohort import hold_out
from shapeguide.training.settings.groups import TrainSettings


def training_cases(train: Dataset, regime: str, seed: int) -> Dataset:
    """The labelled training cases of a regime: the same ones for all systems of a seed.

    Fewer cases are among the more: those of few3 are the first of those of few5. They show
    different people as long as there are any.

    Raises:
        ConfigError: If there are too few.
    """
    count = case_count(regime)
    if count is None:
        return train
    if count > len(train):
        raise ConfigError(
            f"{train.name}: regime {regime} needs {count} labelled training cases, "
            f"found {len(train)}; leave it out or give more cases"
        )
    order = np.random.default_rng([seed, len(train)]).permutation(len(train))
    drawn = [train[int(place)] for place in order]
    first = {case.person: case for case in reversed(drawn)}
    # Further scans of somebody come after everybody's first, each in the order drawn.
    drawn.sort(key=lambda case: first[case.person] is not case)
    return train.select(case.id for case in drawn[:count])


def check_design(design: Table2Design, train: Dataset, settings: TrainSettings) -> None:
    """Refuse what could not be trained, before anything is.

    Raises:
        ConfigError: If a regime has too few cases, for itself or for a guide, or weights are asked
            for that the settings do not keep.
    """
    for cell in design.cells():
        chosen = cell.system.settings(settings, cell.seed)
        cases = training_cases(train, cell.regime, cell.seed)
        if "best" in design.weights and hold_out(cases, chosen)[1] is None:
            raise ConfigError(
                f"{train.name}: {cell.name} holds no cases out of its {len(cases)} for validation, "
                "so it has no best weights to test; leave them or this regime out, or raise "
                "segmentation.validation_cases"
            )
        maps = train if cell.system.label_maps == "all" else cases
        if cell.system.guidance == "shape" and len(maps) < 2:
            raise ConfigError(
                f"{train.name}: {cell.name} has {len(maps)} training case; shape guidance learns "
                f"how people differ and needs two; give more cases or leave {cell.system.name} out"
            )
    if "average" in design.weights and settings.segmentation.average_decay == 0:
        raise ConfigError(
            "the average of the weights is to be tested but average_decay is 0, which keeps none; "
            "raise it, or test the last weights only"
        )

"""What an experiment compares: regimes by seeds by systems, on clean and on corrupted images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shapeguide.data.dataset import Dataset
from shapeguide.data.degradation import DEGRADATIONS, SEVERITIES
from shapeguide.errors import ConfigError
from shapeguide.experiments.table2.systems import PLAIN, SRN, SYSTEMS, System
from shapeguide.models.model_files import WeightsName
from shapeguide.training.config import TrainSettings

ALL = "all"
EVALUATED_WEIGHTS: tuple[WeightsName, ...] = ("average", "last", "best")


@dataclass(frozen=True)
class Table2Design:
    """The factors of the experiment.

    Raises:
        ConfigError: If a value is unknown or given twice.
    """

    systems: tuple[System, ...] = tuple(SYSTEMS.values())
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    regimes: tuple[str, ...] = (ALL, "few5", "few3")
    """`all`, or `few` and how many labelled training cases there are."""
    corruptions: tuple[str, ...] = tuple(DEGRADATIONS)
    """How test images are degraded, besides the clean ones."""
    severities: tuple[int, ...] = SEVERITIES
    weights: tuple[WeightsName, ...] = ("average", "last")
    """Weights that are tested: the average over the iterations, or the last ones."""

    def __post_init__(self) -> None:
        for name in ("seeds", "regimes", "corruptions", "severities", "weights"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigError(f"{name}: a value is given twice: {_listed(values)}")
        for name, known in (
            ("corruptions", tuple(DEGRADATIONS)),
            ("severities", SEVERITIES),
            ("weights", EVALUATED_WEIGHTS),
        ):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise ConfigError(
                    f"{name}: unknown {_listed(unknown)}; choose from {_listed(known)}"
                )
        for name in ("systems", "seeds", "regimes", "weights"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: give at least one")
        for regime in self.regimes:
            case_count(regime)

    def cells(self) -> tuple[Cell, ...]:
        """Everything that is trained and tested, seed by seed so that pairs come early.

        With all training cases `shape_all_maps` is `shape` itself, and left out there.
        """
        return tuple(
            Cell(regime, seed, system)
            for seed in self.seeds
            for regime in self.regimes
            for system in self.systems
            if regime != ALL or system.label_maps == "same"
        )

    def variants(self) -> tuple[Variant, ...]:
        """The test images: clean ones first, then each corruption at each severity."""
        degraded = [Variant(name, step) for name in self.corruptions for step in self.severities]
        return (Variant(), *degraded)


@dataclass(frozen=True)
class Variant:
    """How test images come: as they are, or with one corruption."""

    corruption: str | None = None
    severity: int = 0

    def regime(self, trained: str) -> str:
        """The regime of a row: that of the training, and what was done to the test image."""
        return trained if self.corruption is None else f"{trained}+{self.corruption}"


@dataclass(frozen=True)
class Cell:
    """One system, trained by one seed in one regime."""

    regime: str
    seed: int
    system: System

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.regime}/{self.seed}/{self.system.name}"


def case_count(regime: str) -> int | None:
    """How many labelled training cases a regime has; None for all.

    Raises:
        ConfigError: If there is no such regime.
    """
    if regime == ALL:
        return None
    match = re.fullmatch(r"few([1-9]\d*)", regime)
    if match is None:
        raise ConfigError(f"unknown regime {regime!r}; choose all, or few and a number, as in few3")
    return int(match.group(1))


def training_cases(train: Dataset, regime: str, seed: int) -> Dataset:
    """The labelled training cases of a regime: the same ones for all systems of a seed.

    Fewer cases are among the more: those of few3 are the first of those of few5.

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
    drawn = np.random.default_rng([seed, len(train)]).permutation(len(train))[:count]
    return train.select(train[int(place)].id for place in drawn)


def check_design(design: Table2Design, train: Dataset, settings: TrainSettings) -> None:
    """Refuse what could not be trained, before anything is.

    Raises:
        ConfigError: If a regime has too few cases, for itself or for a guide, or weights are asked
            for that the settings do not keep.
    """
    for cell in design.cells():
        cell.system.settings(settings, cell.seed)
        cases = training_cases(train, cell.regime, cell.seed)
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


def srn_wanted(design: Table2Design, cell: Cell) -> bool:
    """Whether the reconstruction by SRN's autoencoder is tested on a cell as post-processing.

    It is on SRN itself, as its paper has it, and on the plain segmenter of the same seed.
    """
    trained = any(system.name == SRN for system in design.systems)
    return trained and cell.system.name in (PLAIN, SRN)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))

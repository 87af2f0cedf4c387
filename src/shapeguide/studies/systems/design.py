"""What a study of systems compares: regimes by seeds by systems, on clean and on degraded images.

Nothing here loads arrays or networks, so that the command line can show its help at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shapeguide.errors import ConfigError
from shapeguide.studies.systems.systems import SYSTEMS, System
from shapeguide.vocabulary import CORRUPTIONS, SEVERITIES, WeightsName

ALL = "all"
REGIMES = (ALL, "few5", "few3")
WEIGHTS: tuple[WeightsName, ...] = ("average", "last")
EVALUATED_WEIGHTS: tuple[WeightsName, ...] = (*WEIGHTS, "best")


@dataclass(frozen=True)
class SystemsDesign:
    """The factors of the study.

    Raises:
        ConfigError: If a value is unknown or given twice.
    """

    systems: tuple[System, ...] = tuple(SYSTEMS.values())
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    regimes: tuple[str, ...] = REGIMES
    """`all`, or `few` and how many labelled training cases there are."""
    corruptions: tuple[str, ...] = CORRUPTIONS
    """How test images are degraded, besides the clean ones."""
    severities: tuple[int, ...] = SEVERITIES
    weights: tuple[WeightsName, ...] = WEIGHTS
    """Weights that are tested: the average over the iterations, or the last ones."""
    restores: bool = True
    """Whether predictions restored by the shape restorer are tested too."""

    def __post_init__(self) -> None:
        for name in ("seeds", "regimes", "corruptions", "severities", "weights"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigError(f"{name}: a value is given twice: {_listed(values)}")
        for name, known in (
            ("corruptions", CORRUPTIONS),
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

    def conditions(self) -> tuple[Condition, ...]:
        """Everything that is trained and tested, seed by seed so that pairs come early.

        With all training cases `shape_all_maps` is `shape` itself, and left
        out there; so it is for the others.
        """
        return tuple(
            Condition(regime, seed, system)
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
class Condition:
    """One system, trained by one seed in one regime."""

    regime: str
    seed: int
    system: System

    @property
    def name(self) -> str:
        """The name that `--only` takes."""
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


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))

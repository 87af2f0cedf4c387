"""The factorial experiment of the guidance: every combination of its factors is a system."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from shapeguide.errors import ConfigError
from shapeguide.studies.systems.systems import PLAIN, SYSTEMS, System
from shapeguide.training.settings.groups import SegmentationSettings
from shapeguide.vocabulary import Balance, CapForm

AS_SET = 1.0
"""The start that the settings have."""


@dataclass(frozen=True)
class GuidanceFactors:
    """What is varied of the guidance, each against each.

    Raises:
        ConfigError: If a factor has no level, a repeated one, or one out of range.
    """

    alphas: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Weights of the shape loss."""
    cap_forms: tuple[CapForm, ...] = ("hard", "smooth")
    balances: tuple[Balance, ...] = ("none", "gradient")
    ramps: tuple[float, ...] = (0.0, 0.5)
    """Shares of the guided iterations over which the weight grows to alpha."""
    starts: tuple[float, ...] = (0.0, 1.0)
    """Shares of the Dice iterations that are left to Dice alone: 1 guides from where the settings
    say, 0 from the first iteration. All train equally long."""

    def __post_init__(self) -> None:
        for name, levels in self.levels().items():
            if not levels or len(set(levels)) != len(levels):
                raise ConfigError(f"{name}: give at least one level, each once; found {levels}")
        for name, shares, whole in (
            ("ramps", self.ramps, "guided iterations"),
            ("starts", self.starts, "Dice iterations"),
        ):
            if not all(0 <= share <= 1 for share in shares):
                raise ConfigError(f"{name} are shares of the {whole}, 0 to 1; found {shares}")

    def levels(self) -> dict[str, tuple[object, ...]]:
        """The levels of each factor."""
        return {
            "alpha": self.alphas,
            "cap_form": self.cap_forms,
            "balance": self.balances,
            "ramp": self.ramps,
            "start": self.starts,
        }

    def combinations(self) -> dict[str, Combination]:
        """Every combination, by the name of its system."""
        levels = product(self.alphas, self.cap_forms, self.balances, self.ramps, self.starts)
        found = (Combination(*chosen) for chosen in levels)
        return {combination.name: combination for combination in found}

    def systems(self, course: SegmentationSettings) -> tuple[System, ...]:
        """The plain system, and one for each combination.

        Args:
            course: How long all of them train, and how much of it on Dice alone by the settings.
        """
        guided = (one.system(course) for one in self.combinations().values())
        return SYSTEMS[PLAIN], *guided


@dataclass(frozen=True)
class Combination:
    """One level of each factor."""

    alpha: float
    cap_form: CapForm
    balance: Balance
    ramp: float
    start: float

    @property
    def name(self) -> str:
        """Of its system."""
        name = f"a{self.alpha}-{self.cap_form}-{self.balance}-r{self.ramp}"
        return name if self.start == AS_SET else f"{name}-s{self.start}"

    def system(self, course: SegmentationSettings) -> System:
        """Guided like this; `course` is that of the settings."""
        dice_iterations = round(self.start * course.dice_iterations)
        guided_iterations = course.iterations - dice_iterations
        shape_loss: dict[str, object] = {
            "alpha": self.alpha,
            "cap_form": self.cap_form,
            "balance": self.balance,
            "ramp_iterations": round(self.ramp * guided_iterations),
        }
        changes: dict[str, dict[str, object]] = {"shape_loss": shape_loss}
        if self.start != AS_SET:
            changes["segmentation"] = {
                "dice_iterations": dice_iterations,
                "guided_iterations": guided_iterations,
            }
        return System(self.name, guidance="shape", changes=changes)

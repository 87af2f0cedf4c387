"""The factorial experiment of the guidance: every combination of its factors is a system."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

from shapeguide.errors import ConfigError
from shapeguide.experiments.table2.systems import PLAIN, SYSTEMS, System


@dataclass(frozen=True)
class GuidanceFactors:
    """What is varied of the guidance, each against each.

    Raises:
        ConfigError: If a factor has no level, a repeated one, or one out of range.
    """

    alphas: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Weights of the shape loss."""
    cap_forms: tuple[Literal["hard", "smooth"], ...] = ("hard", "smooth")
    balances: tuple[Literal["none", "gradient"], ...] = ("none", "gradient")
    ramps: tuple[float, ...] = (0.0, 0.5)
    """Shares of the guided iterations over which the weight grows to alpha."""

    def __post_init__(self) -> None:
        for name, levels in self.levels().items():
            if not levels or len(set(levels)) != len(levels):
                raise ConfigError(f"{name}: give at least one level, each once; found {levels}")
        if not all(0 <= ramp <= 1 for ramp in self.ramps):
            raise ConfigError(f"ramps are shares of the guided iterations, found {self.ramps}")

    def levels(self) -> dict[str, tuple[object, ...]]:
        """The levels of each factor."""
        return {
            "alpha": self.alphas,
            "cap_form": self.cap_forms,
            "balance": self.balances,
            "ramp": self.ramps,
        }

    def combinations(self) -> dict[str, dict[str, object]]:
        """The level of each factor, by the name of the system."""
        names = list(self.levels())
        found = {}
        for levels in product(*self.levels().values()):
            chosen = dict(zip(names, levels, strict=True))
            found[_name(chosen)] = chosen
        return found

    def systems(self, *, guided_iterations: int) -> tuple[System, ...]:
        """The plain system, and one for each combination.

        Args:
            guided_iterations: Of the settings; ramps are shares of them.
        """
        made = [SYSTEMS[PLAIN]]
        for name, level in self.combinations().items():
            ramp = round(float(str(level["ramp"])) * guided_iterations)
            shape_loss = {
                "alpha": level["alpha"],
                "cap_form": level["cap_form"],
                "balance": level["balance"],
                "ramp_iterations": ramp,
            }
            made.append(System(name, guidance="shape", changes={"shape_loss": shape_loss}))
        return tuple(made)


def _name(level: dict[str, object]) -> str:
    return f"a{level['alpha']}-{level['cap_form']}-{level['balance']}-r{level['ramp']}"

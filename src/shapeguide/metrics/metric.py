"""What is measured of a prediction: the name, unit and direction of each metric, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric as people read it, and which of two values is the better one."""

    name: str
    unit: Literal["", "mm"]
    """Empty for a share, in [0, 1]."""
    higher_is_better: bool

    @property
    def perfect(self) -> float:
        """Value of a prediction that equals its reference."""
        return 1.0 if self.higher_is_better else 0.0

    @property
    def heading(self) -> str:
        """The name, with the unit in brackets where there is one."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


METRICS = {
    "dice": Metric("Dice", unit="", higher_is_better=True),
    "hausdorff_mm": Metric("Hausdorff distance", unit="mm", higher_is_better=False),
    "hd95_mm": Metric("HD95", unit="mm", higher_is_better=False),
    "assd_mm": Metric("ASSD", unit="mm", higher_is_better=False),
    "surface_dice_1mm": Metric("surface Dice at 1 mm", unit="", higher_is_better=True),
}
"""Every metric, by the name of its column in a table of scores."""
MAIN_METRICS = ("dice", "hausdorff_mm", "hd95_mm")
"""Those that are told first."""

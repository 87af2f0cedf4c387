"""How far random warps go. Nothing here imports torch, so that settings can hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shapeguide.errors import ConfigError
from shapeguide.vocabulary import WarpCentre


@dataclass(frozen=True)
class WarpLimits:
    """Ranges that random warps are drawn from, each uniformly; the paper's values by default.

    The paper does not state its translation; ours is 4 mm, and 8 mm in its preset.

    Raises:
        ConfigError: If a limit is negative, not finite, or the scales are not positive and ordered.
    """

    rotation_deg: float = 8.0
    """Largest rotation about each axis, to either side, degrees."""
    scale: tuple[float, float] = (0.85, 1.15)
    """Smallest and largest isotropic scale."""
    translation_mm: float = 4.0
    """Largest translation along each axis, to either side, mm."""
    centre: WarpCentre = "grid"
    """What warps turn and scale about: the middle of the grid, or that of the object, as
    published; an image turns about all of its structures together."""

    def __post_init__(self) -> None:
        smallest, largest = self.scale
        if not (0 < smallest <= largest < math.inf):
            raise ConfigError(f"scale must be two ordered positive numbers, found {self.scale}")
        if not 0 <= self.rotation_deg <= 180:
            raise ConfigError(f"rotation_deg must lie in 0 to 180, found {self.rotation_deg}")
        if not 0 <= self.translation_mm < math.inf:
            raise ConfigError(f"translation_mm must be 0 or more, found {self.translation_mm}")

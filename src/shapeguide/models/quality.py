"""How well a trained model does what it is for, structure by structure; `model.json` states it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict, Field

LOWEST_AUC = 0.75
LOWEST_RATIO = 1.2
SMALLEST_SPREAD = 1e-3
MOST_MISSED = 0.05
"""A finder that misses more structures that are there, or reports more that are not, has failed."""
SMALLEST_DICE = 0.5
"""An autoencoder that reproduces an untouched label map worse than this has failed."""

Millimetres: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class Quality(ABC):
    """What every record says: of which structure, and which cases it was measured on."""

    # Older files also state what now follows from the figures.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    structure: str
    cases: int
    held_out: bool
    """Whether the cases were kept out of training."""

    @property
    @abstractmethod
    def good(self) -> bool:
        """Whether the model is of use for the structure."""

    @property
    def where(self) -> str:
        """The cases in words."""
        return f"{self.cases} {'held-out' if self.held_out else 'training'} cases"


@dataclass(frozen=True, kw_only=True)
class ShapeQuality(Quality):
    """How well distances tell two people from one person under two warps."""

    same: float = 0.0
    """Mean raw distance of affine pairs of one case."""
    different: float = 0.0
    """Mean raw distance of affine pairs of two people."""
    ratio: float = 0.0
    """different / same."""
    auc: float = 0.0
    """Chance that a same-case pair is closer than a different-case pair."""
    signature_std: float = 0.0
    """Standard deviation of signatures between cases, over their mean size."""
    rank1: float = 0.0
    """How often the nearest signature among all cases under another warp is that of the case."""
    different_before: float = 0.0
    """Mean raw distance of the same pairs of two people before training; 0 in older files."""

    @property
    def measured(self) -> bool:
        """Whether two people have the structure, so that there was something to measure."""
        # A network that says 0 of every pair still has an AUC of a half.
        return self.different > 0 or self.auc > 0

    @property
    def collapsed(self) -> bool:
        """Whether the network tells cases apart no better than chance would.

        That is about separation alone: distances that became small in training, see `scale`, only
        matter where they guide as they come.
        """
        return (
            not self.auc >= LOWEST_AUC
            or not self.ratio >= LOWEST_RATIO
            or self.signature_std < SMALLEST_SPREAD
        )

    @property
    def scale(self) -> float | None:
        """Mean distance of two people over what it was before training; None if unknown.

        An objective that only pulls pairs together can make all distances small at once. It says
        nothing of how well they tell people apart.
        """
        return self.different / self.different_before if self.different_before > 0 else None

    @property
    def good(self) -> bool:
        """Whether the network can guide."""
        return not self.collapsed

    def __str__(self) -> str:
        if not self.measured:
            return f"{self.structure}: not measured, for fewer than two people have it"
        verdict = "COLLAPSED" if self.collapsed else "tells cases apart"
        return (
            f"{self.structure}: same case {self.same:.3g}, different cases {self.different:.3g}, "
            f"ratio {self.ratio:.2f}, AUC {self.auc:.3f}, rank-1 {self.rank1:.2f}, "
            f"signature spread {self.signature_std:.2g}{self._scale_in_words}, {self.where}: "
            f"{verdict}"
        )

    @property
    def _scale_in_words(self) -> str:
        return (
            "" if self.scale is None else f", distances {self.scale:.2g} of those before training"
        )


@dataclass(frozen=True, kw_only=True)
class ReconstructionQuality(Quality):
    """How well an autoencoder reproduces a structure: mean Dice scores over cases."""

    dice: float
    """Score of the map as it is, put through it; 0 when no case holds the structure."""
    corrupted: float | None = None
    """Score of corrupted maps before restoration; of `srn` alone."""
    restored: float | None = None
    """Score of corrupted maps after it; of `srn` alone."""

    @property
    def good(self) -> bool:
        """Whether it can at least reproduce an untouched map."""
        return self.dice >= SMALLEST_DICE

    def __str__(self) -> str:
        verdict = "works" if self.good else "FAILED, its guidance means little"
        restored = (
            f"; corrupted maps {self.corrupted:.3f}, restored {self.restored:.3f}"
            if self.corrupted is not None and self.restored is not None
            else ""
        )
        return (
            f"{self.structure}: reproduced with Dice {self.dice:.3f}{restored}, "
            f"{self.where}: {verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class RestorationQuality(Quality):
    """How well a restorer works on a structure: mean Dice scores over cases."""

    spoilt: float
    """Score of spoilt maps before restoration; all are 0 when no case holds the structure."""
    restored: float
    """Score of spoilt maps after it."""
    clean: float
    """Score of maps that needed no restoration, after it."""

    @property
    def good(self) -> bool:
        """Whether spoilt maps are better after restoration than before."""
        return self.restored > self.spoilt

    def __str__(self) -> str:
        verdict = "works" if self.good else "DOES NOT HELP, train it longer or on more cases"
        return (
            f"{self.structure}: spoilt maps {self.spoilt:.3f}, restored {self.restored:.3f}, "
            f"clean maps stay at {self.clean:.3f}, {self.where}: {verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class FindingQuality(Quality):
    """How well a finder finds a structure, over several views of each case.

    A view is turned, scaled, moved, cut and changed at random, as in training.
    """

    whole: int
    """Views that show the structure whole, and what is around it."""
    missed: int
    """Those of them in which it was not found."""
    median_mm: Millimetres | None
    """Median distance from the found centre of mass to the true one; None if never found."""
    largest_mm: Millimetres | None
    """Largest error of the centre along any axis; None if never found."""
    most_mm: float | None
    """In 95 of 100 views no error along any axis is larger; None if never found."""
    gone: int
    """Views that show nothing of the structure."""
    reported: int
    """Those of them in which it was found nevertheless."""

    @property
    def good(self) -> bool:
        """Whether it is found where it is, and only there."""
        return (
            self.largest_mm is not None
            and self.missed <= MOST_MISSED * self.whole
            and self.reported <= MOST_MISSED * self.gone
        )

    def __str__(self) -> str:
        found = "never found"
        if self.median_mm is not None:
            found = (
                f"centre off by {self.median_mm:.1f} mm, along an axis mostly by no more than "
                f"{self.most_mm:.1f} mm and at most by {self.largest_mm:.1f} mm"
            )
        verdict = "works" if self.good else "NOT RELIABLE, train it longer or on more cases"
        return (
            f"{self.structure}: {found}, missed in {self.missed} of {self.whole} views that show "
            f"it, reported in {self.reported} of {self.gone} that do not, {self.where}: {verdict}"
        )

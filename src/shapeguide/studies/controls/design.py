"""What a study of controls varies: how masks are shown, and what looks at them.

The paper's table 1 compares distances of signatures between affine pairs of one person and of two.
Each setting here is one reading of how that was done. Nothing here imports torch, so that the
command line can show its help at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias
from urllib.parse import quote

from shapeguide.errors import ConfigError
from shapeguide.training.settings.groups import ShapeSettings, TrainSettings
from shapeguide.training.settings.presets import PRESETS
from shapeguide.vocabulary import Maps, Pose, WarpCentre

Observer: TypeAlias = Literal["trained", "untrained", "view", "averaged view"]
"""What looks at a mask: g as published, g before training, or no network: the mask as its pose
shows it, or that averaged to 4 x 4 x 4 numbers."""
FIRST_CHANNELS = 16
"""Channels of the first level of g; each further level has twice as many."""
USUAL_LEVELS, MOST_LEVELS = 3, 5
FEWEST_PAIRS = 4


@dataclass(frozen=True)
class Setting:
    """One reading of table 1, for one structure and seed."""

    structure: str
    seed: int
    centre: WarpCentre = "object"
    """What warps turn and scale about."""
    translation_mm: float = 0.0
    offset_mm: float = 0.0
    """Standard deviation of how far heads lie off along each axis, beside how they lie."""
    maps: Maps = "binary"
    levels: int = USUAL_LEVELS
    normalised: bool = False
    pose: Pose = "grid"

    @property
    def observers(self) -> tuple[Observer, ...]:
        """What looks at the masks of this setting.

        The views of the grid do not depend on a network, and the poses are here without one.
        """
        views: tuple[Observer, ...] = ("view", "averaged view")
        if self.pose != "grid":
            return views
        usual = Setting(self.structure, self.seed)
        as_usual = (self.levels, self.normalised) == (usual.levels, usual.normalised)
        networks: tuple[Observer, ...] = ("trained", "untrained")
        return (*networks, *views) if as_usual else networks

    @property
    def folder_name(self) -> str:
        """Name of its folder, whatever characters the structure's name has."""
        kind = "normalised" if self.normalised else "plain"
        return (
            f"{quote(self.structure, safe=' ')}-{self.pose}-{self.centre}"
            f"-t{self.translation_mm:g}-o{self.offset_mm:g}-{self.maps}-l{self.levels}-{kind}"
            f"-seed{self.seed}"
        )

    def settings(self, given: TrainSettings) -> TrainSettings:
        """Those of the shape stage: as printed, but for what this setting varies."""
        printed = PRESETS["paper"].shape
        channels = tuple(FIRST_CHANNELS * 2**level for level in range(self.levels))
        shape: ShapeSettings = printed.changed(
            maps=self.maps,
            pose=self.pose,
            channels=channels,
            normalised=self.normalised,
            iterations=given.shape.iterations,
        )
        warp = replace(given.warp, centre=self.centre, translation_mm=self.translation_mm)
        return given.changed(
            seed=self.seed,
            shape=shape,
            warp=warp,
            # Heads as they lie: no finder lays a region around the structure.
            data=given.data.changed(region="none"),
            segmentation=given.segmentation.changed(validation_cases=0),
        )


@dataclass(frozen=True)
class ControlsDesign:
    """What is varied.

    All centres with all translations and offsets; the rest one by one at two readings: about the
    object without translation with the largest but one offset, and about the middle of the grid.
    Soft maps about the object are seen with every offset.

    Raises:
        ConfigError: If a list is empty, or a value out of range or given twice.
    """

    centres: tuple[WarpCentre, ...] = ("object", "grid")
    translations_mm: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0)
    offsets_mm: tuple[float, ...] = (0.0, 8.0, 12.0)
    levels: tuple[int, ...] = (1, 2, 4, 5)
    """Levels of g beside 3."""
    seeds: tuple[int, ...] = (0, 1, 2)
    pairs: int = 200
    """Affine pairs of either kind that the figures are over."""

    def __post_init__(self) -> None:
        for name in ("centres", "translations_mm", "offsets_mm", "seeds", "levels"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or not (values or name == "levels"):
                raise ConfigError(f"{name}: give at least one value, each once; found {values}")
        for name in ("translations_mm", "offsets_mm", "seeds"):
            if min(getattr(self, name)) < 0:
                raise ConfigError(f"{name}: 0 or more expected, found {getattr(self, name)}")
        if not all(1 <= level <= MOST_LEVELS for level in self.levels):
            raise ConfigError(f"levels: 1 to {MOST_LEVELS} expected, found {self.levels}")
        if self.pairs < FEWEST_PAIRS:
            raise ConfigError(f"pairs: expected at least {FEWEST_PAIRS}, found {self.pairs}")

    def settings(self, structures: Sequence[str]) -> Iterator[Setting]:
        """Every setting, each once, seed by seed so that every structure comes early."""
        for seed in self.seeds:
            for structure in structures:
                yield from dict.fromkeys(self._of(structure, seed))

    def _of(self, structure: str, seed: int) -> Iterator[Setting]:
        for centre in self.centres:
            for translation_mm in self.translations_mm:
                for offset_mm in self.offsets_mm:
                    yield Setting(structure, seed, centre, translation_mm, offset_mm)
        middle = sorted(self.offsets_mm)[len(self.offsets_mm) // 2]
        readings = [
            Setting(structure, seed, "object", min(self.translations_mm), middle),
            Setting(structure, seed, "grid", sorted(self.translations_mm)[-2:][0], 0.0),
        ]
        for offset_mm in self.offsets_mm:
            yield replace(readings[0], offset_mm=offset_mm, maps="clean")
        for reading in readings:
            yield replace(reading, maps="clean")
            for levels in self.levels:
                yield replace(reading, levels=levels)
            yield replace(reading, normalised=True)
        for pose in ("canonical", "aligned"):
            yield replace(readings[0], pose=pose, offset_mm=0.0)

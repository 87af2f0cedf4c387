"""The systems that are compared: which network segments, what guides it, and by which settings.

Nothing here loads arrays or networks, so that the command line can show its help at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, Literal

from shapeguide.errors import ConfigError
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.settings.base import Settings
from shapeguide.training.settings.groups import SegmentationSettings, TrainSettings
from shapeguide.training.settings.guidance import GUIDANCE_SETTINGS
from shapeguide.training.settings.presets import PRESETS
from shapeguide.vocabulary import (
    GUIDANCE,
    SEGMENTER_NAMES,
    Balance,
    CapForm,
    Guidance,
    SegmenterName,
)

PLAIN = "plain"
SRN = "srn"
SRN_ALL_MAPS = "srn_all_maps"
GUIDED = "shape"
GUIDED_ALL_MAPS = "shape_all_maps"
TRAINED_GUIDES = ("shape", "acnn", "srn")
"""Guidance by a network that is trained first."""
GUIDE_SETTINGS = ("shape", "autoencoder")
"""Groups of settings that decide on such a network."""

AS_SET = 1.0
"""The start that the settings have."""


@dataclass(frozen=True)
class System:
    """One way to train a segmenter."""

    name: str
    segmenter: SegmenterName = "unet3d"
    guidance: Guidance = "none"
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What differs from the settings of the study: values by group and name."""
    like: str = ""
    """Name of the system that differs in nothing but guidance, where that is not the one of the
    segmenter alone."""
    label_maps: Literal["same", "all"] = "same"
    """Whose label maps train the guide: the segmenter's cases, or all training cases, as if those
    that the segmenter does not see had no image."""

    @property
    def guide(self) -> str | None:
        """Name of the guide in the folder of a regime and seed.

        None when nothing is trained, or one for each structure in the run of that structure.
        """
        if self.guidance not in TRAINED_GUIDES or self.separate:
            return None
        own = any(group in self.changes for group in GUIDE_SETTINGS)
        return self.name if own else self.guidance

    @property
    def separate(self) -> bool:
        """Whether each structure is trained by itself."""
        return bool(self.changes.get("segmentation", {}).get("one_per_structure"))

    @property
    def unguided(self) -> str:
        """Name of the system with the same segmenter and no guidance."""
        return self.like or (PLAIN if self.segmenter == "unet3d" else self.segmenter)

    @property
    def branches(self) -> bool:
        """Whether its Dice iterations are those of the unguided segmenter."""
        other = (SYSTEMS | OTHERS)[self.unguided]
        return self.name != other.name and self._unguided_changes == other._unguided_changes

    @property
    def _unguided_changes(self) -> Mapping[str, Mapping[str, Any]]:
        """What its iterations without guidance depend on."""
        return {name: of for name, of in self.changes.items() if name not in GUIDANCE_SETTINGS}

    def settings(self, base: TrainSettings, seed: int) -> TrainSettings:
        """The settings of its segmenter.

        Raises:
            ConfigError: If a change does not fit.
        """
        settings = _changed(base.changed(seed=seed, guidance=self.guidance), self.changes)
        segmentation = settings.segmentation.changed(segmenter=self.segmenter)
        return settings.changed(segmentation=segmentation)

    def guide_settings(self, base: TrainSettings, seed: int) -> TrainSettings:
        """The settings of its guide: equal for all systems that share it."""
        own = {name: self.changes[name] for name in GUIDE_SETTINGS if name in self.changes}
        return _changed(base.changed(seed=seed, guidance=self.guidance), own)

    def described(self) -> dict[str, Any]:
        """The system as plain values, for a file."""
        return asdict(self)


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(PLAIN),
        System(GUIDED, guidance="shape"),
        System(GUIDED_ALL_MAPS, guidance="shape", label_maps="all"),
        System("acnn", guidance="acnn"),
        System("acnn_all_maps", guidance="acnn", label_maps="all"),
        System(SRN, guidance="srn"),
        System(SRN_ALL_MAPS, guidance="srn", label_maps="all"),
        System("boundary", guidance="boundary"),
        System("hausdorff", guidance="hausdorff"),
        System("unet2d", segmenter="unet2d"),
        System("fcn", segmenter="fcn"),
        System("vnet", segmenter="vnet"),
    )
}
"""What is compared unless something else is asked for."""
PUBLISHED_PLAIN = "published_plain"
PUBLISHED = "published"


def _as_published() -> dict[str, Mapping[str, Any]]:
    """What the paper states, as changes of any settings: those of the preset `paper`.

    The average of the weights, which decides nothing about the last ones, stays as it is set.
    """
    paper = PRESETS["paper"]
    changes: dict[str, Mapping[str, Any]] = {
        name: getattr(paper, name).model_dump(mode="json")
        for name in ("shape", "shape_loss", "segmentation")
    }
    segmentation = dict(changes["segmentation"])
    del segmentation["average_decay"]
    return {
        **changes,
        "segmentation": segmentation,
        "warp": {**asdict(paper.warp), "scale": list(paper.warp.scale)},
        "restorer": {"iterations": paper.restorer.iterations},
        "data": {"normalisation": paper.data.normalisation},
        "machine": {"precision": paper.machine.precision},
    }


AS_PUBLISHED: dict[str, System] = {
    system.name: system
    for system in (
        System(PUBLISHED_PLAIN, changes=_as_published(), like=PUBLISHED_PLAIN),
        System(PUBLISHED, guidance="shape", changes=_as_published(), like=PUBLISHED_PLAIN),
    )
}
"""The paper's own method and its 3D U-Net, each structure by itself, in its schedule."""
OF_BLOCKS = {"unet3d_blocks": System("unet3d_blocks", segmenter="unet3d_blocks")}
OTHERS_GUIDED: dict[str, System] = {
    f"{segmenter}_{guidance}": System(f"{segmenter}_{guidance}", segmenter, guidance)
    for segmenter in SEGMENTER_NAMES
    for guidance in GUIDANCE
    if segmenter != "unet3d" and guidance != "none"
}
"""The other segmenters with any guidance, such as `vnet_shape`."""
BALANCED_RIVALS: dict[str, System] = {
    f"{guidance}_balanced": System(
        f"{guidance}_balanced",
        guidance=guidance,
        changes={"shape_loss": {"balance": "gradient_all"}},
    )
    for guidance in GUIDANCE
    if guidance not in ("none", "shape")
}
"""Rivals whose gradient is held to alpha, as that of shape is, not at their published weight."""


OTHERS = AS_PUBLISHED | OF_BLOCKS | OTHERS_GUIDED | BALANCED_RIVALS
"""What is compared where it is asked for by name."""


def systems_named(names: Sequence[str]) -> tuple[System, ...]:
    """The systems with these names, in this order.

    Raises:
        ConfigError: If a name is unknown or given twice, or there is none.
    """
    known = SYSTEMS | OTHERS
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"unknown systems: {', '.join(unknown) or 'none given'}; choose from "
            f"{', '.join(SYSTEMS | OF_BLOCKS | AS_PUBLISHED)}, or another segmenter and its "
            "guidance, as in vnet_shape, or a rival at the gradient of shape, as in acnn_balanced"
        )
    if len(set(names)) != len(names):
        raise ConfigError(f"a system is given twice: {', '.join(names)}")
    return tuple(known[name] for name in names)


def _changed(settings: TrainSettings, changes: Mapping[str, Mapping[str, Any]]) -> TrainSettings:
    groups = {
        name: {**_plain(getattr(settings, name)), **values} for name, values in changes.items()
    }
    return settings.changed(**groups) if groups else settings


def _plain(group: Settings | WarpLimits) -> dict[str, Any]:
    return asdict(group) if isinstance(group, WarpLimits) else group.model_dump()


@dataclass(frozen=True)
class GuidanceFactors:
    """What is varied of the guidance, each against each.

    Raises:
        ConfigError: If a factor has no level, a repeated one, or one out of range.
    """

    alphas: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Weights of the shape loss."""
    cap_forms: tuple[CapForm, ...] = ("hard", "smooth")
    """Forms of the cap."""
    balances: tuple[Balance, ...] = ("none", "gradient")
    """Whether alpha is relative to the gradient of the Dice loss."""
    ramps: tuple[float, ...] = (0.0, 0.5)
    """Shares of the guided iterations over which the weight grows to alpha."""
    starts: tuple[float, ...] = (0.0, 1.0)
    """Shares of the Dice iterations that are left to Dice alone: with 0 the guidance sets in at the
    first iteration, with 1 where the settings say. All train equally long."""

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
        """Name of its system."""
        name = f"a{self.alpha}-{self.cap_form}-{self.balance}-r{self.ramp}"
        return name if self.start == AS_SET else f"{name}-s{self.start}"

    def system(self, course: SegmentationSettings) -> System:
        """Guided like this; `course` is that of the settings."""
        dice_iterations = round(self.start * course.suited().dice_iterations)
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

"""What a study of separation compares: objectives, poses, seeds; the settings of each condition.

Nothing here imports torch, so that the command line can show its help at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import quote

from shapeguide.errors import ConfigError
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import PRESETS
from shapeguide.vocabulary import POSES, Objective, Pose

AS_PRINTED: Literal["pairwise_as_printed"] = "pairwise_as_printed"
"""The pairwise objective with the schedule that the paper prints, whatever the settings say."""
PRINTED_SETTINGS = ("maps", "iterations", "batch_size", "learning_rate", "decay")
FEWEST_PAIRS = 4

StudiedObjective: TypeAlias = Literal["pairwise_as_printed", Objective]
OBJECTIVES: tuple[StudiedObjective, ...] = get_args(StudiedObjective)


@dataclass(frozen=True)
class SeparationDesign:
    """What is compared.

    Raises:
        ConfigError: If a list is empty, a name unknown or repeated, or there are too few pairs.
    """

    objectives: tuple[StudiedObjective, ...] = OBJECTIVES
    """Objectives to compare; the first has the schedule that the paper prints."""
    poses: tuple[Pose, ...] = POSES
    """Poses to compare."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings and of the pairs they are measured on."""
    pairs: int = 200
    """Affine pairs of either kind that the figures are over."""

    def __post_init__(self) -> None:
        _check_listed("objectives", self.objectives, OBJECTIVES)
        _check_listed("poses", self.poses, POSES)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: expected different numbers from 0, found {self.seeds}")
        if self.pairs < FEWEST_PAIRS:
            raise ConfigError(f"pairs: expected at least {FEWEST_PAIRS}, found {self.pairs}")
        if not list(self.conditions(("any",))):
            raise ConfigError(f"{AS_PRINTED} is defined in the grid pose only; add it to the poses")

    def conditions(self, structures: Sequence[str]) -> Iterator[Condition]:
        """Every condition of the table, in its order."""
        for structure in structures:
            for objective in self.objectives:
                for pose in self.poses:
                    # The paper knows no canonical pose.
                    if objective == AS_PRINTED and pose != "grid":
                        continue
                    for seed in self.seeds:
                        yield Condition(structure, objective, pose, seed)


@dataclass(frozen=True)
class Condition:
    """One shape network of the table."""

    structure: str
    objective: str
    pose: str
    seed: int

    @property
    def folder_name(self) -> str:
        """Name of the run folder, whatever characters the structure's name has."""
        return f"{quote(self.structure, safe=' ')}-{self.objective}-{self.pose}-seed{self.seed}"

    def place(self, structures: Sequence[str]) -> tuple[int, ...]:
        """Where the condition stands in a table with the structures in this order."""
        return (
            structures.index(self.structure),
            OBJECTIVES.index(self.objective),
            POSES.index(self.pose),
            self.seed,
        )

    def settings(self, given: TrainSettings) -> TrainSettings:
        """The settings of this condition: those given, with its own objective, pose and seed.

        Unless a number of validation cases is given, there are none: what a table needs to know is
        measured on the held-out cases, and all others are there to train on.
        """
        own = {"objective": self.objective, "pose": self.pose}
        if self.objective == AS_PRINTED:
            printed = PRESETS["paper"].shape
            own["objective"] = printed.objective
            own |= {name: getattr(printed, name) for name in PRINTED_SETTINGS}
        segmentation = given.segmentation
        if segmentation.validation_cases is None:
            segmentation = segmentation.changed(validation_cases=0)
        return given.changed(
            seed=self.seed, shape=given.shape.changed(**own), segmentation=segmentation
        )


def _check_listed(name: str, found: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [one for one in found if one not in known]
    if unknown or not found or len(set(found)) < len(found):
        raise ConfigError(f"{name}: expected some of {', '.join(known)}, each once, found {found}")

"""What a training will be: what is looked at, which steps are taken, how long, how much memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from shapeguide.data.working_space import WorkingSpace
from shapeguide.training.durations import in_words
from shapeguide.training.settings.groups import TrainSettings

LONG_SECONDS = 8 * 3600
"""A training that takes longer is warned of."""
FULL_SHARE = 0.9
"""Share of the memory beyond which it may not do."""
TIMED_SHARE = 0.9
"""Share of a time budget that steps, preparing and validation may take: the rest is for what is
measured of trained models, and for what differs."""
WAYS_OUT = (
    "a coarser spacing (data.spacing_mm), a region (data.region), fewer channels "
    "(segmentation.channels) or a smaller batch (segmentation.batch_size)"
)
GIB = 2**30


@dataclass(frozen=True)
class PlannedStructure:
    """A structure as the training cases show it."""

    name: str
    mean_mm3: float
    """Mean volume in the cases that have it; 0 where none has."""
    cases: int
    """In how many it is."""


@dataclass(frozen=True)
class PlannedSteps:
    """Steps of one kind."""

    title: str
    iterations: int
    step_seconds: float
    peak_bytes: int | None = None
    """Most memory by their end, see `StageTiming`."""
    times: int = 1
    """How often so many are taken: once for each member."""

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.times * self.iterations * self.step_seconds


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do, and what it takes on this machine by a few timed steps."""

    dataset: str
    training_cases: int
    validation_cases: int
    settings: TrainSettings
    """Those that it will be done by."""
    space: WorkingSpace
    region: str
    """What is looked at, or why the scans are looked at whole, in words."""
    structures: tuple[PlannedStructure, ...]
    before: tuple[PlannedSteps, ...]
    """Stages before the segmentation, in their order."""
    plain: PlannedSteps
    """Iterations of the segmentation without guidance."""
    guided: PlannedSteps
    """Those with guidance, timed with an untrained guide where none is given; perhaps none."""
    preparing_seconds: float
    """Reading and preparing cases."""
    validation_seconds: float
    """One validation of the segmentation."""
    memory_bytes: int | None
    """What the machine, or its GPU, has."""
    trainings: int = 1
    """How many trainings follow each other: one for each structure, or one for all. Steps and
    times are those of the first, and `seconds` those of all."""

    @property
    def steps(self) -> tuple[PlannedSteps, ...]:
        """All steps that will be taken, in their order."""
        return tuple(one for one in (*self.before, self.plain, self.guided) if one.iterations)

    @property
    def validations(self) -> int:
        """Validations of the segmentation, of all members."""
        course = self.settings.segmentation
        each = ceil(course.iterations / course.validate_every) if self.validation_cases else 0
        return self.settings.members * each

    @property
    def seconds(self) -> float:
        """All stages together, without what is measured of trained models in the end."""
        steps = sum(one.seconds for one in self.steps)
        each = self.preparing_seconds + steps + self.validations * self.validation_seconds
        return self.trainings * each

    @property
    def peak_bytes(self) -> int | None:
        """Most memory that the steps took; None if unknown."""
        return max((one.peak_bytes for one in self.steps if one.peak_bytes), default=None)

    def iterations_within(self, budget_seconds: float) -> int:
        """Iterations of the segmentation that fit in a time beside all else; 0 or less if none."""
        course = self.settings.segmentation
        others = self.preparing_seconds + sum(one.seconds for one in self.before)
        each = (self.plain.seconds + self.guided.seconds) / course.iterations
        if self.validation_cases:
            validating = self.settings.members * self.validation_seconds
            others += validating
            each += validating / course.validate_every
        return int((TIMED_SHARE * budget_seconds - others) / each)

    def with_iterations(self, iterations: int) -> TrainingPlan:
        """The plan with so many iterations of the segmentation; as large a part is guided."""
        course = self.settings.segmentation
        later = round(iterations * course.suited().guided_iterations / course.iterations)
        guided = later if self.guided.iterations else 0
        course = course.changed(dice_iterations=iterations - later, guided_iterations=later)
        return replace(
            self,
            settings=self.settings.changed(segmentation=course),
            plain=replace(self.plain, iterations=iterations - guided),
            guided=replace(self.guided, iterations=guided),
        )

    @property
    def _of_each(self) -> tuple[str, ...]:
        told = f"{self.trainings} trainings, one for each structure; shown are the steps of one"
        return (told,) if self.trainings > 1 else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against starting, each with the ways out."""
        return warnings_of(self.seconds, self.peak_bytes, self.memory_bytes)

    def __str__(self) -> str:
        size = " x ".join(map(str, self.space.spatial_shape))
        spacing = " x ".join(f"{step:.3g}" for step in self.space.spacing_mm)
        lines = [
            f"{self.dataset}: {self.training_cases} cases to train on, {self.validation_cases} "
            "held out for validation",
            f"seen at once: {size} voxels of {spacing} mm",
            f"region: {self.region}",
            *self._of_each,
            "",
            *_aligned(
                [
                    ("structure", "mean volume", "in cases"),
                    *(_structure_row(structure) for structure in self.structures),
                ]
            ),
            "",
            *_aligned(
                [
                    ("steps", "iterations", "each", "together", "memory by then"),
                    *map(_steps_row, self.steps),
                    ("reading and preparing", "", "", in_words(self.preparing_seconds), ""),
                    (
                        "validation", str(self.validations), in_words(self.validation_seconds),
                        in_words(self.validations * self.validation_seconds), "",
                    ),
                ]
            ),
            "",
            f"in all about {in_words(self.seconds)} on this machine, and up to a tenth more for "
            f"measuring what was trained; memory {of_memory(self.peak_bytes, self.memory_bytes)}",
            *(f"warning: {warning}" for warning in self.warnings),
        ]  # fmt: skip
        return "\n".join(lines)


def warnings_of(seconds: float, peak_bytes: int | None, there_bytes: int | None) -> tuple[str, ...]:
    """What speaks against a training that takes so long and so much memory of what there is."""
    found: list[str] = []
    if seconds > LONG_SECONDS:
        found.append(
            f"this takes about {in_words(seconds)}; shorter are {WAYS_OUT}, or --time-budget 2h"
        )
    if peak_bytes and there_bytes and peak_bytes > FULL_SHARE * there_bytes:
        found.append(
            f"memory may not do: {of_memory(peak_bytes, there_bytes)}; less takes {WAYS_OUT}, or "
            "machine.activation_checkpoints"
        )
    return tuple(found)


def of_memory(peak_bytes: int | None, there_bytes: int | None) -> str:
    """Memory that was taken, of what there is, in words."""
    peak = "unknown" if peak_bytes is None else f"{peak_bytes / GIB:.1f} GiB"
    return peak if there_bytes is None else f"{peak} of {there_bytes / GIB:.1f} GiB"


def _structure_row(one: PlannedStructure) -> tuple[str, ...]:
    return one.name, f"{one.mean_mm3:,.0f} mm3", str(one.cases)


def _steps_row(one: PlannedSteps) -> tuple[str, ...]:
    memory = "" if one.peak_bytes is None else f"{one.peak_bytes / GIB:.1f} GiB"
    together = in_words(one.seconds)
    iterations = str(one.iterations) if one.times == 1 else f"{one.times} x {one.iterations}"
    return one.title, iterations, in_words(one.step_seconds), together, memory


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of a table, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

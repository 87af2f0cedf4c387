"""The command that trains; its options that are not about files come from `TrainSettings`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

import shapeguide as sg
from shapeguide.commands.arguments import (
    CaseChoice,
    OptionalPath,
    Structures,
    parse_structures,
)
from shapeguide.commands.options import setting_options, settings_of
from shapeguide.commands.terminal import tell
from shapeguide.training.durations import seconds_of
from shapeguide.training.settings.groups import TrainSettings

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class _Train:
    """Train a segmenter and what guides it; the same command resumes a run that was stopped."""

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """A dataset.json, a table of cases (.csv, .tsv), or a folder in a known layout or with --images
    and --labels."""
    out: Annotated[Path, arg(metavar="RUN")]
    """Run folder: settings, log, model."""
    structure: Structures = ()
    """A structure and its label ids, such as hippocampus=1,2; without any, those that the dataset
    names."""
    cases: OmitArgPrefixes[CaseChoice] = field(default_factory=CaseChoice)
    label_pool: OptionalPath = None
    """Label maps without images, of which shapes are learned too: a folder of them, or a pattern
    such as 'maps/*_seg.nii.gz'."""
    pool_structure: Annotated[Structures, arg(name="pool-structure", metavar="NAME=IDS")] = ()
    """A structure and its label ids in the pool, where they are others than in the dataset."""
    shape_network: Annotated[OptionalPath, arg(metavar="RUN")] = None
    """A finished run whose shape network guides this one too."""
    time_budget: Annotated[str | None, arg(metavar="30m")] = None
    """How long all may take on this machine, such as 45s, 30m or 1h30m: it decides how many
    iterations the segmentation has, and where few would fit halves its channels."""
    dry_run: bool = False
    """Only tell what would be done, what it takes in time and memory by a few timed steps, and
    write nothing into the run folder."""
    overwrite: bool = False
    """Delete what an older run has written into the folder first; all else in it stays."""

    @property
    def settings(self) -> TrainSettings:
        """The preset and what the options change of it."""
        return settings_of(self)

    def run(self) -> int:
        """Train, and tell what was made and what to do with it."""
        settings, structures = self.settings, parse_structures(self.structure)
        if self.time_budget is not None:
            seconds_of(self.time_budget)  # what is mistyped is said at once
        train, test = self.cases.read(self.dataset)
        if structures:
            train = train.with_structures(**structures)
        train.require_structures()  # before torch is loaded, which takes seconds
        if self.label_pool is not None:
            named = parse_structures(self.pool_structure)
            train = train.with_label_pool(self.label_pool, **named)
        if self.dry_run:
            made = sg.plan(
                train,
                settings,
                shape_network=self.shape_network,
                time_budget=self.time_budget,
            )
            tell(str(made))
            return 0
        sg.train(
            train,
            test=test,
            out=self.out,
            settings=settings,
            shape_network=self.shape_network,
            time_budget=self.time_budget,
            overwrite=self.overwrite,
        )
        self._tell_of_the_run(train, test)
        return 0

    def _tell_of_the_run(self, train: Dataset, test: Dataset | None) -> None:
        from shapeguide.workflows.train import read_outcome

        outcome = read_outcome(self.out)
        names = ", ".join(structure.name for structure in train.all_structures)
        tell(f"{names}: model in {self.out}")
        found = "none held out for validation"
        if outcome.validation_dice is not None:
            more = len(train) - outcome.training_cases
            found = (
                f"mean Dice {outcome.validation_dice:.3f} on {more} more, held out for validation"
            )
        tell(f"trained on {outcome.training_cases} cases; {found}")
        scans = "SCAN..."
        if test is not None:
            tell(f"{len(test)} cases were kept for testing, and no training saw them")
            scans = shlex.quote(str(self.dataset))
        tell(f"next: shapeguide predict {shlex.quote(str(self.out))} {scans} --out predictions")


def train_command(arguments: Sequence[str]) -> type[_Train]:
    """The train command with the options of `TrainSettings`."""
    options = setting_options(arguments)
    made = make_dataclass("Train", options, bases=(_Train,), frozen=True, kw_only=True)
    made.__doc__ = _Train.__doc__
    return made

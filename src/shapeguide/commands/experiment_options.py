"""What the experiments share on the command line: their options, and what they print in the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from shapeguide.commands.arguments import (
    CaseChoice,
    Structures,
    parse_structures,
)
from shapeguide.commands.options import setting_options, settings_of
from shapeguide.commands.terminal import complain, print_table, tell
from shapeguide.errors import ConfigError
from shapeguide.studies.systems.design import (
    REGIMES,
    WEIGHTS,
    Table2Design,
)
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.vocabulary import CORRUPTIONS, SEVERITIES, WeightsName

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset
    from shapeguide.studies.systems.engine import Table2 as Table2Result

CHOSEN_BY_CELL = ("seed", "guidance")
"""Settings that an experiment varies by itself, so that they are no options of it."""


@dataclass(frozen=True, kw_only=True)
class ExperimentOnCases:
    """What all experiments take that train on cases and measure on others."""

    dataset: Positional[Path]
    """A dataset.json, or a folder in a known layout."""
    out: Path
    """Results folder; the same command goes on where a stopped one ended."""
    structure: Structures = ()
    """A structure and its label ids, such as hippocampus=1,2."""
    cases: OmitArgPrefixes[CaseChoice] = field(default_factory=CaseChoice)

    given: ClassVar[tuple[str, ...]] = ()
    """The arguments as they were given."""
    varied: ClassVar[dict[str, str]] = {}
    """Options of settings that the experiment varies itself, and what does it."""

    @property
    def settings(self) -> TrainSettings:
        """The preset and what the options change of it.

        Raises:
            ConfigError: If an option is given that would change nothing.
        """
        words = {word.partition("=")[0].replace("_", "-") for word in self.given}
        for option, instead in self.varied.items():
            if option in words:
                raise ConfigError(f"{option} would change nothing: {instead}")
        return settings_of(self)

    def read_cases(self) -> tuple[Dataset, Dataset]:
        """Training cases and held-out cases, with the structures that were given.

        Raises:
            ConfigError: If nothing says which cases are held out.
        """
        train, test = self.cases.read(self.dataset)
        if test is None:
            raise ConfigError(
                f"{self.dataset}: an experiment measures on cases that it does not train on; "
                "choose them by --split, --fold or --test-count"
            )
        structures = parse_structures(self.structure)
        if structures:
            train, test = (part.with_structures(**structures) for part in (train, test))
        return train, test


@dataclass(frozen=True, kw_only=True)
class ExperimentInCells(ExperimentOnCases):
    """What the experiments take that train many systems and test them on the same images."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the trainings, of few labelled cases and of degraded images."""
    regimes: Annotated[tuple[str, ...], arg(metavar="{all,few5,few3} ...")] = REGIMES
    """All labelled training cases, or few and any number of them, drawn by the seed."""
    corruptions: Annotated[tuple[str, ...], arg(metavar=f"{{{','.join(CORRUPTIONS)}}} ...")] = (
        CORRUPTIONS
    )
    """How test images are degraded; clean ones are always tested."""
    severities: tuple[int, ...] = SEVERITIES
    """How much: 1 mild to 3 severe."""
    weights: tuple[WeightsName, ...] = WEIGHTS
    """Weights that are tested: their average over the iterations, the last, or the best ones."""
    jobs: int = 1
    """Cells that are worked on at a time, each in its own process."""
    only: Annotated[str | None, arg(metavar="REGIME/SEED/SYSTEM")] = None
    """Do this one cell, with what it branches from; a finished one stays as it is until its folder
    is deleted."""

    varied: ClassVar[dict[str, str]] = {
        "--segmenter": "the systems of the table say it, chosen by --systems, as in vnet"
    }

    def design(self) -> Table2Design:
        """What is compared, apart from the systems."""
        return Table2Design(
            seeds=self.seeds,
            regimes=self.regimes,
            corruptions=self.corruptions,
            severities=self.severities,
            weights=self.weights,
        )

    def show(self, found: Table2Result) -> int:
        """Print means, seconds and failures."""
        from shapeguide.studies.systems.words import cell_rows, summary_rows

        print_table("means, largest component kept", summary_rows(found.summary))
        print_table("seconds", cell_rows(found.cells))
        words = [word for word in self.given if not word.startswith("--only=")]
        if "--only" in words:
            place = words.index("--only")
            del words[place : place + 2]
        tell(f"one cell again: shapeguide experiment {shlex.join(words)} --only CELL")
        if found.not_shown:
            tell(f"{found.not_shown} more finished cells of the folder were not asked for now")
        for name, reason in found.failures.items():
            complain(f"{name}: {reason}")
        tell(f"tables and figures: {found.folder}")
        return 0 if found.complete else 1


def with_settings(kind: type[Any]) -> Callable[[Sequence[str]], type[Any]]:
    """The command class with the options of `TrainSettings`, at the preset the arguments name."""

    def made_for(arguments: Sequence[str]) -> type[Any]:
        options = [one for one in setting_options(arguments) if one[0] not in CHOSEN_BY_CELL]
        made = make_dataclass(kind.__name__, options, bases=(kind,), frozen=True, kw_only=True)
        made.__doc__ = kind.__doc__
        made.given = tuple(arguments)  # type: ignore[attr-defined]
        return made

    return made_for

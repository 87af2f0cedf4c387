"""The experiments: `shapeguide experiment table1 ...` and what else follows that word.

An experiment that trains takes all options of `TrainSettings`, as `train` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from tyro.conf import Positional, arg, subcommand

from shapeguide.commands.arguments import (
    CaseChoice,
    Structures,
    parse_structures,
    setting_options,
)
from shapeguide.commands.terminal import print_table, tell
from shapeguide.errors import ConfigError
from shapeguide.training.config import TrainSettings, build

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset

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
    cases: Annotated[CaseChoice, arg(name="")] = field(default_factory=CaseChoice)

    @property
    def settings(self) -> TrainSettings:
        """The preset and what the options change of it."""
        names = [name for name in TrainSettings.model_fields if name not in CHOSEN_BY_CELL]
        return build(TrainSettings, {name: getattr(self, name) for name in names})

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
class Table1(ExperimentOnCases):
    """Table 1: how well shape distances tell held-out people apart, by objective and pose.

    The objective, the pose and the seed of the settings are those of each cell of the table.
    """

    objectives: tuple[str, ...] = ()
    """Objectives to compare; all of them when not given."""
    poses: tuple[str, ...] = ("grid", "canonical")
    """Poses to compare."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings."""
    pairs: int = 200
    """Affine pairs of either kind that the figures are over."""

    def run(self) -> int:
        """Train and measure every cell that is not finished, and print the table."""
        from shapeguide.experiments.table1 import OBJECTIVES, Table1Design, table1

        train, test = self.read_cases()
        design = Table1Design(
            objectives=self.objectives or OBJECTIVES,
            poses=self.poses,
            seeds=self.seeds,
            pairs=self.pairs,
        )
        found = table1(train, test, out=self.out, settings=self.settings, design=design)
        print_table("shape distances between held-out cases", found.rows())
        tell(f"tables and figures: {self.out}")
        return 0


@dataclass(frozen=True)
class Findings:
    """Renew the tables of the findings page from results folders; its prose stays as it is."""

    results: Annotated[Positional[tuple[Path, ...]], arg(metavar="RESULTS [RESULTS ...]")]
    """Results folders of experiments; a block of the page names one by its folder's name."""
    out: Path = Path("docs/findings.md")
    """The page, in which marked blocks are replaced."""

    def run(self) -> int:
        """Replace the blocks."""
        from shapeguide.experiments.findings import renew_findings

        blocks = renew_findings(self.out, self.results)
        tell(f"{blocks} tables of {self.out} stand as the results say")
        return 0


def with_settings(kind: type[Any]) -> Callable[[Sequence[str]], type[Any]]:
    """The command class with the options of `TrainSettings`, at the preset the arguments name."""

    def made_for(arguments: Sequence[str]) -> type[Any]:
        options = [one for one in setting_options(arguments) if one[0] not in CHOSEN_BY_CELL]
        made = make_dataclass(kind.__name__, options, bases=(kind,), frozen=True, kw_only=True)
        made.__doc__ = kind.__doc__
        return made

    return made_for


EXPERIMENTS: dict[str, Callable[[Sequence[str]], type[Any]]] = {
    "table1": with_settings(Table1),
    "findings": lambda _: Findings,
}
"""First word to the class that parses the others."""


def experiment_command(arguments: Sequence[str]) -> type[Any]:
    """The union of all experiments, which the parser tells apart by the first word."""
    kinds = tuple(
        Annotated[kind(arguments), subcommand(name)] for name, kind in EXPERIMENTS.items()
    )
    union: Any = Union[kinds]  # noqa: UP007 - made from a tuple
    return union  # type: ignore[no-any-return]

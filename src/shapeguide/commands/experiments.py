"""The experiments: `shapeguide experiment table1 ...` and what else follows that word.

An experiment that trains takes all options of `TrainSettings`, as `train` does.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from tyro.conf import Positional, arg, subcommand

from shapeguide.commands.arguments import (
    CaseChoice,
    Structures,
    parse_structures,
    setting_options,
)
from shapeguide.commands.terminal import complain, print_table, tell
from shapeguide.errors import ConfigError
from shapeguide.experiments.table1_design import OBJECTIVES, POSES, Table1Design
from shapeguide.experiments.table2.design import (
    CORRUPTIONS,
    REGIMES,
    SEVERITIES,
    WEIGHTS,
    Table2Design,
    Weights,
)
from shapeguide.experiments.table2.factors import GuidanceFactors
from shapeguide.experiments.table2.systems import SYSTEMS, systems_named
from shapeguide.training.config import TrainSettings, build

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset
    from shapeguide.experiments.table2.engine import Table2 as Table2Result

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
    """Table 1: how well shape distances tell held-out people apart, by objective and pose."""

    varied: ClassVar[dict[str, str]] = {
        "--shape.objective": "the objectives of the table are chosen by --objectives",
        "--shape.pose": "the poses of the table are chosen by --poses",
    }

    objectives: Annotated[tuple[str, ...], arg(metavar=f"{{{','.join(OBJECTIVES)}}} ...")] = (
        OBJECTIVES
    )
    """Objectives to compare; the first has the schedule that the paper prints."""
    poses: Annotated[tuple[str, ...], arg(metavar=f"{{{','.join(POSES)}}} ...")] = POSES
    """Poses to compare."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings."""
    pairs: int = 200
    """Affine pairs of either kind that the figures are over."""

    def run(self) -> int:
        """Train and measure every cell that is not finished, and print the table."""
        from shapeguide.experiments.table1 import table1

        train, test = self.read_cases()
        design = Table1Design(
            objectives=self.objectives,
            poses=self.poses,
            seeds=self.seeds,
            pairs=self.pairs,
        )
        found = table1(train, test, out=self.out, settings=self.settings, design=design)
        print_table("shape distances between held-out cases", found.rows())
        tell(f"tables and figures: {self.out}")
        return 0


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
    weights: tuple[Weights, ...] = WEIGHTS
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
        from shapeguide.experiments.table2.words import cell_rows, summary_rows

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


@dataclass(frozen=True, kw_only=True)
class Table2(ExperimentInCells):
    """Table 2: systems by structures by seeds by regimes, compared in pairs with the plain U-Net.

    Every prediction is scored as it comes and with its largest component kept. Those of segmenters
    that shape guides or nothing are scored once more, restored by a shape restorer that learns from
    the label maps that the system may see, and those of plain also by one that learns from all
    label maps; those of plain, srn and srn_all_maps restored by SRN's autoencoder. After either,
    the largest component is kept. Summary and comparisons name them plain+restorer,
    plain+restorer_all_maps, plain+srn and so on. --restorer.iterations 0 leaves the restorer out.

    """

    systems: Annotated[tuple[str, ...], arg(metavar=f"{{{','.join(SYSTEMS)}}} ...")] = tuple(
        SYSTEMS
    )
    """What is trained and compared; also another segmenter and its guidance, as in vnet_shape, and
    a rival whose gradient is held to alpha like that of shape, as in acnn_balanced."""
    keep_predictions: bool = False
    """Also write the label maps of the test cases."""

    def run(self) -> int:
        """Do what is not finished, and print the table."""
        from shapeguide.experiments.table2.engine import table2

        train, test = self.read_cases()
        found = table2(
            train,
            test,
            out=self.out,
            settings=self.settings,
            design=replace(self.design(), systems=systems_named(self.systems)),
            jobs=self.jobs,
            only=self.only,
            keep_predictions=self.keep_predictions,
        )
        return self.show(found)


@dataclass(frozen=True, kw_only=True)
class Guidance(ExperimentInCells):
    """How the shape loss should enter: its weight, cap, balance, ramp and start, each with each.

    As they stand, the levels make 48 systems for each regime and seed.
    """

    varied: ClassVar[dict[str, str]] = {
        "--segmenter": "it is the 3D U-Net; other segmenters are systems of table2, as vnet_shape",
        "--alpha": "its levels are chosen by --alphas",
        "--cap-form": "its levels are chosen by --cap-forms",
        "--balance": "its levels are chosen by --balances",
        "--ramp-iterations": "its levels are chosen by --ramps",
    }

    alphas: tuple[float, ...] = GuidanceFactors.alphas
    """Weights of the shape loss."""
    cap_forms: tuple[Literal["hard", "smooth"], ...] = GuidanceFactors.cap_forms
    """Forms of the cap."""
    balances: tuple[Literal["none", "gradient"], ...] = GuidanceFactors.balances
    """Whether alpha is relative to the gradient of the Dice loss."""
    ramps: tuple[float, ...] = GuidanceFactors.ramps
    """Shares of the guided iterations over which the weight grows to alpha."""
    starts: tuple[float, ...] = GuidanceFactors.starts
    """Shares of the Dice iterations that are left to Dice alone: with 0 the guidance sets in at the
    first iteration, with 1 where the settings say. All train equally long."""

    def run(self) -> int:
        """Do what is not finished, and print the table and the main effects."""
        from shapeguide.experiments.table2.factorial import guidance
        from shapeguide.experiments.table2.words import effect_rows

        train, test = self.read_cases()
        found = guidance(
            train,
            test,
            out=self.out,
            settings=self.settings,
            design=self.design(),
            factors=GuidanceFactors(
                self.alphas, self.cap_forms, self.balances, self.ramps, self.starts
            ),
            jobs=self.jobs,
            only=self.only,
        )
        print_table("main effects: difference to the plain system", effect_rows(found.effects))
        return self.show(found.table)


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
        made.given = tuple(arguments)  # type: ignore[attr-defined]
        return made

    return made_for


EXPERIMENTS: dict[str, Callable[[Sequence[str]], type[Any]]] = {
    "table1": with_settings(Table1),
    "table2": with_settings(Table2),
    "guidance": with_settings(Guidance),
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

"""The experiments: `shapeguide experiment table1 ...` and what else follows that word.

An experiment that trains takes all options of `TrainSettings`, as `train` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Union

from tyro.conf import Positional, arg, subcommand

from shapeguide.commands.experiment_options import (
    ExperimentInCells,
    ExperimentOnCases,
    with_settings,
)
from shapeguide.commands.terminal import print_table, tell
from shapeguide.studies.separation.design import OBJECTIVES, Table1Design
from shapeguide.studies.systems.factors import GuidanceFactors
from shapeguide.studies.systems.systems import SYSTEMS, systems_named
from shapeguide.vocabulary import POSES, Balance, CapForm


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
        from shapeguide.studies.separation.table1 import table1

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
        from shapeguide.studies.systems.engine import table2

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
    cap_forms: tuple[CapForm, ...] = GuidanceFactors.cap_forms
    """Forms of the cap."""
    balances: tuple[Balance, ...] = GuidanceFactors.balances
    """Whether alpha is relative to the gradient of the Dice loss."""
    ramps: tuple[float, ...] = GuidanceFactors.ramps
    """Shares of the guided iterations over which the weight grows to alpha."""
    starts: tuple[float, ...] = GuidanceFactors.starts
    """Shares of the Dice iterations that are left to Dice alone: with 0 the guidance sets in at the
    first iteration, with 1 where the settings say. All train equally long."""

    def run(self) -> int:
        """Do what is not finished, and print the table and the main effects."""
        from shapeguide.studies.systems.factorial import guidance
        from shapeguide.studies.systems.words import effect_rows

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
        from shapeguide.studies.findings import renew_findings

        blocks = renew_findings(self.out, self.results)
        tell(f"{blocks} tables of {self.out} stand as the results say")
        return 0


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

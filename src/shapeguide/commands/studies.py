"""The studies: `shapeguide study separation ...` and what else follows that word.

A study trains, so it takes all options of `TrainSettings`, as `train` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union

from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from shapeguide.cells import Workers
from shapeguide.commands.arguments import CaseChoice, Structures, parse_structures
from shapeguide.commands.options import SHORT_GROUPS, setting_options, settings_of
from shapeguide.commands.terminal import complain, print_table, tell
from shapeguide.errors import ConfigError
from shapeguide.studies.controls.design import ControlsDesign
from shapeguide.studies.separation.design import SeparationDesign
from shapeguide.studies.systems.design import REGIMES, WEIGHTS, SystemsDesign
from shapeguide.studies.systems.systems import SYSTEMS, GuidanceFactors, systems_named
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.vocabulary import CORRUPTIONS, SEVERITIES, WeightsName

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset
    from shapeguide.studies.systems.study import SystemsResult

CHOSEN_BY_CELL = ("seed", "guidance")
"""Settings that a study varies by itself, so that they are no options of it."""


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What all studies take: cases to train on, cases to measure on, and where cells run."""

    dataset: Positional[Path]
    """A dataset.json, a table of cases (.csv, .tsv), or a folder in a known layout or with --images
    and --labels."""
    out: Path
    """Results folder; the same command goes on where a stopped one ended."""
    structure: Structures = ()
    """A structure and its label ids, such as hippocampus=1,2."""
    cases: OmitArgPrefixes[CaseChoice] = field(default_factory=CaseChoice)
    workers: OmitArgPrefixes[Workers] = field(default_factory=Workers)

    varied: ClassVar[dict[str, str]] = {}
    """Settings that the study varies itself, by group and name, and what says how."""

    @property
    def settings(self) -> TrainSettings:
        """The preset and what the options change of it.

        Raises:
            ConfigError: If an option is given that would change nothing.
        """
        settings = settings_of(self)
        for path, instead in self.varied.items():
            group, _, name = path.partition(".")
            if _value(settings, path) != _value(preset(settings.preset), path):
                option = (name if group in SHORT_GROUPS else path).replace("_", "-")
                raise ConfigError(f"--{option} would change nothing: {instead}")
        return settings

    def read_cases(self) -> tuple[Dataset, Dataset]:
        """Training cases and held-out cases, with the structures that were given.

        Raises:
            ConfigError: If nothing says which cases are held out.
        """
        train, test = self.cases.read(self.dataset)
        if test is None:
            raise ConfigError(
                f"{self.dataset}: a study measures on cases that it does not train on; choose them "
                "by --split, --fold or --test-count"
            )
        structures = parse_structures(self.structure)
        if structures:
            train, test = (part.with_structures(**structures) for part in (train, test))
        return train, test

    def tell_of(
        self, title: str, rows: Sequence[Sequence[str]], failures: Mapping[str, str]
    ) -> int:
        """Print a table, what failed, and where all lies; the exit code."""
        print_table(title, rows)
        for name, reason in failures.items():
            complain(f"{name}: {reason}")
        tell(f"tables and figures: {self.out}")
        return 1 if failures else 0


@dataclass(frozen=True, kw_only=True)
class Separation(_Study):
    """How well shape distances tell held-out people apart, by objective and pose: table 1."""

    varied: ClassVar[dict[str, str]] = {
        "shape.objective": "the objectives of the table are chosen by --objectives",
        "shape.pose": "the poses of the table are chosen by --poses",
    }

    design: OmitArgPrefixes[SeparationDesign] = field(default_factory=SeparationDesign)

    def run(self) -> int:
        """Train and measure every cell that is not finished, and print the table."""
        from shapeguide.studies.separation.study import study_separation
        from shapeguide.studies.text import separation_rows

        train, test = self.read_cases()
        found = study_separation(
            train,
            test,
            out=self.out,
            settings=self.settings,
            design=self.design,
            workers=self.workers,
        )
        title = "shape distances between held-out cases"
        return self.tell_of(title, separation_rows(found.measured), found.failures)


@dataclass(frozen=True, kw_only=True)
class Controls(_Study):
    """What the paper's table 1 means: the shape network as printed, and what needs no training.

    Every reading of how its pairs were made, on people of the training and on others: warps about
    the object or the grid, translations, heads that lie off, binary and soft maps, levels, with
    normalisation; beside it g before training and no network at all.
    """

    varied: ClassVar[dict[str, str]] = {
        "warp.centre": "what warps turn about is chosen by --centres",
        "warp.translation_mm": "translations are chosen by --translations-mm",
        "shape.channels": "levels are chosen by --levels",
        **dict.fromkeys(
            (
                *("shape.objective", "shape.maps", "shape.pose", "shape.normalised"),
                *("shape.batch_size", "shape.learning_rate", "shape.decay"),
            ),
            "the shape network is that of the paper, and the study varies it itself",
        ),
    }

    design: OmitArgPrefixes[ControlsDesign] = field(default_factory=ControlsDesign)

    def run(self) -> int:
        """Measure every setting that is not measured, and print the means."""
        from shapeguide.studies.controls.study import study_controls
        from shapeguide.studies.text import control_rows

        train, test = self.read_cases()
        found = study_controls(
            train,
            test,
            out=self.out,
            settings=self.settings,
            design=self.design,
            workers=self.workers,
        )
        title = "ratio of distances between two people and one"
        return self.tell_of(title, control_rows(found.summary), found.failures)


@dataclass(frozen=True, kw_only=True)
class _OnImages(_Study):
    """What the studies take that train many systems and test them on the same images."""

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
    only: Annotated[str | None, arg(metavar="REGIME/SEED/SYSTEM")] = None
    """Do this one cell, with what it branches from; a finished one stays as it is until its folder
    is deleted."""

    varied: ClassVar[dict[str, str]] = {
        "segmentation.segmenter": "the systems of the table say it, chosen by --systems, as in vnet"
    }

    def design(self) -> SystemsDesign:
        """What is compared, apart from the systems."""
        return SystemsDesign(
            seeds=self.seeds,
            regimes=self.regimes,
            corruptions=self.corruptions,
            severities=self.severities,
            weights=self.weights,
        )

    def show(self, found: SystemsResult) -> int:
        """Print means, seconds and failures."""
        from shapeguide.studies.text import cell_rows, summary_rows

        print_table("means, largest component kept", summary_rows(found.summary))
        print_table("seconds", cell_rows(found.cells))
        tell("one cell again: delete its folder, and add --only CELL to this command")
        if found.not_shown:
            tell(f"{found.not_shown} more finished cells of the folder were not asked for now")
        for name, reason in found.failures.items():
            complain(f"{name}: {reason}")
        tell(f"tables and figures: {found.folder}")
        return 0 if found.complete else 1


@dataclass(frozen=True, kw_only=True)
class Systems(_OnImages):
    """Systems by structures by seeds by regimes, compared in pairs with the plain U-Net: table 2.

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
    """What is trained and compared; also published and published_plain, the paper's own; another
    segmenter and its guidance, as in vnet_shape; and a rival whose gradient is held to alpha like
    that of shape, as in acnn_balanced."""
    keep_predictions: bool = False
    """Also write the label maps of the test cases, and pictures of the best, the median and the
    worst of them, with the contours and surfaces of the first systems."""

    def run(self) -> int:
        """Do what is not finished, and print the table."""
        from shapeguide.studies.systems.study import study_systems

        train, test = self.read_cases()
        found = study_systems(
            train,
            test,
            out=self.out,
            settings=self.settings,
            design=replace(self.design(), systems=systems_named(self.systems)),
            workers=self.workers,
            only=self.only,
            keep_predictions=self.keep_predictions,
        )
        return self.show(found)


@dataclass(frozen=True, kw_only=True)
class Guidance(_OnImages):
    """How the shape loss should enter: its weight, cap, balance, ramp and start, each with each.

    As they stand, the levels make 48 systems for each regime and seed.
    """

    varied: ClassVar[dict[str, str]] = {
        "segmentation.segmenter": "it is the 3D U-Net; others are systems of `study systems`, as in"
        " vnet_shape",
        "shape_loss.alpha": "its levels are chosen by --alphas",
        "shape_loss.cap_form": "its levels are chosen by --cap-forms",
        "shape_loss.balance": "its levels are chosen by --balances",
        "shape_loss.ramp_iterations": "its levels are chosen by --ramps",
    }

    factors: OmitArgPrefixes[GuidanceFactors] = field(default_factory=GuidanceFactors)

    def run(self) -> int:
        """Do what is not finished, and print the table and the main effects."""
        from shapeguide.studies.systems.factorial import study_guidance
        from shapeguide.studies.text import effect_rows

        train, test = self.read_cases()
        found = study_guidance(
            train,
            test,
            out=self.out,
            settings=self.settings,
            design=self.design(),
            factors=self.factors,
            workers=self.workers,
            only=self.only,
        )
        print_table("main effects: difference to the plain system", effect_rows(found.effects))
        return self.show(found.table)


def _with_settings(kind: type[Any]) -> Callable[[Sequence[str]], type[Any]]:
    """The command class with the options of `TrainSettings`, at the preset the arguments name."""

    def made_for(arguments: Sequence[str]) -> type[Any]:
        options = [one for one in setting_options(arguments) if one[0] not in CHOSEN_BY_CELL]
        made = make_dataclass(kind.__name__, options, bases=(kind,), frozen=True, kw_only=True)
        made.__doc__ = kind.__doc__
        return made

    return made_for


STUDIES: dict[str, Callable[[Sequence[str]], type[Any]]] = {
    "separation": _with_settings(Separation),
    "controls": _with_settings(Controls),
    "systems": _with_settings(Systems),
    "guidance": _with_settings(Guidance),
}
"""First word to the class that parses the others."""


def study_command(arguments: Sequence[str]) -> type[Any]:
    """The union of all studies, which the parser tells apart by the first word."""
    kinds = tuple(Annotated[kind(arguments), subcommand(name)] for name, kind in STUDIES.items())
    union: Any = Union[kinds]  # noqa: UP007 - made from a tuple
    return union  # type: ignore[no-any-return]


def _value(settings: TrainSettings, path: str) -> Any:
    return reduce(getattr, path.split("."), settings)

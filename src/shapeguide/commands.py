"""The commands: the fields of each class are its arguments, `run` makes one public call and prints.

The options of `train` that are not about files come from `TrainSettings` itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from tyro.conf import Positional, arg

import shapeguide as sg
from shapeguide.arguments import (
    CaseChoice,
    OptionalPath,
    Structures,
    parse_structures,
    read_dataset,
    setting_options,
)
from shapeguide.errors import ConfigError
from shapeguide.training.config import TrainSettings, build

DONE, INCOMPLETE = 0, 1


class Command(Protocol):
    """What every command class has."""

    def run(self) -> int:
        """Do it, print the result, and return the exit code."""
        ...


def run(name: str, arguments: Sequence[str]) -> int:
    """Parse the arguments of a command and run it.

    Returns:
        0, or 1 when some cases failed.

    Raises:
        SystemExit: After help, or when the arguments cannot be parsed.
        ShapeguideError: If the command refuses.
    """
    _show_log()
    return parse(name, arguments).run()


def parse(name: str, arguments: Sequence[str]) -> Command:
    """Parse the arguments of a command without running it.

    Raises:
        SystemExit: After help, or when the arguments cannot be parsed.
        ConfigError: If a setting is out of range.
    """
    command = COMMANDS[name](arguments)
    try:
        return tyro.cli(
            command,
            args=arguments,
            prog=f"shapeguide {name}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValidationError as error:
        raise ConfigError(_faults(error)) from error


@dataclass(frozen=True)
class Describe:
    """Write the description of a folder of scans and label maps (a Decathlon dataset.json).

    Knows Decathlon, nnU-Net v2, BIDS derivatives and LPBA40 folders.
    """

    folder: Positional[Path]
    out: Path = Path("dataset.json")
    """The description to write."""
    overwrite: bool = False
    """Replace an older description."""

    def run(self) -> int:
        """Describe the folder."""
        _refuse_existing(self.out, self.overwrite)
        sg.describe(self.folder, self.out)
        _tell(f"{len(sg.read_dataset(self.out))} cases described in {self.out}")
        return DONE


@dataclass(frozen=True)
class Synthesize:
    """Write a synthetic cohort: label maps of varying shape inside images that hide them."""

    out: Positional[Path]
    """Folder to write, in the Decathlon layout."""
    cases: int = 40
    seed: int = 0
    spatial_shape: tuple[int, int, int] = (48, 48, 48)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shape: Literal["horn", "comma"] = "horn"
    """A hippocampus-like horn or a caudate-like comma."""
    overwrite: bool = False
    """Write into a folder that is there already."""

    def run(self) -> int:
        """Write the cohort."""
        _refuse_existing(self.out, self.overwrite)
        description = sg.write_cohort(
            self.out,
            count=self.cases,
            seed=self.seed,
            spatial_shape=self.spatial_shape,
            spacing_mm=self.spacing_mm,
            shape=self.shape,
        )
        _tell(f"{self.cases} cases described in {description}")
        return DONE


@dataclass(frozen=True, kw_only=True)
class _Train:
    """Train a shape network and a segmenter; the same command resumes a run that was stopped."""

    dataset: Positional[Path]
    """A dataset.json, or a folder in a known layout."""
    out: Path
    """Run folder: settings, log, model."""
    structure: Structures = ()
    """A structure and its label ids, such as hippocampus=1,2."""
    cases: Annotated[CaseChoice, arg(name="")] = field(default_factory=CaseChoice)
    shape_network: OptionalPath = None
    """A finished run whose shape network guides this one too."""
    overwrite: bool = False
    """Delete an older run in the folder first."""

    @property
    def settings(self) -> TrainSettings:
        """The preset and what the options change of it."""
        return build(
            TrainSettings, {name: getattr(self, name) for name in TrainSettings.model_fields}
        )

    def run(self) -> int:
        """Train both stages."""
        train, test = self.cases.apply(read_dataset(self.dataset, self.structure))
        sg.train(
            train,
            out=self.out,
            settings=self.settings,
            shape_network=sg.load_shape_network(self.shape_network) if self.shape_network else None,
        )
        _tell(f"trained on {len(train)} cases; run folder: {self.out}")
        if test is not None:
            _tell(f"{len(test)} cases were kept for testing")
        return DONE


@dataclass(frozen=True)
class Evaluate:
    """Score label maps against references, per case and in summary."""

    predictions: Positional[Path]
    """Folder of label maps, named by case."""
    references: Positional[Path]
    """Folder of label maps, or a dataset."""
    structure: Structures = ()
    """A structure and its label ids, such as hippocampus=1,2."""
    out: Path = Path("scores.csv")
    """Table with a row for each case and structure."""
    against: OptionalPath = None
    """Other predictions of the same cases, compared case by case."""
    overwrite: bool = False
    """Replace an older table."""

    def run(self) -> int:
        """Score, and print the summary."""
        from shapeguide.metrics.tables import comparison_rows, summary_rows

        _refuse_existing(self.out, self.overwrite)
        found = sg.evaluate(
            self.predictions,
            self.references,
            tuple(
                sg.Structure(name, ids) for name, ids in parse_structures(self.structure).items()
            ),
            out=self.out,
            against=self.against,
        )
        _print_table("scores", summary_rows(found.summary))
        if found.comparison is not None:
            title = f"{self.predictions} (first) against {self.against} (second)"
            _print_table(title, comparison_rows(found.comparison))
        for trouble in found.troubles:
            _complain(f"{trouble.case}: {trouble.reason}")
        if found.missing:
            _complain(f"no prediction for {len(found.missing)} cases: {', '.join(found.missing)}")
        _tell(f"scores of each case: {self.out}")
        return DONE if found.complete else INCOMPLETE


def _train_command(arguments: Sequence[str]) -> type[Command]:
    made = make_dataclass(
        "Train", setting_options(arguments), bases=(_Train,), frozen=True, kw_only=True
    )
    made.__doc__ = _Train.__doc__
    return made


COMMANDS: dict[str, Callable[[Sequence[str]], type[Command]]] = {
    "describe": lambda _: Describe,
    "synthesize": lambda _: Synthesize,
    "train": _train_command,
    "evaluate": lambda _: Evaluate,
}


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already; choose another path or add --overwrite")


def _faults(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        option = ".".join(str(part) for part in fault["loc"]).replace("_", "-")
        lines.append(f"--{option} {fault['input']}: {fault['msg']}")
    return "; ".join(lines)


def _show_log() -> None:
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("shapeguide").setLevel(logging.INFO)


def _tell(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _complain(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def _print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)

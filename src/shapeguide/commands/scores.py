"""The command that scores predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

import shapeguide as sg
from shapeguide.commands.arguments import (
    CaseChoice,
    OptionalPath,
    Structures,
    parse_structures,
    refuse_existing,
    refuse_missing,
)
from shapeguide.commands.terminal import complain, print_table, tell

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset


@dataclass(frozen=True)
class Evaluate:
    """Score label maps against references, per case and in summary."""

    predictions: Annotated[Positional[Path], arg(metavar="PREDICTIONS")]
    """Folder of label maps, named by case."""
    references: Annotated[Positional[Path], arg(metavar="REFERENCES")]
    """Folder of label maps, or a dataset."""
    structure: Structures = ()
    """A structure and its label ids, such as hippocampus=1,2; without any, those that were
    predicted, or else those of the dataset."""
    cases: OmitArgPrefixes[CaseChoice] = field(default_factory=CaseChoice)
    out: Path = Path("scores.csv")
    """Table with a row for each case and structure."""
    against: OptionalPath = None
    """Other predictions of the same cases, compared case by case."""
    overwrite: bool = False
    """Replace an older table."""

    def run(self) -> int:
        """Score, and print the summary."""
        refuse_missing(self.predictions, self.references, self.against)
        refuse_existing(self.out, self.overwrite)
        from shapeguide.metrics.summary_text import comparison_rows, summary_rows

        found = sg.evaluate(
            self.predictions,
            self._chosen_references(),
            tuple(
                sg.Structure(name, ids) for name, ids in parse_structures(self.structure).items()
            ),
            out=self.out,
            against=self.against,
        )
        print_table("scores", summary_rows(found.summary))
        if found.comparison is not None:
            title = f"{self.predictions} (first) against {self.against} (second)"
            print_table(title, comparison_rows(found.comparison))
        for trouble in found.troubles:
            complain(f"{trouble.case}: {trouble.reason}")
        if found.missing:
            complain(f"no prediction for {len(found.missing)} cases: {', '.join(found.missing)}")
        tell(f"scores of each case: {self.out}")
        return 0 if found.complete else 1

    def _chosen_references(self) -> Path | Dataset:
        if self.cases == CaseChoice():
            return self.references
        return self.cases.read_test(self.references)

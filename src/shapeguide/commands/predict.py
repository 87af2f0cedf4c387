"""The command that segments scans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

import shapeguide as sg
from shapeguide.cells import Workers
from shapeguide.commands.arguments import CaseChoice, refuse_missing
from shapeguide.commands.terminal import tell
from shapeguide.errors import ConfigError
from shapeguide.vocabulary import Device, WeightsName

if TYPE_CHECKING:
    from shapeguide.data.case import Case


@dataclass(frozen=True)
class Predict:
    """Segment scans, each on its own grid; scans that are done already are left alone."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a finished training."""
    scans: Annotated[Positional[tuple[Path, ...]], arg(metavar="SCAN [SCAN ...]")]
    """Scans, folders of scans, or a dataset, of which the cases are taken that the options choose,
    without any those that the training kept for testing."""
    out: Path
    """Folder of the label maps and of volumes.csv."""
    cases: OmitArgPrefixes[CaseChoice] = field(default_factory=CaseChoice)
    largest_component: bool = False
    """Keep only the largest connected component of each structure."""
    probabilities: bool = False
    """Also write the probability of each structure."""
    restorer: Annotated[str, arg(metavar="shape|srn|none|FOLDER")] = "shape"
    """What restores predictions. "shape": the shape restorer of the run, where it has one; it
    completes and cleans those that are unusual for the segmenter, but can paint over what a scan
    truly shows, such as a resection or a lesion. "srn": the SRN autoencoder of the run. "none":
    they stay as the segmenter makes them. FOLDER: the restorer or SRN autoencoder of another run.
    volumes.csv states for each structure how much was changed."""
    weights: WeightsName = "last"
    """Weights after the last iteration, with the best validation score, or averaged."""
    device: Device = "auto"
    overwrite: bool = False
    """Segment scans again whose label map is there already."""
    workers: OmitArgPrefixes[Workers] = field(default_factory=Workers)

    def run(self) -> int:
        """Predict, and tell what failed."""
        refuse_missing(self.run_dir)  # before torch is loaded, which takes seconds
        from shapeguide.inference.prediction_files import PredictionOptions

        report = sg.predict_files(
            sg.load_run(
                self.run_dir, restorer=self.restorer, weights=self.weights, device=self.device
            ),
            [scan for given in self.scans for scan in self._scans_of(given)],
            out_dir=self.out,
            options=PredictionOptions(
                largest_component=self.largest_component,
                probabilities=self.probabilities,
                overwrite=self.overwrite,
                orientation=self.cases.orientation,
            ),
            workers=self.workers,
        )
        done = f"{len(report.written)} label maps written, {len(report.kept)} kept"
        tell(f"{done}, {len(report.failed)} failed; folder: {self.out}")
        if report.restored:
            tell(
                f"{len(report.restored)} of those written were changed by the restorer: "
                "restored_mm3 in volumes.csv"
            )
        return 0 if report.complete else 1

    def _scans_of(self, given: Path) -> Iterable[Path | Case]:
        from shapeguide.workflows.held_out import held_out_cases, is_dataset, trained_on

        if not (self.cases.chooses_files or is_dataset(given)):
            if self.cases.chooses:
                raise ConfigError(
                    f"{given} is no dataset, so no cases can be chosen in it; give the "
                    "dataset.json, or leave out --split, --fold and --test-count"
                )
            return [given]
        found = self.cases.read_test(given)
        if not len(found):  # --images without --labels
            return found.unlabelled
        kept = None if self.cases.chooses else held_out_cases(self.run_dir, found)
        if kept is not None:
            tell(f"{given}: the {len(kept)} cases that the training kept for testing")
            return kept
        seen = trained_on(self.run_dir, found)
        if seen:
            tell(f"{given}: {len(seen)} of {len(found)} cases were trained on")
        return found

"""The command that uses a model: predict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

import shapeguide as sg
from shapeguide.commands.arguments import (
    CaseChoice,
    OptionalPath,
)
from shapeguide.commands.terminal import tell
from shapeguide.data.scan_files import list_scans
from shapeguide.data.splits import read_split
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
    restore: bool = True
    """--no-restore leaves predictions as the segmenter makes them. Otherwise the shape restorer of
    the run, where it has one, completes and cleans those that are unusual for the segmenter; it can
    paint over what a scan truly shows, such as a resection or a lesion, and volumes.csv states for
    each structure how much it changed."""
    reconstruct: bool = False
    """Restore predictions by the SRN autoencoder of the run instead."""
    autoencoder: OptionalPath = None
    """A run whose SRN autoencoder restores them instead."""
    weights: WeightsName = "last"
    """Those after the last iteration, with the best validation score, or averaged."""
    device: Device = "auto"
    overwrite: bool = False
    """Segment scans again whose label map is there already."""

    def run(self) -> int:
        """Predict, and tell what failed."""
        from shapeguide.inference.prediction_files import PredictionOptions

        report = sg.predict_files(
            self.run_dir,
            [scan for given in self.scans for scan in self._scans_of(given)],
            out_dir=self.out,
            options=PredictionOptions(
                largest_component=self.largest_component,
                probabilities=self.probabilities,
                restore=self.restore,
                reconstruct=self.reconstruct,
                autoencoder=self.autoencoder,
                overwrite=self.overwrite,
                orientation=self.cases.orientation,
            ),
            weights=self.weights,
            device=self.device,
        )
        done = f"{len(report.written)} label maps written, {len(report.kept)} kept"
        tell(f"{done}, {len(report.failed)} failed; folder: {self.out}")
        changed = report.volumes[report.volumes["restored_mm3"] > 0]["case"].nunique()
        if changed:
            tell(f"{changed} were changed by the shape restorer: restored_mm3 in volumes.csv")
        return 0 if report.complete else 1

    def _scans_of(self, given: Path) -> Iterable[Path | Case]:
        if not _is_dataset(given):
            if self.cases.chooses:
                raise ConfigError(
                    f"{given} is no dataset, so no cases can be chosen in it; give the "
                    "dataset.json, or leave out --split, --fold and --test-count"
                )
            return [given]
        from shapeguide.training.engine.run_folder import SPLIT_FILE

        kept, trained = _read_split(self.run_dir / SPLIT_FILE)
        found = self.cases.read_test(given)
        known = {case.id for case in found}
        if not self.cases.chooses and kept and kept | trained <= known:
            tell(f"{given}: the {len(kept)} cases that the training kept for testing")
            return found.select(case.id for case in found if case.id in kept)
        if known & trained:
            tell(f"{given}: {len(known & trained)} of {len(known)} cases were trained on")
        return found


def _is_dataset(given: Path) -> bool:
    """Whether it is a description, or a folder of one or in a layout: not one of scans."""
    if not given.is_dir():
        return given.suffix == ".json"
    return (given / "dataset.json").is_file() or not list_scans(given)


def _read_split(path: Path) -> tuple[set[str], set[str]]:
    """Ids of the cases that a training kept for testing, and of its own; none without a split."""
    if not path.is_file():
        return set(), set()
    split = read_split(path)
    return set(split.test), set(split.train)

"""Prediction of many scan files into a folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shapeguide.cells import HERE, Cell, Ended, Workers, run_cells
from shapeguide.data.case import Case
from shapeguide.data.case_ids import case_in_folder, scans_by_case
from shapeguide.data.nifti import read_label_map, write_label_map, write_volume
from shapeguide.errors import ConfigError, DataError, GeometryError, ShapeguideError
from shapeguide.geometry.volume import Volume
from shapeguide.inference.prediction import predict_volume
from shapeguide.inference.provenance import (
    PredictionFolder,
    label_map_name,
    origin_of,
    probability_name,
)
from shapeguide.inference.run import RunSource, TrainedRun, as_run
from shapeguide.inference.shown import channels_for
from shapeguide.metrics.components import structure_volumes_mm3
from shapeguide.models.segmenter import Segmenter
from shapeguide.progress import ProgressBar
from shapeguide.storage.lock import locked

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SCANS_AT_ONCE = 2
"""One is read, or brought to its grid and written, while the networks look at another."""
_network = threading.Lock()
"""The networks look at one scan at a time."""


@dataclass(frozen=True)
class Failure:
    """A scan that was not segmented, and why."""

    scan: Path
    reason: str


@dataclass
class PredictionReport:
    """What `predict_files` did."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    """Outputs that were there before and were not touched."""
    failed: list[Failure] = field(default_factory=list)
    restored: list[Path] = field(default_factory=list)
    """Those of the written ones in which the restorer changed a structure."""
    volumes: pd.DataFrame = field(init=False, repr=False)
    """Columns case, structure, volume_mm3, found, restored_mm3, model; the content of
    `volumes.csv`, with the rows of earlier calls. A structure that is not found has the volume 0:
    the scan does not show it, or the run missed it. `restored_mm3` is the volume of voxels that the
    restorer added to the structure or took from it, before only the largest component is kept:
    where the prior spoke and not the scan. It is 0 without a restorer, and missing where an outcome
    was kept whose table did not state it. `model` is what made the label map, as `predictions.json`
    names it."""

    @property
    def complete(self) -> bool:
        """Whether every scan has its label map."""
        return not self.failed


@dataclass(frozen=True)
class PredictionOptions:
    """What to write for each scan."""

    largest_component: bool = False
    """Keep only the largest connected component of each structure."""
    probabilities: bool = False
    """Also write the probability of each structure, as `CASE_STRUCTURE_probability.nii.gz`."""
    overwrite: bool = False
    """Segment scans again whose label map is there already. Only label maps that were predicted
    into the folder are ever replaced."""
    orientation: str | None = None
    """Directions of the voxel axes such as "RAS", for scan files that state none."""


def predict_files(
    run: str | Path | Segmenter | TrainedRun,
    scans: str | Path | Case | Iterable[str | Path | Case],
    *,
    out_dir: str | Path,
    options: PredictionOptions | None = None,
    workers: Workers = HERE,
    progress: bool = True,
) -> PredictionReport:
    """Segment scan files into a folder: a label map for each, and `volumes.csv`.

    Whatever is wrong with a scan, it is reported and the others are done. Outputs that are there
    are kept unless the options say otherwise, so a second call does only what is missing. Which
    model made which of them is noted in `predictions.json`; another model or other options do not
    go on with them. Nothing is written into a folder that holds files and no such note.

    Where the run folder has a shape restorer, it completes and cleans predictions that are unusual
    for the segmenter; `load_run(folder, restorer="none")` leaves them as they are. It knows shapes
    and no scan: it can paint over what a scan truly shows, such as a resection or a lesion. How
    much it changed stands in `volumes.csv`.

    Args:
        run: Run folder, loaded as `load_run` does; a run so loaded; or a segmenter, which comes
            without a restorer.
        scans: Files, folders whose scans are all taken, or cases of a dataset; or one of these.
        out_dir: Folder of the label maps, named by case.
        options: What to write.
        workers: Where the networks run: in this process, in several of this machine, or on the
            workers of a Dask cluster, which see the same files under the same paths.
        progress: Show a progress bar.

    Raises:
        DataError: If there are no scans, two would be written to the same file, or the table of
            an earlier call is damaged.
        CheckpointError: If the run, its restorer or the note of an earlier call is not finished or
            damaged, or the folder cannot be written.
        ConfigError: If the folder holds label maps that were made otherwise, or files without
            being a folder of predictions, or another process predicts into it.
    """
    options, run, folder = options or PredictionOptions(), as_run(run), Path(out_dir)
    given = [scans] if isinstance(scans, str | Path | Case) else scans
    report = PredictionReport()
    count = len(run.segmenter.image_channels)
    cases = [case for one in given for case in _cases_of(one, count, options.orientation, report)]
    if not cases and not report.failed:
        raise DataError("no scans to segment: give files, or folders that hold some")
    cases = _without_collisions(cases, folder)
    origin = origin_of(run, largest_component=options.largest_component)
    with locked(folder):
        outputs = PredictionFolder(folder, run.segmenter.all_structures, origin)
        work = _Work(run, outputs, options, report)
        outputs.claim([case.id for case in cases], overwrite=options.overwrite)
        try:
            with ProgressBar("predict", total=len(cases), done=0, shown=progress) as bar:
                work.do(cases, workers, bar.advance)
        finally:  # interrupted, the table knows what was done
            report.volumes = outputs.finish()
    return report


@dataclass(frozen=True)
class _Work:
    """The scans of one call: which label maps stay, which are made, and how each ended."""

    run: TrainedRun
    outputs: PredictionFolder
    options: PredictionOptions
    report: PredictionReport

    def do(self, cases: list[Case], workers: Workers, ended: Callable[[], None]) -> None:
        """Segment the scans or keep their label maps; what goes wrong is a failure of its scan.

        Args:
            cases: The scans, each once.
            workers: Where the networks run.
            ended: Called after each scan.
        """
        model = self.run if workers == HERE else _source_of(self.run)
        cells: dict[str, Case] = {}
        for case in cases:
            try:
                if self._keeps(case):
                    ended()
                else:
                    cells[f"segment {case.id}"] = case
            except Exception as error:
                self._fail(case, _told(case.image, error))
                ended()

        def end(done: Ended) -> None:
            case = cells[done.name]
            try:
                if done.error is None:
                    self._take(case, done.result)
                else:
                    self._fail(case, done.error)
            except Exception as error:
                self._fail(case, _told(case.image, error))
            ended()

        on_gpu = self.run.segmenter.device.type == "cuda"
        run_cells(
            [
                Cell(name, _segment, (model, case, self.outputs.stage, self.options), gpu=on_gpu)
                for name, case in cells.items()
            ],
            workers,
            on_end=end,
            threads=SCANS_AT_ONCE,
        )

    def _fail(self, case: Case, reason: str) -> None:
        self.report.failed.append(Failure(case.image, reason))
        if not self.outputs.label_map(case.id).exists():
            self.outputs.note_absent(case.id)

    def _keeps(self, case: Case) -> bool:
        """Whether the label map of a case is there and stays."""
        target = self.outputs.label_map(case.id)
        if not target.exists():
            return False
        if self.outputs.maker(case.id) is None:
            raise DataError(
                f"{target} is there and was not predicted; it stays as it is. Choose another "
                "folder, or move it away"
            )
        if self.options.overwrite:
            return False
        labels = read_label_map(target, structures=self.run.segmenter.all_structures)
        if not labels.grid.matches(case.read_grid()):
            raise GeometryError(
                f"{target} lies on another grid than its scan {case.image}, which has changed; add "
                "--overwrite (overwrite=True) to segment it again"
            )
        self.outputs.note_kept(case.id, structure_volumes_mm3(labels))
        self.report.kept.append(target)
        return True

    def _take(self, case: Case, made: _Segmented) -> None:
        """Give what was made its name, once it is noted which model made it."""
        self.outputs.take(case.id, made.volumes_mm3, made.changed_mm3)
        target = self.outputs.label_map(case.id)
        self.report.written.append(target)
        if any(made.changed_mm3.values()):
            self.report.restored.append(target)


@dataclass(frozen=True)
class _Segmented:
    """What a cell found; its label map lies on the stage."""

    volumes_mm3: dict[str, float]
    changed_mm3: dict[str, float]


def _source_of(run: TrainedRun) -> RunSource:
    if run.source is None:
        raise ConfigError(
            "several processes each load the run: give its folder, or what load_run returns, "
            "instead of a segmenter"
        )
    return run.source


def _segment(
    model: TrainedRun | RunSource, case: Case, stage: Path, options: PredictionOptions
) -> _Segmented:
    """Segment a scan, and put its label map and probabilities on the stage."""
    run = model.load() if isinstance(model, RunSource) else model
    channels = channels_for(run.segmenter, case)
    volume = channels[0]
    with _network:
        prediction = predict_volume(run, channels)
    if prediction.missed:
        logger.warning(
            "%s: not found, and so not segmented: %s; look whether the scan shows them",
            case.id, ", ".join(prediction.missed),
        )  # fmt: skip
    labels = prediction.label_map(largest_component=options.largest_component)
    write_label_map(labels, stage / label_map_name(case.id))
    if options.probabilities:
        for name, probability in prediction.probability_of_each():
            found = Volume(probability, volume.grid, volume.placement)
            write_volume(found, stage / probability_name(case.id, name))
    return _Segmented(structure_volumes_mm3(labels), prediction.changed_mm3)


def _told(scan: Path, error: Exception) -> str:
    """Tell the log why a scan failed; the reason."""
    known = isinstance(error, ShapeguideError | OSError) and str(error)
    reason = str(error) if known else f"{type(error).__name__}: {error}".removesuffix(": ")
    logger.error("%s", reason if str(scan) in reason else f"{scan}: {reason}")
    return reason


def _without_collisions(cases: list[Case], folder: Path) -> list[Case]:
    """Each scan once; scans that would overwrite each other or themselves are refused."""
    by_id: dict[str, Case] = {}
    for case in cases:
        target = folder / f"{case.id}.nii.gz"
        if target.resolve() == case.image.resolve():
            raise DataError(
                f"{case.image} would be overwritten by its prediction; choose another folder"
            )
        other = by_id.setdefault(case.id, case).image
        if other != case.image:
            raise DataError(
                f"{other} and {case.image} would both be written to {target}; predict them into "
                "different folders"
            )
    return list(by_id.values())


def _cases_of(
    given: str | Path | Case, count: int, orientation: str | None, report: PredictionReport
) -> list[Case]:
    """Cases of a file, a folder, or a case itself; a scan whose name makes none is a failure."""
    if isinstance(given, Case):
        return [given]
    path = Path(given)
    if path.is_dir():
        scans = scans_by_case(path, count=count)
    else:
        try:
            scans = dict([case_in_folder(path, count=count)])
        except DataError as error:
            report.failed.append(Failure(path, _told(path, error)))
            return []
    found = []
    for name, (first, *further) in scans.items():
        try:
            case = Case(name, first, orientation=orientation, further_channels=tuple(further))
            # One file for several channels holds them all.
            found.append(case if further else replace(case, stacked=count))
        except DataError as error:
            report.failed.append(Failure(first, _told(first, error)))
    return found

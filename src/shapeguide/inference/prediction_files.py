"""Prediction of many scan files into a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shapeguide.data.case import Case
from shapeguide.data.case_ids import case_id_in_folder, scans_by_case
from shapeguide.data.nifti import (
    read_label_map,
    read_volume,
    write_label_map,
    write_volume,
)
from shapeguide.data.scan_files import case_id_of
from shapeguide.errors import DataError, ShapeguideError
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.inference.prediction import (
    label_map_from,
    predict_before_and_after,
    predict_probabilities,
)
from shapeguide.inference.provenance import claim_folder, origin_of
from shapeguide.inference.restoring import Restorers, load_restorers
from shapeguide.inference.sizes_table import (
    VOLUMES_FILE,
    StructureVolume,
    restored_volumes_mm3,
    write_volumes,
)
from shapeguide.metrics.components import keep_largest_component, structure_volumes_mm3
from shapeguide.models.segmenter import Segmenter, load_segmenter
from shapeguide.progress import ProgressBar
from shapeguide.vocabulary import WeightsName

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A scan that was not segmented, and why."""

    scan: Path
    reason: str


@dataclass(frozen=True)
class PredictionReport:
    """What `predict_files` did."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    """Outputs that were there before and were not touched."""
    failed: tuple[Failure, ...]
    volumes: pd.DataFrame = field(repr=False)
    """Columns case, structure, volume_mm3, restored_mm3; the content of `volumes.csv`. The last is
    the volume of voxels that the shape restorer added to the structure or took from it, before
    only the largest component is kept: where the prior spoke and not the scan. It is 0 without a
    restorer, and missing where an outcome was kept whose table did not state it."""

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
    """Segment scans again whose label map is there already."""
    restore: bool = True
    """Restore predictions by the shape restorer of the run, where it has one, unless an SRN
    autoencoder is asked for. It can paint over what a scan truly shows."""
    reconstruct: bool = False
    """Restore predictions by the SRN autoencoder of the run instead."""
    autoencoder: str | Path | None = None
    """Run folder, or its `autoencoder` folder, whose SRN autoencoder restores instead."""
    orientation: str | None = None
    """Directions of the voxel axes such as "RAS", for scan files that state none."""


def predict_files(
    run: str | Path | Segmenter,
    scans: Iterable[str | Path | Case],
    *,
    out_dir: str | Path,
    options: PredictionOptions | None = None,
    weights: WeightsName = "last",
    device: str = "auto",
    progress: bool = True,
) -> PredictionReport:
    """Segment scan files into a folder: a label map for each, and `volumes.csv`.

    A broken scan is reported and skipped. Outputs that are there are kept unless the options say
    otherwise, so a second call does only what is missing. What made them is noted in
    `predictions.json`; another model or other options do not go on with them.

    Where the run folder has a shape restorer, it completes and cleans predictions that are unusual
    for the segmenter, unless the options say otherwise. It knows shapes and no scan: it can paint
    over what a scan truly shows, such as a resection or a lesion. How much it changed stands in
    `volumes.csv`.

    Args:
        run: Run folder, or a loaded segmenter, which comes without a restorer.
        scans: Files, folders whose scans are all taken, or cases of a dataset.
        out_dir: Folder of the label maps, named by case.
        options: What to write.
        weights: Those after the last iteration, with the best validation score, or averaged.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Show a progress bar.

    Raises:
        DataError: If there are no scans, or two would be written to the same file.
        CheckpointError: If the run or its restorer is not finished or damaged.
        ConfigError: If predictions are to be restored and the run has no fitting SRN autoencoder,
            or its shape restorer does not fit, or the folder holds label maps that were made
            otherwise.
    """
    options = options or PredictionOptions()
    segmenter = (
        run if isinstance(run, Segmenter) else load_segmenter(run, weights=weights, device=device)
    )
    restorers = load_restorers(
        run,
        segmenter,
        weights=weights,
        restore=options.restore,
        reconstruct=options.reconstruct,
        autoencoder=options.autoencoder,
    )
    folder = Path(out_dir)
    origin = origin_of(segmenter, restorers, largest_component=options.largest_component)
    cases = [case for given in scans for case in _cases_of(given, options.orientation)]
    targets = _targets(cases, folder)
    claim_folder(folder, origin, overwrite=options.overwrite)
    written, kept, failed = [], [], []
    volumes: dict[str, dict[str, StructureVolume]] = {}
    try:
        with ProgressBar("predict", total=len(targets), done=0, shown=progress) as bar:
            for done, (target, case) in enumerate(targets.items(), start=1):
                try:
                    if target.exists() and not options.overwrite:
                        labels = read_label_map(target, structures=segmenter.structures)
                        restored_mm3: dict[str, float] = {}
                        kept.append(target)
                    else:
                        labels, restored_mm3 = _predict_file(
                            (segmenter, restorers), case, target, options
                        )
                        written.append(target)
                    volumes[case_id_of(target)] = {
                        name: StructureVolume(volume_mm3, restored_mm3.get(name))
                        for name, volume_mm3 in structure_volumes_mm3(labels).items()
                    }
                # PyTorch tells of too little memory by a RuntimeError.
                except (ShapeguideError, OSError, MemoryError, RuntimeError) as error:
                    failed.append(Failure(case.image, str(error) or type(error).__name__))
                    logger.error("%s: %s", case.image, error)
                bar.update(done)
    finally:  # interrupted, the table knows what was done
        table = write_volumes(volumes, folder / VOLUMES_FILE)
    return PredictionReport(tuple(written), tuple(kept), tuple(failed), table)


def _predict_file(
    models: tuple[Segmenter, Restorers],
    case: Case,
    target: Path,
    options: PredictionOptions,
) -> tuple[LabelMap, dict[str, float]]:
    """The label map of a scan, and what the shape restorer changed of each structure, in mm3."""
    segmenter, restorers = models
    structures = segmenter.structures
    volume = read_volume(case.image, orientation=case.orientation)
    if restorers.autoencoder is not None:
        after = predict_probabilities(segmenter, volume, autoencoder=restorers.autoencoder)
        before = after
    else:
        before, after = predict_before_and_after(segmenter, volume, restorers.restorer)
    if options.probabilities:
        for index, structure in enumerate(structures, start=1):
            name = f"{case_id_of(target)}_{structure.name}_probability.nii.gz"
            kept = Volume(after[index], volume.grid, volume.placement)
            write_volume(kept, target.parent / name)
    labels = label_map_from(after, structures, volume)
    restored_mm3 = restored_volumes_mm3(label_map_from(before, structures, volume), labels)
    if restorers.restorer is not None:
        changed = ", ".join(f"{mm3:.0f} mm3 of {name}" for name, mm3 in restored_mm3.items())
        logger.debug("%s: the shape restorer changed %s", case.id, changed)
    if options.largest_component:
        labels = keep_largest_component(labels)
    write_label_map(labels, target)
    return labels, restored_mm3


def _targets(cases: list[Case], folder: Path) -> dict[Path, Case]:
    """Output file to case, in the order of the scans."""
    targets: dict[Path, Case] = {}
    for case in cases:
        target = folder / f"{case.id}.nii.gz"
        if target.resolve() == case.image.resolve():
            raise DataError(
                f"{case.image} would be overwritten by its prediction; choose another folder"
            )
        if targets.get(target, case).image != case.image:
            raise DataError(
                f"{targets[target].image} and {case.image} would both be written to {target}; "
                "predict them into different folders"
            )
        targets[target] = case
    if not targets:
        raise DataError("no scans to segment: give files, or folders that hold some")
    return targets


def _cases_of(given: str | Path | Case, orientation: str | None) -> list[Case]:
    if isinstance(given, Case):
        return [given]
    path = Path(given)
    scans = scans_by_case(path) if path.is_dir() else {case_id_in_folder(path): path}
    return [Case(case_id, scan, orientation=orientation) for case_id, scan in scans.items()]

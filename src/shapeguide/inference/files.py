"""Prediction of many scan files into a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shapeguide.data.case import Case
from shapeguide.data.nifti import (
    case_id_of,
    list_scans,
    read_label_map,
    read_volume,
    write_label_map,
    write_volume,
)
from shapeguide.errors import ConfigError, DataError, ShapeguideError
from shapeguide.files import written_whole
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.inference.volumes import check_fits, label_map_from, predict_probabilities
from shapeguide.metrics.components import keep_largest_component, structure_volumes_mm3
from shapeguide.models.autoencoder_model import (
    AUTOENCODER_FOLDER,
    AutoencoderModel,
    load_autoencoder,
)
from shapeguide.models.model_files import WeightsName
from shapeguide.models.segmenter import Segmenter, load_segmenter
from shapeguide.training.log import ProgressBar

if TYPE_CHECKING:
    import pandas as pd

VOLUMES_FILE = "volumes.csv"

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
    """Columns case, structure, volume_mm3; the content of `volumes.csv`."""

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
    reconstruct: bool = False
    """Restore predictions by the SRN autoencoder of the run."""
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
    otherwise, so a second call does only what is missing.

    Args:
        run: Run folder, or a loaded segmenter.
        scans: Files, folders whose scans are all taken, or cases of a dataset.
        out_dir: Folder of the label maps, named by case.
        options: What to write.
        weights: Those after the last iteration, with the best validation score, or averaged.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Show a progress bar.

    Raises:
        DataError: If there are no scans, or two would be written to the same file.
        CheckpointError: If the run is not finished or damaged.
        ConfigError: If predictions are to be restored and the run has no fitting SRN autoencoder.
    """
    options = options or PredictionOptions()
    segmenter = (
        run if isinstance(run, Segmenter) else load_segmenter(run, weights=weights, device=device)
    )
    autoencoder = _autoencoder(run, segmenter, options)
    folder = Path(out_dir)
    cases = [case for given in scans for case in _cases_of(given, options.orientation)]
    targets = _targets(cases, folder)
    written, kept, failed = [], [], []
    volumes: dict[str, dict[str, float]] = {}
    with ProgressBar("predict", total=len(targets), done=0, shown=progress) as bar:
        for done, (target, case) in enumerate(targets.items(), start=1):
            try:
                if target.exists() and not options.overwrite:
                    labels = read_label_map(target, structures=segmenter.structures)
                    kept.append(target)
                else:
                    labels = _predict_file((segmenter, autoencoder), case, target, options)
                    written.append(target)
                volumes[case_id_of(target)] = structure_volumes_mm3(labels)
            except (ShapeguideError, OSError, MemoryError) as error:
                failed.append(Failure(case.image, str(error) or type(error).__name__))
                logger.error("%s: %s", case.image, error)
            bar.update(done)
    table = _write_volumes(volumes, folder / VOLUMES_FILE)
    return PredictionReport(tuple(written), tuple(kept), tuple(failed), table)


def _autoencoder(
    run: str | Path | Segmenter, segmenter: Segmenter, options: PredictionOptions
) -> AutoencoderModel | None:
    """The autoencoder that the options ask for, on the device of the segmenter."""
    if not options.reconstruct and options.autoencoder is None:
        return None
    if options.autoencoder is None and isinstance(run, Segmenter):
        raise ConfigError(
            "predictions are restored by the autoencoder of a run: give the run folder instead of "
            "a loaded segmenter, or name the autoencoder's folder in the options"
        )
    source = run if options.autoencoder is None else options.autoencoder
    folder = Path(str(source))
    if (folder / AUTOENCODER_FOLDER).is_dir():
        folder = folder / AUTOENCODER_FOLDER
    elif options.autoencoder is None:
        raise ConfigError(
            f"{folder} has no folder {AUTOENCODER_FOLDER!r}: it was not guided by 'srn'; name "
            "another run whose SRN autoencoder restores its predictions"
        )
    model = load_autoencoder(folder)
    check_fits(model, segmenter)
    return replace(model, network=model.network.to(segmenter.device))


def _predict_file(
    models: tuple[Segmenter, AutoencoderModel | None],
    case: Case,
    target: Path,
    options: PredictionOptions,
) -> LabelMap:
    segmenter, autoencoder = models
    volume = read_volume(case.image, orientation=case.orientation)
    probabilities = predict_probabilities(segmenter, volume, autoencoder=autoencoder)
    if options.probabilities:
        for index, structure in enumerate(segmenter.structures, start=1):
            name = f"{case_id_of(target)}_{structure.name}_probability.nii.gz"
            kept = Volume(probabilities[index], volume.grid, volume.placement)
            write_volume(kept, target.parent / name)
    labels = label_map_from(probabilities, segmenter.structures, volume)
    if options.largest_component:
        labels = keep_largest_component(labels)
    write_label_map(labels, target)
    return labels


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
    scans = list_scans(path) if path.is_dir() else [path]
    return [Case(case_id_of(scan), scan, orientation=orientation) for scan in scans]


def _write_volumes(volumes: dict[str, dict[str, float]], path: Path) -> pd.DataFrame:
    """Write the table of volumes; rows of cases that an earlier call predicted stay in it."""
    import pandas as pd

    columns = ["case", "structure", "volume_mm3"]
    rows = [
        (case, name, round(volume, 3))
        for case, found in volumes.items()
        for name, volume in found.items()
    ]
    table = pd.DataFrame(rows, columns=columns)
    if path.is_file():
        earlier = pd.read_csv(path, dtype={"case": str})
        others = earlier[~earlier["case"].isin(table["case"])]
        table = pd.concat([others, table], ignore_index=True) if len(others) else table
    with written_whole(path) as temporary:
        table.to_csv(temporary, index=False)
    return table

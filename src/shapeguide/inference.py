"""Prediction on exactly the grid of the input: one volume, or many files."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.case import Case
from shapeguide.data.nifti import (
    case_id_of,
    list_scans,
    read_label_map,
    read_volume,
    write_label_map,
    write_volume,
)
from shapeguide.data.preprocess import prepare_volume
from shapeguide.errors import DataError, ShapeguideError
from shapeguide.files import written_whole
from shapeguide.geometry.resample import resample_channels
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.machine import autocast, choose_precision
from shapeguide.metrics.components import keep_largest_component, structure_volumes_mm3
from shapeguide.models.model_files import WeightsName
from shapeguide.models.segmenter import Segmenter, load_segmenter
from shapeguide.training.log import ProgressBar

if TYPE_CHECKING:
    import pandas as pd

VOLUMES_FILE = "volumes.csv"
WINDOW_OVERLAP = 0.25

logger = logging.getLogger(__name__)


def predict(segmenter: Segmenter, volume: Volume, *, largest_component: bool = False) -> LabelMap:
    """Segment a volume, on exactly its grid.

    Each structure is written with the first of its label ids.

    Args:
        segmenter: A trained segmenter.
        volume: Of any orientation and spacing.
        largest_component: Keep only the largest connected component of each structure.

    Raises:
        DataError: If the volume cannot be normalised, for instance because it is constant.
    """
    labels = label_map_from(predict_probabilities(segmenter, volume), segmenter.structures, volume)
    return keep_largest_component(labels) if largest_component else labels


def predict_probabilities(segmenter: Segmenter, volume: Volume) -> NDArray[np.float32]:
    """Class probabilities on the grid of the volume.

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.
    """
    prepared = prepare_volume(volume, segmenter.space)
    probabilities = prepared_probabilities(segmenter, prepared.data)
    return resample_channels(probabilities, prepared.grid, volume.grid)


@torch.inference_mode()
def prepared_probabilities(segmenter: Segmenter, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities of an image from `prepare_volume`, in the working space.

    Args:
        segmenter: A trained segmenter.
        image: Normalised intensities in the segmenter's spacing, shape (I, J, K).

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.
    """
    device = segmenter.device
    images = torch.from_numpy(np.ascontiguousarray(image)).to(device)[None, None]
    window = segmenter.space.spatial_shape

    def network(windows: Tensor) -> Tensor:
        with autocast(device, choose_precision("auto", device)):
            logits: Tensor = segmenter.network(windows)
        return logits.float().softmax(dim=1)

    if images.shape[2:] == window:
        probabilities = network(images)
    else:
        probabilities = _slide(network, images, window)
    found: NDArray[np.float32] = probabilities[0].cpu().numpy()
    return found


def label_map_from(
    probabilities: NDArray[np.float32], structures: tuple[Structure, ...], volume: Volume
) -> LabelMap:
    """The most probable class of each voxel as a label map with the placement of the volume.

    Args:
        probabilities: Shape (1 + structures, I, J, K), background first.
        structures: In the order of the channels.
        volume: The input, whose grid and header placement the label map takes.
    """
    written = np.array([0, *(structure.label_ids[0] for structure in structures)])
    smallest = np.min_scalar_type(int(written.max()))
    data = written.astype(smallest)[probabilities.argmax(axis=0)]
    return LabelMap(data, volume.grid, structures, volume.placement)


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
    """
    options = options or PredictionOptions()
    segmenter = (
        run if isinstance(run, Segmenter) else load_segmenter(run, weights=weights, device=device)
    )
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
                    labels = _predict_file(segmenter, case, target, options)
                    written.append(target)
                volumes[case_id_of(target)] = structure_volumes_mm3(labels)
            except (ShapeguideError, OSError, MemoryError) as error:
                failed.append(Failure(case.image, str(error) or type(error).__name__))
                logger.error("%s: %s", case.image, error)
            bar.update(done)
    table = _write_volumes(volumes, folder / VOLUMES_FILE)
    return PredictionReport(tuple(written), tuple(kept), tuple(failed), table)


def _predict_file(
    segmenter: Segmenter, case: Case, target: Path, options: PredictionOptions
) -> LabelMap:
    volume = read_volume(case.image, orientation=case.orientation)
    probabilities = predict_probabilities(segmenter, volume)
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


def _slide(network: object, images: Tensor, window: tuple[int, int, int]) -> Tensor:
    from monai.inferers import sliding_window_inference

    found = sliding_window_inference(
        images, window, 1, network, overlap=WINDOW_OVERLAP, mode="gaussian"
    )
    if not isinstance(found, Tensor):
        raise TypeError(f"the network gave {type(found)}, expected one tensor of logits")
    return found

"""Signed distances to the structures of all cases, in one window of the working space."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.prepare import PreparedLabelMap
from shapeguide.data.prepared_cases import LabelMapSource
from shapeguide.disturbing.probabilities import unit_mm
from shapeguide.errors import ConfigError
from shapeguide.geometry.boxes import foreground_box, grown_box
from shapeguide.geometry.distance import signed_distance_mm

MARGIN_MM = 10.0
"""Around the bounding box of all structures of all cases."""
ABSENT_MM = -100.0
"""Distance to a structure that a case does not hold."""


@dataclass(frozen=True, eq=False)
class DistanceBank:
    """What the restorer learns from: no images, only how far each voxel is from each edge."""

    distances_mm: Tensor
    """Positive inside, shape (cases, S, I, J, K), float16."""
    spacing_mm: tuple[float, float, float]
    """Voxel spacing of the working space."""
    window: tuple[slice, ...]
    """Part of the working space."""
    units_mm: tuple[float, ...]
    """Unit of each structure, see `unit_mm`."""
    offsets: tuple[tuple[float, float, float], ...]
    """Mean median position of each structure from the middle of the window, in voxels."""

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Shape of the window in voxels."""
        i, j, k = self.distances_mm.shape[2:]
        return i, j, k


def fill_bank(cases: LabelMapSource, structures: int, *, memory_limit_bytes: int) -> DistanceBank:
    """Signed distances of all cases in the window that holds all their structures.

    Args:
        cases: In the working space, at least one.
        structures: Number of structures, S.
        memory_limit_bytes: What the distances may take in memory.

    Raises:
        ConfigError: If they would take more.
        DataError: If a case cannot be prepared.
    """
    window = _window_of(cases)
    shape = [part.stop - part.start for part in window]
    size = 2 * len(cases) * structures * prod(shape)
    if size > memory_limit_bytes:
        raise ConfigError(
            f"the restorer needs {size / 2**30:.1f} GB for the distance maps of {len(cases)} cases "
            f"and {structures} structures, more than the limit of "
            f"{memory_limit_bytes / 2**30:.1f} GB; raise data.memory_limit_gb, or set "
            "restorer.iterations to 0 to train none"
        )
    bank = torch.empty((len(cases), structures, *shape), dtype=torch.float16)
    for place, case in enumerate(cases.label_maps()):
        bank[place] = case_distances_mm(case, window, structures, cases.space.spacing_mm)
    return DistanceBank(
        distances_mm=bank,
        spacing_mm=cases.space.spacing_mm,
        window=window,
        units_mm=_units_mm(cases, structures),
        offsets=_offsets(cases, window, structures),
    )


def case_distances_mm(
    case: PreparedLabelMap,
    window: tuple[slice, ...],
    structures: int,
    spacing_mm: tuple[float, float, float],
) -> Tensor:
    """Signed distances of one case in a window of the working space, (S, I, J, K), float32."""
    classes = case.classes[window]
    return torch.stack(
        [
            torch.from_numpy(edge_distance_mm(classes == index, spacing_mm=spacing_mm))
            for index in range(1, structures + 1)
        ]
    )


def edge_distance_mm(
    mask: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Signed distance of each voxel centre to the edge of a mask (I, J, K), positive inside.

    A mask ends where its grid does. An empty mask is `ABSENT_MM` away, and nothing is further.
    """
    distance_mm = signed_distance_mm(np.pad(mask, 1), spacing_mm=spacing_mm)[1:-1, 1:-1, 1:-1]
    return distance_mm.clip(min=ABSENT_MM).astype(np.float32)


def _window_of(cases: LabelMapSource) -> tuple[slice, ...]:
    """Bounding box of all structures of all cases with a margin, within the working space."""
    united = np.zeros(cases.space.spatial_shape, dtype=np.bool_)
    for case in cases.label_maps():
        united |= case.classes > 0
    box = foreground_box(united)
    if box is None:
        raise ConfigError("the restorer learns from label maps, found no structure in any case")
    margins = [ceil(MARGIN_MM / step) for step in cases.space.spacing_mm]
    return grown_box(box, margins, united.shape)


def _offsets(
    cases: LabelMapSource, window: tuple[slice, ...], structures: int
) -> tuple[tuple[float, float, float], ...]:
    """Those of `DistanceBank`; 0 for a structure that no case holds."""
    middle = np.array([(part.start + part.stop - 1) / 2 for part in window])
    found: list[list[NDArray[np.float64]]] = [[] for _ in range(structures)]
    for case in cases.label_maps():
        for index, medians in enumerate(found, start=1):
            mask = case.classes == index
            if mask.any():
                medians.append(np.median(np.nonzero(mask), axis=1) - middle)
    means = [np.mean(medians, axis=0) if medians else np.zeros(3) for medians in found]
    return tuple((float(i), float(j), float(k)) for i, j, k in np.round(means, 2))


def _units_mm(cases: LabelMapSource, structures: int) -> tuple[float, ...]:
    """Unit of each structure by its mean volume over the cases that hold it."""
    counts = np.stack(
        [
            np.bincount(case.classes.ravel(), minlength=1 + structures)[1:]
            for case in cases.label_maps()
        ]
    )
    holding = np.maximum((counts > 0).sum(0), 1)
    volumes_mm3 = counts.sum(0) / holding * prod(cases.space.spacing_mm)
    return tuple(unit_mm(float(volume)) for volume in volumes_mm3)

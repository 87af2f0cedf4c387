"""Distances between the surfaces of two masks, in mm, and the metrics that are read from them.

A surface voxel is a voxel of the mask with a face neighbour (6-connectivity) outside the mask. The
outside of the image counts as outside the mask, so mask voxels on the border of the image are
surface. Every surface voxel weighs the same. Distances are exact, between voxel centres.

The two masks may be empty:

==================  ===============  =================  ========================
prediction          reference        distances          surface Dice
==================  ===============  =================  ========================
empty               empty            nan: no score      nan: no score
empty               not empty        infinite           0
not empty           empty            infinite           0
==================  ===============  =================  ========================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from shapeguide.errors import ConfigError, GeometryError
from shapeguide.geometry.boxes import foreground_box
from shapeguide.metrics.mask_checks import check_masks

LARGE_SURFACE = 20_000
"""From so many surface voxels on, starting threads costs less than they save."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distance of every surface voxel of one mask to the nearest surface voxel of the other.

    Where only one mask is empty, the surface voxels of the other are infinitely far.
    """

    prediction_to_reference_mm: NDArray[np.float64]
    """One distance per surface voxel of the prediction, shape (P,); in index order."""
    reference_to_prediction_mm: NDArray[np.float64]
    """One distance per surface voxel of the reference, shape (R,); in index order."""

    @property
    def both_empty(self) -> bool:
        """Whether neither mask had a voxel."""
        return self.prediction_to_reference_mm.size + self.reference_to_prediction_mm.size == 0

    @property
    def one_empty(self) -> bool:
        """Whether exactly one mask had no voxel."""
        sizes = (self.prediction_to_reference_mm.size, self.reference_to_prediction_mm.size)
        return min(sizes) == 0 < max(sizes)


def surface_distances(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    *,
    spacing_mm: tuple[float, float, float],
) -> SurfaceDistances:
    """Measure once, in both directions, what all surface metrics read.

    Args:
        prediction: Boolean mask, shape (I, J, K).
        reference: Boolean mask, same shape.
        spacing_mm: Distance of neighbouring voxels along each axis. The axes are taken as
            perpendicular, also where the affine of the grid is slightly sheared.

    Returns:
        Both directed sets of distances.

    Raises:
        GeometryError: If the shapes differ, are not three lengths, or a spacing is not positive.
        DataError: If an array is not boolean.
    """
    check_masks(prediction, reference)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise GeometryError(f"spacing must be three positive numbers in mm, found {spacing_mm}")
    prediction_mm = surface_voxels(prediction) * spacing
    reference_mm = surface_voxels(reference) * spacing
    return SurfaceDistances(
        prediction_to_reference_mm=_nearest_mm(prediction_mm, reference_mm),
        reference_to_prediction_mm=_nearest_mm(reference_mm, prediction_mm),
    )


def surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices (N, 3) of the voxels of a mask (I, J, K) that have a face neighbour outside it."""
    box = foreground_box(mask)
    if box is None:
        return np.empty((0, 3), dtype=np.intp)
    cropped = np.ascontiguousarray(mask[box])
    padded = np.pad(cropped, 1)
    inner = slice(1, -1)
    inside = (
        padded[:-2, inner, inner]
        & padded[2:, inner, inner]
        & padded[inner, :-2, inner]
        & padded[inner, 2:, inner]
        & padded[inner, inner, :-2]
        & padded[inner, inner, 2:]
    )
    start = np.array([bounds.start for bounds in box], dtype=np.intp)
    return np.argwhere(cropped & ~inside) + start


def hausdorff_mm(distances: SurfaceDistances, *, percentile: float = 100) -> float:
    """Hausdorff distance, or its robust form: the larger of the two directed percentiles.

    Args:
        distances: From `surface_distances`.
        percentile: In (0, 100]; 100 is the Hausdorff distance, 95 is HD95. Between two ranks the
            value is interpolated linearly.

    Returns:
        Distance in mm; infinite when one mask is empty, nan when both are.

    Raises:
        ConfigError: If the percentile is outside (0, 100].
    """
    if not 0 < percentile <= 100:
        raise ConfigError(f"a percentile lies in (0, 100], found {percentile}")
    if distances.both_empty:
        return float("nan")
    if distances.one_empty:
        return float("inf")
    directed = (distances.prediction_to_reference_mm, distances.reference_to_prediction_mm)
    return max(float(np.percentile(side, percentile)) for side in directed)


def assd_mm(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance: the mean over the surface voxels of both masks.

    Args:
        distances: From `surface_distances`.

    Returns:
        Distance in mm; infinite when one mask is empty, nan when both are.
    """
    return _mean(_both_directions(distances))


def surface_dice(distances: SurfaceDistances, *, tolerance_mm: float) -> float:
    """Share of the surface voxels of both masks that lie within a tolerance of the other surface.

    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy",
    JMIR 2021, weigh each part of the surface by its area, which they read from the shape of the
    surface in the 2 x 2 x 2 voxels around a corner. Here every surface voxel weighs the same, as in
    all metrics of this module, so values differ a little from theirs where voxels are anisotropic
    or the surface is oblique.

    Args:
        distances: From `surface_distances`.
        tolerance_mm: Distance that still counts as a match; the bound itself counts.

    Returns:
        In [0, 1]; 0 when one mask is empty, nan when both are.

    Raises:
        ConfigError: If the tolerance is negative or not finite.
    """
    if not 0 <= tolerance_mm < float("inf"):
        raise ConfigError(f"a tolerance is a finite distance in mm, found {tolerance_mm}")
    return _mean(_both_directions(distances) <= tolerance_mm)


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _both_directions(distances: SurfaceDistances) -> NDArray[np.float64]:
    sides = (distances.prediction_to_reference_mm, distances.reference_to_prediction_mm)
    return np.concatenate(sides)


def _nearest_mm(
    points_mm: NDArray[np.float64], targets_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    workers = -1 if len(points_mm) >= LARGE_SURFACE else 1
    # A tree that is asked once need not be balanced: building it is a good part of the time.
    tree = KDTree(targets_mm, balanced_tree=False, compact_nodes=False)
    nearest_mm, _ = tree.query(points_mm, workers=workers)  # infinite where there is no target
    return np.asarray(nearest_mm, dtype=np.float64)

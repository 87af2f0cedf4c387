from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shapeguide.errors import ConfigError, GeometryError
from shapeguide.metrics import surface
from shapeguide.metrics.surface import (
    assd_mm,
    hausdorff_mm,
    surface_dice,
    surface_distances,
    surface_voxels,
)

Mask = NDArray[np.bool_]
UNIT = (1.0, 1.0, 1.0)


def blob(seed: int, *, shape: tuple[int, int, int] = (28, 30, 26)) -> Mask:
    """A noisy ellipsoid with stray voxels, some of them on the border of the image."""
    generator = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + generator.uniform(-3, 3, 3)
    radii = generator.uniform(4, 9, 3)
    indices = np.moveaxis(np.indices(shape), 0, -1)
    distance = np.linalg.norm((indices - centre) / radii, axis=-1)
    noisy: Mask = distance + 0.15 * generator.standard_normal(shape) < 1
    noisy |= generator.random(shape) < 0.001
    return noisy


def naive_surface(mask: Mask) -> NDArray[np.intp]:
    """Surface voxels straight from the definition."""
    found = []
    for voxel in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                other = voxel.copy()
                other[axis] += step
                outside = (other < 0).any() or (other >= mask.shape).any()
                if outside or not mask[tuple(other)]:
                    found.append(voxel)
    return np.unique(np.array(found, dtype=np.intp).reshape(-1, 3), axis=0)


def naive_distances(
    points: NDArray[np.intp], targets: NDArray[np.intp], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Every point to every target, and the smallest of these."""
    steps = (points[:, None] - targets[None]) * np.array(spacing_mm)
    nearest: NDArray[np.float64] = np.sqrt((steps**2).sum(axis=-1)).min(axis=1)
    return nearest


def test_hausdorff_counts_millimetres_not_voxels() -> None:
    prediction, reference = np.zeros((2, 8, 8, 8), dtype=bool)
    prediction[2, 4, 4] = reference[5, 4, 4] = True
    distances = surface_distances(prediction, reference, spacing_mm=(2.0, 1.0, 1.0))
    assert hausdorff_mm(distances) == 6.0
    assert hausdorff_mm(distances, percentile=95) == 6.0
    assert assd_mm(distances) == 6.0


def test_the_inside_of_a_cube_is_no_surface() -> None:
    mask = np.zeros((7, 7, 7), dtype=bool)
    mask[1:6, 1:6, 1:6] = True
    assert len(surface_voxels(mask)) == 5**3 - 3**3


def test_a_voxel_whose_only_gap_is_a_diagonal_is_no_surface() -> None:
    mask = np.ones((5, 5, 5), dtype=bool)
    mask[1, 1, 2] = False
    assert (2, 2, 2) not in {tuple(voxel) for voxel in surface_voxels(mask)}
    assert (2, 1, 2) in {tuple(voxel) for voxel in surface_voxels(mask)}


def test_a_mask_that_touches_the_border_of_the_image_has_its_surface_there() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    assert len(surface_voxels(mask)) == 26


def test_equal_masks_are_at_distance_zero() -> None:
    mask = blob(0)
    distances = surface_distances(mask, mask, spacing_mm=UNIT)
    assert hausdorff_mm(distances) == assd_mm(distances) == 0.0
    assert surface_dice(distances, tolerance_mm=0.0) == 1.0


def test_hd95_is_the_larger_of_the_two_directed_percentiles() -> None:
    # A line of 20 voxels against the same line and one voxel 10 mm away: from the line all
    # distances are 0; the other way 20 are 0 and one is 10. Rank 0.95 * 20 = 19 is still 0.
    line, with_stray = np.zeros((2, 20, 12, 12), dtype=bool)
    line[:, 1, 1] = with_stray[:, 1, 1] = True
    with_stray[0, 11, 1] = True
    distances = surface_distances(with_stray, line, spacing_mm=UNIT)
    assert hausdorff_mm(distances) == 10.0
    assert hausdorff_mm(distances, percentile=95) == 0.0
    # At percentile 97.5 the rank is 19.5: halfway between 0 and 10; pooled it would be less.
    assert hausdorff_mm(distances, percentile=97.5) == pytest.approx(5.0)
    assert assd_mm(distances) == pytest.approx(10 / 41)
    swapped = surface_distances(line, with_stray, spacing_mm=UNIT)
    assert hausdorff_mm(swapped, percentile=97.5) == pytest.approx(5.0)


def test_surface_dice_counts_the_surface_within_the_tolerance_bound_included() -> None:
    prediction, reference = np.zeros((2, 6, 6, 6), dtype=bool)
    prediction[1, 1, 1] = prediction[1, 1, 5] = True
    reference[1, 1, 2] = True
    distances = surface_distances(prediction, reference, spacing_mm=UNIT)
    assert surface_dice(distances, tolerance_mm=0.99) == 0.0
    assert surface_dice(distances, tolerance_mm=1.0) == pytest.approx(2 / 3)
    assert surface_dice(distances, tolerance_mm=3.0) == 1.0


@pytest.mark.parametrize("prediction_is_empty", [True, False])
def test_one_empty_mask_is_infinitely_far(prediction_is_empty: bool) -> None:
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    masks = (empty, full) if prediction_is_empty else (full, empty)
    distances = surface_distances(*masks, spacing_mm=UNIT)
    assert distances.one_empty
    assert not distances.both_empty
    assert hausdorff_mm(distances) == hausdorff_mm(distances, percentile=95) == math.inf
    assert assd_mm(distances) == math.inf
    assert surface_dice(distances, tolerance_mm=1.0) == 0.0


def test_two_empty_masks_have_no_distance() -> None:
    empty = np.zeros((3, 3, 3), dtype=bool)
    distances = surface_distances(empty, empty, spacing_mm=UNIT)
    assert distances.both_empty
    assert not distances.one_empty
    assert math.isnan(hausdorff_mm(distances))
    assert math.isnan(assd_mm(distances))
    assert math.isnan(surface_dice(distances, tolerance_mm=1.0))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    density=st.sampled_from([0.03, 0.3, 0.9]),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.2, 5.0)] * 3),
)
def test_distances_equal_brute_force_on_random_masks_with_any_spacing(
    seed: int,
    density: float,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> None:
    generator = np.random.default_rng(seed)
    prediction, reference = generator.random((2, *shape)) < density
    prediction.flat[0] = reference.flat[-1] = True
    there, back = naive_surface(prediction), naive_surface(reference)
    distances = surface_distances(prediction, reference, spacing_mm=spacing_mm)
    forth_mm = naive_distances(there, back, spacing_mm)
    back_mm = naive_distances(back, there, spacing_mm)
    np.testing.assert_array_equal(surface_voxels(prediction), there)
    np.testing.assert_allclose(distances.prediction_to_reference_mm, forth_mm, atol=1e-9)
    np.testing.assert_allclose(distances.reference_to_prediction_mm, back_mm, atol=1e-9)


def test_many_workers_give_the_distances_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, reference = blob(1), blob(2)
    alone = surface_distances(prediction, reference, spacing_mm=(0.9, 1.1, 2.0))
    monkeypatch.setattr(surface, "LARGE_SURFACE", 1)
    shared = surface_distances(prediction, reference, spacing_mm=(0.9, 1.1, 2.0))
    np.testing.assert_array_equal(
        alone.prediction_to_reference_mm, shared.prediction_to_reference_mm
    )
    np.testing.assert_array_equal(
        alone.reference_to_prediction_mm, shared.reference_to_prediction_mm
    )


def test_array_order_changes_nothing() -> None:
    prediction, reference = blob(3), blob(4)
    plain = surface_distances(prediction, reference, spacing_mm=UNIT)
    fortran = surface_distances(
        np.asfortranarray(prediction), np.asfortranarray(reference), spacing_mm=UNIT
    )
    np.testing.assert_array_equal(
        plain.prediction_to_reference_mm, fortran.prediction_to_reference_mm
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(4))
def test_values_agree_with_monai(seed: int) -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    spacing_mm = (0.8, 1.2, 2.5)
    prediction, reference = blob(seed), blob(seed + 100)
    distances = surface_distances(prediction, reference, spacing_mm=spacing_mm)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    same = {"include_background": True, "spacing": list(spacing_mm)}
    theirs = compute_hausdorff_distance(*pair, **same)
    assert hausdorff_mm(distances) == pytest.approx(float(theirs), abs=1e-4)
    theirs = compute_hausdorff_distance(*pair, percentile=95, **same)
    assert hausdorff_mm(distances, percentile=95) == pytest.approx(float(theirs), abs=1e-4)
    theirs = compute_average_surface_distance(*pair, symmetric=True, **same)
    assert assd_mm(distances) == pytest.approx(float(theirs), abs=1e-4)
    theirs = compute_surface_dice(*pair, class_thresholds=[1.0], **same)
    assert surface_dice(distances, tolerance_mm=1.0) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("spacing_mm", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.nan)])
def test_spacing_that_is_not_positive_is_refused(spacing_mm: tuple[float, float, float]) -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(GeometryError, match="three positive numbers in mm"):
        surface_distances(mask, mask, spacing_mm=spacing_mm)


@pytest.mark.parametrize("percentile", [0, -1, 101, math.nan])
def test_percentiles_outside_their_range_are_refused(percentile: float) -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    distances = surface_distances(mask, mask, spacing_mm=UNIT)
    with pytest.raises(ConfigError, match="percentile"):
        hausdorff_mm(distances, percentile=percentile)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.inf, math.nan])
def test_tolerances_that_are_no_distance_are_refused(tolerance_mm: float) -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    distances = surface_distances(mask, mask, spacing_mm=UNIT)
    with pytest.raises(ConfigError, match="tolerance"):
        surface_dice(distances, tolerance_mm=tolerance_mm)

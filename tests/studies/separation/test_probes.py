from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from shapeguide.disturbing.graded import (
    ERRORS,
    dilated,
    eroded,
    graded_errors,
    room_for_errors,
    roughened,
    shape_of,
    with_far_blob,
    with_hole,
    without_tip,
)
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.metrics.surface import assd_mm, surface_distances
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.studies.separation.probes import error_probe, warp_probe
from shapeguide.training.shape import MaskBank

MM = (1.0, 1.0, 1.0)
STILL = WarpLimits(rotation_deg=0.0, scale=(1.0, 1.0), translation_mm=0.0)


def box(*lengths: int, room: int = 14) -> NDArray[np.bool_]:
    """A box of these lengths in the middle of a grid."""
    return np.pad(np.ones(lengths, dtype=bool), room)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def masks(*shapes: NDArray[np.bool_]) -> MaskBank:
    """A bank of one structure, each mask in the middle of a common grid of 32 voxels."""
    bank = torch.zeros((len(shapes), 1, 32, 32, 32), dtype=torch.uint8)
    for item, shape in zip(bank, shapes, strict=True):
        start = [(32 - n) // 2 for n in shape.shape]
        item[0][tuple(slice(a, a + n) for a, n in zip(start, shape.shape, strict=True))] = (
            torch.from_numpy(shape).to(torch.uint8)
        )
    return MaskBank(bank, MM, STILL)


def network(pose: str = "canonical") -> ShapeNetwork:
    torch.manual_seed(0)
    made = ShapeNetwork(["a"], channels=(4, 8), pose=pose, canonical_shape=16)  # type: ignore[arg-type]
    return made.eval().requires_grad_(False)


def test_errors_change_the_volume_by_exactly_their_share() -> None:
    shape = shape_of(box(10, 10, 10), spacing_mm=MM)
    assert eroded(shape, 0.1, generator()).sum() == 900
    assert dilated(shape, 0.5, generator()).sum() == 1500
    assert without_tip(shape, 0.3, generator()).sum() == 700
    assert with_hole(shape, 0.02, generator()).sum() == 980
    assert with_far_blob(shape, 0.05, generator()).sum() == 1050
    assert roughened(shape, 0.3, generator()).sum() == 1000


def test_an_eroded_mask_lies_inside_and_a_dilated_one_around() -> None:
    shape = shape_of(box(9, 9, 9), spacing_mm=MM)
    inner, outer = eroded(shape, 0.4, generator()), dilated(shape, 0.4, generator())
    assert not (inner & ~shape.mask).any()
    assert not (shape.mask & ~outer).any()
    # 9^3 without its outermost layer is 7^3 = 343 of 729 voxels: all of these are kept first.
    assert inner[16:21, 16:21, 16:21].all()


def test_a_tip_is_cut_off_across_the_longest_axis() -> None:
    shape = shape_of(box(4, 4, 20), spacing_mm=MM)
    kept = np.argwhere(without_tip(shape, 0.25, generator()))
    assert (np.ptp(kept, axis=0) + 1).tolist() == [4, 4, 15]


def test_a_small_hole_lies_within_and_leaves_the_outside_alone() -> None:
    shape = shape_of(box(11, 11, 11), spacing_mm=MM)
    holed = with_hole(shape, 0.01, generator())
    assert ndimage.binary_fill_holes(holed).sum() == 11**3
    assert not holed[19, 19, 19]


def test_a_far_blob_touches_nothing() -> None:
    shape = shape_of(box(8, 8, 8, room=20), spacing_mm=MM)
    _, parts = ndimage.label(with_far_blob(shape, 0.2, generator()))
    assert parts == 2


def test_every_error_grows_with_its_grade_and_stays_in_its_room() -> None:
    mask = box(8, 12, 18, room=30)
    low, high = room_for_errors(mask, spacing_mm=MM)
    shape = shape_of(mask, spacing_mm=MM)
    true: dict[str, list[float]] = {}
    for name, _, wrong in graded_errors(shape, seed=(0,)):
        places = np.argwhere(wrong)
        assert (places.min(0) >= low).all()
        assert (places.max(0) <= high).all()
        true.setdefault(name, []).append(
            assd_mm(surface_distances(wrong, shape.mask, spacing_mm=MM))
        )
    assert set(true) == set(ERRORS)
    for errors in true.values():
        assert errors[0] > 0
        assert (np.diff(errors) > 0).all()


def test_errors_are_the_same_for_the_same_seed_only() -> None:
    shape = shape_of(box(8, 8, 8), spacing_mm=MM)
    first, again, other = (
        np.stack([wrong for *_, wrong in graded_errors(shape, seed=seed)])
        for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_warp_is_no_distance_and_the_canonical_pose_forgives_scale() -> None:
    bank = masks(np.ones((12, 8, 6), dtype=bool), np.ones((7, 7, 14), dtype=bool))
    by_pose = {
        pose: warp_probe(network(pose), bank, unit=1.0).set_index(["variation", "size"])["distance"]
        for pose in ("grid", "canonical")
    }
    for found in by_pose.values():
        assert found["rotation R", 0.0] == pytest.approx(0, abs=1e-5)
        assert found["scale", 1.0] == pytest.approx(0, abs=1e-5)
        assert found["rotation S", 30.0] > found["rotation S", 4.0] > 0
    forgiven = by_pose["canonical"]["scale", 1.5] / by_pose["grid"]["scale", 1.5]
    assert forgiven < 0.5


def test_a_distance_is_told_in_units_of_two_people() -> None:
    bank = masks(np.ones((12, 8, 6), dtype=bool), np.ones((7, 7, 14), dtype=bool))
    one, two = (error_probe(network(), bank, unit=unit) for unit in (1.0, 2.0))
    np.testing.assert_allclose(one["distance"], 2 * two["distance"], rtol=1e-6)
    np.testing.assert_allclose(one["high"], 2 * two["high"], rtol=1e-6)
    assert one["assd_mm"].equals(two["assd_mm"])


def test_one_case_whose_distance_rises_with_the_error_has_a_rank_correlation_of_one() -> None:
    bank = masks(np.ones((12, 8, 6), dtype=bool))
    found = error_probe(network("grid"), bank, unit=1.0)
    rising = found[found["monotone"]]
    assert len(rising) >= 6
    np.testing.assert_allclose(rising["spearman"], 1.0)
    assert (found[~found["monotone"]]["spearman"] < 1).all()


def test_the_error_probe_says_whether_the_distance_rises_with_the_error() -> None:
    bank = masks(np.ones((12, 8, 6), dtype=bool))
    found = error_probe(network("grid"), bank, unit=1.0)
    for _, kind in found.groupby("error"):
        rises = bool((np.diff([0, *kind["distance"]]) > 0).all())
        assert set(kind["monotone"]) == {rises}


def test_a_network_that_sees_no_difference_has_no_units() -> None:
    collapsed = network()
    for weights in collapsed.parameters():
        weights.zero_()
    bank = masks(np.ones((12, 8, 6), dtype=bool), np.ones((7, 7, 14), dtype=bool))
    assert warp_probe(collapsed, bank, unit=0.0)["distance"].isna().all()
    errors = error_probe(collapsed, bank, unit=0.0)
    assert errors["distance"].isna().all()
    assert not errors["monotone"].any()

"""Errors of rising size: how wrong each is, is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
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
from shapeguide.errors import DataError
from shapeguide.metrics.surface import assd_mm, surface_distances

MM = (1.0, 1.0, 1.0)


def box(*lengths: int, room: int = 14) -> NDArray[np.bool_]:
    """A box of these lengths in the middle of a grid."""
    return np.pad(np.ones(lengths, dtype=bool), room)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


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


def test_an_empty_mask_has_no_room_for_errors() -> None:
    with pytest.raises(DataError, match="an empty mask"):
        room_for_errors(np.zeros((4, 4, 4), dtype=bool), spacing_mm=MM)

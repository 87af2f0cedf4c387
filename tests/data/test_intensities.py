"""Intensities to mean 0 and standard deviation 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shapeguide.data.intensities import foreground_mask, normalise_intensities
from shapeguide.errors import DataError


def head() -> NDArray[np.float32]:
    """Background exactly 0 around tissue of about 100."""
    data = np.zeros((20, 20, 20), dtype=np.float32)
    data[5:15, 5:15, 5:15] = np.random.default_rng(0).normal(100, 10, (10, 10, 10))
    return data


def test_the_published_form_counts_all_voxels() -> None:
    data = np.array([[[0, 0], [4, 4]]], dtype=np.float32)
    assert normalise_intensities(data, "volume").tolist() == [[[-1, -1], [1, 1]]]


def test_the_foreground_alone_decides_where_the_background_is_exactly_zero() -> None:
    data = head()
    normalised = normalise_intensities(data, "foreground")
    inside = data != 0
    assert abs(normalised[inside].mean()) < 1e-5
    assert abs(normalised[inside].std() - 1) < 1e-5
    assert np.unique(normalised[~inside]).size == 1
    assert normalised[~inside].max() < -8


def test_padding_with_background_changes_nothing_in_the_foreground() -> None:
    data = head()
    wide = np.pad(data, 7)
    narrow = normalise_intensities(data, "foreground")
    assert np.allclose(normalise_intensities(wide, "foreground")[7:-7, 7:-7, 7:-7], narrow)


def test_a_rare_zero_is_a_value_like_any_other() -> None:
    data = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    assert foreground_mask(data).all()
    assert not foreground_mask(head()).all()


def test_a_few_extreme_voxels_do_not_set_the_scale() -> None:
    data, spiked = head(), head()
    spiked[10, 10, 10] = 1e7
    difference = normalise_intensities(spiked, "foreground") - normalise_intensities(
        data, "foreground"
    )
    assert np.abs(difference).max() < 5
    assert np.abs(np.delete(difference.ravel(), 4210)).max() < 0.1


def test_a_scale_of_the_scanner_does_not_matter() -> None:
    first = normalise_intensities(head(), "foreground")
    second = normalise_intensities(head() * 250, "foreground")
    assert np.allclose(first, second, atol=1e-4)


def test_a_binary_image_is_scaled_by_all_its_voxels() -> None:
    data = np.zeros((4, 4, 4), dtype=np.float32)
    data[:2] = 7
    assert set(np.unique(normalise_intensities(data, "foreground"))) == {-1, 1}


def test_clipping_never_flattens_an_image_that_varies() -> None:
    data = np.full((20, 20, 20), 5, dtype=np.float32)
    data[0, 0, :10] = 6
    assert np.isfinite(normalise_intensities(data, "foreground")).all()
    assert normalise_intensities(data, "foreground").std() > 0.9


@pytest.mark.parametrize("method", ["volume", "foreground"])
@pytest.mark.parametrize("value", [0, 3])
def test_a_constant_image_is_refused(method: str, value: float) -> None:
    data = np.full((4, 4, 4), value, dtype=np.float32)
    with pytest.raises(DataError, match=f"constant: every voxel is {value}"):
        normalise_intensities(data, method)  # type: ignore[arg-type]


def test_the_input_is_left_alone() -> None:
    data = head()
    before = data.copy()
    normalise_intensities(data, "foreground")
    assert np.array_equal(data, before)


@pytest.mark.parametrize("method", ["volume", "foreground"])
@pytest.mark.parametrize("scale", [1.4e-45, 1e-40, 1e-20, 1e20, 3.4e38])
def test_a_scale_at_the_ends_of_float32_gives_finite_values(method: Any, scale: float) -> None:
    """0 and 1e-45 were divided by a deviation that float32 rounds to 0."""
    data = np.zeros((4, 4, 4), dtype=np.float32)
    data[:2] = scale
    assert set(np.unique(normalise_intensities(data, method))) == {-1, 1}


def test_both_ends_of_float32_in_one_image_give_finite_values() -> None:
    data = np.zeros((4, 4, 4), dtype=np.float32)
    data[:2], data[2, 0, 0], data[3] = -3.4e38, 1e-45, 3.4e38
    for method in ("volume", "foreground"):
        with np.errstate(all="raise", under="ignore"):
            normalised = normalise_intensities(data, method)
        assert np.isfinite(normalised).all()
        assert 0.5 < normalised.std() < 1.5


def test_a_scale_by_a_power_of_two_changes_no_bit() -> None:
    for factor in (2.0**-100, 2.0**90):
        scaled = normalise_intensities(head() * np.float32(factor), "foreground")
        assert np.array_equal(scaled, normalise_intensities(head(), "foreground"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused(value: float) -> None:
    data = head()
    data[0, 0, 0] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        normalise_intensities(data, "foreground")

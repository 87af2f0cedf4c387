from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shapeguide.data.synthetic import draw_case
from shapeguide.disturbing.images import (
    BIAS_LOG_GAIN,
    BLUR_MM,
    DEGRADATIONS,
    GHOST_STRENGTH,
    LOG_GAMMA,
    NOISE_DEVIATIONS,
    SLAB_SHARE,
    SLICE_MM,
    degrade,
)
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Volume
from shapeguide.vocabulary import CORRUPTIONS, SEVERITIES

NAMES = tuple(DEGRADATIONS)


def volume_of(
    data: NDArray[np.floating], spacing_mm: tuple[float, float, float] = (1, 1, 1)
) -> Volume:
    grid = Grid(data.shape, np.diag([*spacing_mm, 1.0]))
    return Volume(data.astype(np.float32), grid)


@pytest.fixture(scope="module")
def scan() -> Volume:
    volume, _ = draw_case(0, 0, spatial_shape=(44, 44, 44), spacing_mm=(1, 1, 1), shape="horn")
    return volume


@pytest.mark.parametrize("name", NAMES)
def test_severity_0_is_the_image_itself(scan: Volume, name: str) -> None:
    assert degrade(scan, name, 0, seed=(0,)) is scan


@pytest.mark.parametrize("name", NAMES)
def test_each_severity_is_further_from_the_image_on_the_same_grid(scan: Volume, name: str) -> None:
    before = scan.data.copy()
    found = [degrade(scan, name, severity, seed=(1, 2)) for severity in SEVERITIES]
    changes = [float(np.abs(one.data - before).mean()) for one in found]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert all(one.grid is scan.grid and one.data.dtype == np.float32 for one in found)
    assert all(np.isfinite(one.data).all() for one in found)
    np.testing.assert_array_equal(scan.data, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same(scan: Volume, name: str) -> None:
    first, second = (degrade(scan, name, 2, seed=(3, 4)) for _ in range(2))
    np.testing.assert_array_equal(first.data, second.data)
    others = [degrade(scan, name, 2, seed=(3, seed)).data for seed in range(5, 11)]
    drawn = any(not np.array_equal(first.data, other) for other in others)
    assert drawn == (name != "blur")


@pytest.mark.parametrize("name", ["noise", "blur", "bias", "ghosts", "thick", "contrast"])
def test_background_that_is_exactly_0_stays_so(name: str) -> None:
    data = np.random.default_rng(0).uniform(50, 100, (20, 20, 20))
    data[:5] = 0
    degraded = degrade(volume_of(data), name, 3, seed=(0,)).data
    assert (degraded[:5] == 0).all()
    assert not np.array_equal(degraded[5:], data[5:].astype(np.float32))


def test_noise_is_as_strong_as_stated_where_the_signal_is_high() -> None:
    data = np.full((32, 32, 32), 1000.0)
    data[::2] += 20  # a standard deviation of 10
    noise = degrade(volume_of(data), "noise", 2, seed=(0,)).data - data
    assert noise.std() == pytest.approx(10 * NOISE_DEVIATIONS[1], rel=0.02)


def test_noise_without_signal_has_the_mean_of_rayleigh() -> None:
    data = np.full((32, 32, 32), -5.0)
    data[::2] = 5000.0  # a standard deviation of 2502.5, and a floor of -5
    sigma = 2502.5 * NOISE_DEVIATIONS[0]
    noise = degrade(volume_of(data), "noise", 1, seed=(0,)).data[1::2] - data[1::2]
    assert noise.min() >= 0
    assert noise.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)


def test_blur_is_as_wide_in_mm_along_every_axis() -> None:
    data = np.ones((21, 41, 41))  # not 0, which is background
    data[10, 20, 20] += 1.0
    blurred = degrade(volume_of(data, (1.0, 0.5, 0.5)), "blur", 3, seed=(0,)).data - 1.0
    for axis, spacing in enumerate((1.0, 0.5, 0.5)):
        line = blurred.sum(axis=tuple(other for other in range(3) if other != axis))
        places = (np.arange(line.size) - line.size // 2) * spacing
        assert line.sum() == pytest.approx(1, abs=1e-3)
        assert (line * places**2).sum() == pytest.approx(BLUR_MM[2] ** 2, rel=0.02)


def test_the_bias_field_reaches_the_stated_gain_and_keeps_the_mean_of_its_logarithm() -> None:
    gain = np.log(degrade(volume_of(np.full((9, 9, 9), 7.0)), "bias", 2, seed=(0,)).data / 7)
    assert np.abs(gain).max() == pytest.approx(BIAS_LOG_GAIN[1], abs=1e-5)
    assert gain.mean() == pytest.approx(0, abs=1e-5)
    assert np.abs(np.diff(gain, axis=0)).max() < BIAS_LOG_GAIN[1]


def test_ghosts_are_copies_a_third_of_the_field_of_view_away() -> None:
    data = np.ones((30, 30, 30))  # so that nothing is background
    data[0, 0, 0] += 1.0
    found = degrade(volume_of(data), "ghosts", 3, seed=(0,)).data - 1.0
    s = GHOST_STRENGTH[2]
    # The kept middle line gives back what the lost ones took from the mean.
    copies = [found[10, 0, 0], found[0, 10, 0], found[0, 0, 10]]
    assert min(copies) == pytest.approx(-s / 3 + s / 30, abs=1e-5)
    assert found[0, 0, 0] == pytest.approx(1 - s / 3 + s / 30, abs=1e-5)
    assert found.sum() == pytest.approx(1, abs=1e-2)


def test_the_missing_slab_is_as_thick_as_stated() -> None:
    lost = degrade(volume_of(np.ones((50, 50, 50))), "slab", 2, seed=(0,)).data == 0
    assert lost.mean() == pytest.approx(SLAB_SHARE[1])
    planes = [np.flatnonzero(lost.all(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    (slab,) = (found for found in planes if found.size)
    assert slab.tolist() == list(range(slab[0], slab[0] + 6))


def test_thick_slices_keep_what_is_linear_and_average_what_is_not() -> None:
    ramp = np.broadcast_to(np.arange(48.0)[:, None, None], (48, 48, 48)) * 1.0
    inner = slice(8, 40)
    thick = degrade(volume_of(ramp), "thick", 3, seed=(0,)).data
    np.testing.assert_allclose(thick[inner], ramp[inner], atol=1e-3)
    checked = np.indices((48, 48, 48)).sum(0) % 2 * 100.0 + 1.0
    averaged = degrade(volume_of(checked), "thick", 3, seed=(0,)).data
    assert abs(averaged[inner, inner, inner] - 51).max() < 100 / SLICE_MM[2]


def test_slices_thinner_than_the_voxels_change_nothing() -> None:
    coarse = volume_of(np.random.default_rng(0).normal(size=(8, 8, 8)), (3.0, 3.0, 3.0))
    assert degrade(coarse, "thick", 1, seed=(0,)) is coarse


def test_contrast_bends_the_middle_and_keeps_the_order() -> None:
    data = np.linspace(1, 1001, 1000).reshape(10, 10, 10)
    low, high = np.percentile(data, (0.5, 99.5))
    changed = degrade(volume_of(data), "contrast", 2, seed=(0,)).data.ravel()
    assert (np.diff(changed) >= 0).all()
    middle = np.interp((low + high) / 2, data.ravel(), changed)
    bent = [low + (high - low) * 0.5 ** np.exp(sign * LOG_GAMMA[1]) for sign in (-1, 1)]
    assert min(abs(middle - one) for one in bent) < 1


def test_unknown_names_and_severities_are_errors(scan: Volume) -> None:
    with pytest.raises(ConfigError, match="unknown degradation 'fog'; choose from noise, blur"):
        degrade(scan, "fog", 1, seed=(0,))
    with pytest.raises(ConfigError, match="severities are 0 to 3, found 4"):
        degrade(scan, "noise", 4, seed=(0,))


def test_every_corruption_of_the_vocabulary_is_there_in_its_order() -> None:
    assert tuple(DEGRADATIONS) == CORRUPTIONS

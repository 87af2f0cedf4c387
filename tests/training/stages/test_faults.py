"""Faults of scanners in training images: how often, how bad, and that nothing else is touched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shapeguide.training.stages.faults import (
    BIAS_LOG_GAIN,
    FAULTS,
    GHOST_STRENGTH,
    LARGEST_REMNANT,
    NOISE_DEVIATION,
    SLAB_SHARE,
    Faults,
    draw_faults,
    make_faulty,
)

SPACING_MM = (1.0, 2.0, 1.0)


def scans(count: int) -> Tensor:
    """Signal 1 with stripes of 3 along the first axis, on a background of -1."""
    images = torch.ones(count, 1, 12, 16, 20)
    images[:, :, ::2] = 3.0
    images[:, :, 0, 0, 0] = -1.0
    return images


def drawn(count: int, *, share: float, seed: int = 0) -> Faults:
    generator = torch.Generator().manual_seed(seed)
    return draw_faults(scans(count).shape, share=share, generator=generator)


def only(faults: Faults, name: str) -> Faults:
    chosen = torch.zeros_like(faults.chosen)
    chosen[:, FAULTS.index(name)] = True
    return faults._replace(chosen=chosen)


def test_each_fault_has_its_chance_by_itself() -> None:
    chosen = drawn(4000, share=0.2).chosen.float()
    assert chosen.mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.03)
    none = (chosen.sum(1) == 0).float().mean().item()
    assert none == pytest.approx(0.8**5, abs=0.03)


def test_items_without_a_fault_stay_as_they_are_and_none_is_changed_in_place() -> None:
    images = scans(40)
    faults = drawn(40, share=0.1)
    made = make_faulty(images, faults, spacing_mm=SPACING_MM)
    assert torch.equal(images, scans(40))
    changed = (made != images).flatten(1).any(1)
    assert not changed[~faults.chosen.any(1)].any()
    assert changed.any()
    assert make_faulty(images, drawn(40, share=0.0), spacing_mm=SPACING_MM) is images


def test_an_item_has_the_same_faults_in_a_batch_as_alone() -> None:
    images, faults = scans(6), drawn(6, share=0.6)
    made = make_faulty(images, faults, spacing_mm=SPACING_MM)
    for item in range(6):
        alone = Faults(*(part[item : item + 1] for part in faults))
        found = make_faulty(images[item : item + 1], alone, spacing_mm=SPACING_MM)
        assert torch.equal(found[0], made[item])


def test_slabs_are_erased_or_faint_within_their_thickness_across_every_axis() -> None:
    images = scans(200)
    made = make_faulty(images, only(drawn(200, share=1.0), "slab"), spacing_mm=SPACING_MM)
    kept, axes = [], set()
    for before, after in zip(images[:, 0], made[:, 0], strict=True):
        places = ((before != after) & (before > -1)).nonzero()
        extent = places.amax(0) - places.amin(0) + 1
        (axis,) = [a for a in range(3) if extent[a] < before.shape[a]]
        axes.add(axis)
        low, high = (max(1, round(share * before.shape[axis])) for share in SLAB_SHARE)
        assert low <= extent[axis] <= high
        lost = tuple(places[-1])
        kept.append((float(after[lost]) + 1) / (float(before[lost]) + 1))
    assert axes == {0, 1, 2}
    erased = [share for share in kept if share == 0]
    assert 70 < len(erased) < 130
    assert LARGEST_REMNANT * 0.9 < max(kept) <= LARGEST_REMNANT + 1e-6


def test_bias_ghosts_slices_and_noise_are_as_bad_as_was_drawn() -> None:
    images, faults = scans(60), drawn(60, share=1.0)

    def with_only(name: str) -> Tensor:
        return make_faulty(images, only(faults, name), spacing_mm=SPACING_MM)

    signal = images[:, :, 1:] + 1
    gain = ((with_only("bias")[:, :, 1:] + 1) / signal).log().abs().flatten(1).amax(1)
    assert gain.max() <= BIAS_LOG_GAIN[1] + 1e-4
    assert gain.max() > 0.8 * BIAS_LOG_GAIN[1]
    assert gain.min() > 0.3 * BIAS_LOG_GAIN[0]
    noise = (with_only("noise") - images)[:, :, ::2].flatten(1).std(1)
    assert noise.tolist() == pytest.approx(faults.sizes[:, 3].tolist(), rel=0.15)
    assert NOISE_DEVIATION[0] * 0.8 < noise.min() < noise.max() < NOISE_DEVIATION[1] * 1.2
    # Stripes are the highest frequency along the first axis: line 6 of k-space, a ghosted one.
    ghosts = with_only("ghosts")[:, 0, :, 8, 10]
    contrast = (ghosts[:, 2] - ghosts[:, 3]) / 2
    first = faults.axes[:, 0] == 0
    assert contrast[first].tolist() == pytest.approx(
        (1 - faults.sizes[first, 1]).tolist(), abs=0.02
    )
    assert GHOST_STRENGTH[0] <= 1 - contrast[first].max()
    thick = with_only("thick")[:, 0, 3:9, 8, 10]
    across = faults.axes[:, 1] == 0
    assert (thick[across].amax(1) - thick[across].amin(1)).max() < 1.5
    torch.testing.assert_close(thick[~across], images[~across, 0, 3:9, 8, 10])


def test_thickness_is_in_mm() -> None:
    images, faults = scans(1), only(drawn(1, share=1.0), "thick")
    images[0, 0, :, 1::2] += 1
    faults = faults._replace(axes=torch.ones_like(faults.axes), sizes=torch.full((1, 5), 2.0))
    same = make_faulty(images, faults, spacing_mm=(1.0, 2.0, 1.0))
    blurred = make_faulty(images, faults, spacing_mm=(1.0, 1.0, 1.0))
    assert torch.equal(same, images)
    assert not torch.equal(blurred, images)


def test_constant_images_stay_finite() -> None:
    flat = torch.full((20, 1, 8, 8, 8), 2.0)
    generator = torch.Generator().manual_seed(1)
    faults = draw_faults(flat.shape, share=1.0, generator=generator)
    made = make_faulty(flat, faults, spacing_mm=SPACING_MM)
    assert math.isfinite(made.abs().max())

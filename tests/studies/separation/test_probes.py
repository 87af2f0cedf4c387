from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shapeguide.geometry.warp_limits import WarpLimits
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

"""Centres and sizes from class probabilities, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shapeguide.models.block_unet import as_blocks, as_voxels
from shapeguide.models.finder_network import FinderNetwork
from shapeguide.models.finding import Place, frame_of, of_one_head, sightings


def probabilities(*filled: tuple[tuple[slice, slice, slice], float]) -> np.ndarray:
    found = np.zeros((2, 20, 20, 20), dtype=np.float32)
    for box, value in filled:
        found[(1, *box)] = value
    found[0] = 1 - found[1]
    return found


def locate(found: np.ndarray, least_voxels: list[float], apart: float = 8.0) -> list[Place | None]:
    return of_one_head(sightings(found, least_voxels, apart), apart)


def test_centre_is_the_mean_weighted_by_probability() -> None:
    sure = (slice(4, 6), slice(5, 6), slice(7, 8))
    (place,) = locate(probabilities((sure, 1.0)), [1.0])
    assert place is not None
    assert place.centre.tolist() == [4.5, 5.0, 7.0]
    assert place.voxels == 2.0
    beside = (slice(6, 7), slice(5, 6), slice(7, 8))
    (place,) = locate(probabilities((sure, 1.0), (beside, 0.25)), [1.0])
    assert place is not None
    assert place.centre[0] == pytest.approx((4 + 5 + 0.25 * 6) / 2.25)
    assert place.voxels == pytest.approx(2.25)


def test_component_of_most_probability_is_taken_and_not_the_largest() -> None:
    sure = (slice(2, 4), slice(2, 4), slice(2, 3))
    doubtful = (slice(12, 17), slice(12, 13), slice(12, 13))
    (place,) = locate(probabilities((sure, 1.0), (doubtful, 0.6)), [1.0])
    assert place is not None
    assert place.centre.tolist() == [2.5, 2.5, 2.0]


def test_less_than_the_least_size_is_absent() -> None:
    box = (slice(2, 4), slice(2, 4), slice(2, 4))
    assert locate(probabilities((box, 1.0)), [8.5]) == [None]
    assert locate(probabilities(), [0.1]) == [None]
    assert locate(probabilities((box, 1.0)), [8.0]) != [None]


def test_image_is_shown_without_empty_margins_and_padded_to_the_training_shape() -> None:
    image = np.full((40, 9, 12), -2.0, dtype=np.float32)
    image[25:30, 2:7, 3:5] = 1.0
    frame = frame_of(image, (8, 16, 8), 8)
    seen = frame.cut_out(image, image.min())
    assert seen.shape == (8, 16, 8)
    assert set(np.unique(seen)) == {-2.0, 1.0}
    middle = np.argwhere(seen > 0).mean(axis=0) + frame.first
    assert middle.tolist() == np.argwhere(image > 0).mean(axis=0).tolist()


def test_blocks_keep_every_voxel_where_it_is() -> None:
    images = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 3, 4, 6, 8)
    blocks = as_blocks(images)
    assert blocks.shape == (2, 24, 2, 3, 4)
    assert set(blocks[0, :8, 0, 0, 0].tolist()) == set(images[0, 0, :2, :2, :2].flatten().tolist())
    assert torch.equal(as_voxels(blocks), images)
    with pytest.raises(ValueError, match="finder needs multiples of 4"):
        FinderNetwork(2, channels=(2, 4))(torch.zeros(1, 1, 7, 8, 8))


def two_heads() -> np.ndarray:
    """A structure in both heads, larger in the left; one that the right shows more clearly."""
    found = np.zeros((3, 40, 12, 12), dtype=np.float32)
    found[1, 4:6, 4:8, 4:8], found[1, 31:33, 4:7, 4:8] = 1.0, 1.0
    found[2, 9:11, 4:8, 4:6], found[2, 36:38, 4:8, 4:8] = 1.0, 1.0
    found[0] = 1 - found[1:].sum(axis=0)
    return found


def test_all_structures_are_taken_from_the_head_that_most_is_seen_of() -> None:
    seen = sightings(two_heads(), [1.0, 1.0], 20.0)
    assert [[place.centre[0] for place in places] for places in seen] == [[4.5, 31.5], [36.5, 9.5]]
    first, second = of_one_head(seen, 20.0)
    assert first is not None
    assert second is not None
    assert (first.centre[0], second.centre[0]) == (31.5, 36.5)


def test_a_structure_that_only_the_other_head_shows_is_not_there() -> None:
    found = two_heads()
    found[0, 36:38] += found[2, 36:38]
    found[2, 36:38] = 0
    found[1, 31:33, 4:8, 4:9] = 1.0
    found[0, 31:33, 4:8, 4:9] = 0
    found[0, 9:11] += found[2, 9:11]
    found[2, 9:11] = 0
    first, second = of_one_head(sightings(found, [1.0, 1.0], 20.0), 20.0)
    assert first is not None
    assert first.centre[0] == 31.5
    assert second is None


def test_small_second_sightings_are_none() -> None:
    found = two_heads()
    found[1, 31:33, 4:7, 4:6] = 0
    found[0] = 1 - found[1:].sum(axis=0)
    assert [len(places) for places in sightings(found, [1.0, 1.0], 20.0)] == [1, 2]

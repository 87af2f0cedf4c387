"""The shape restorer on small scenes: what it changes, and above all what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.models.restoration import restore
from shapeguide.models.restorer_model import (
    USUAL_FILE,
    RestorerModel,
    disagreement,
    load_restorer,
    read_usual,
)
from shapeguide.models.shape_restorer import ShapeRestorer

SPACE = WorkingSpace((1.0, 1.0, 1.0), (12, 12, 12))
STRUCTURES = (Structure("horn", (1,)),)


def model_of(
    network: nn.Module, *, caution: float = 3.0, window: tuple[int, int, int] | None = None
) -> RestorerModel:
    return RestorerModel(network, STRUCTURES, SPACE, caution, (), window)


def two_classes(horn: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([1 - horn, horn]).astype(np.float32)


def box() -> NDArray[np.float32]:
    """Probability 0.9 in a box, 0.1 around it."""
    horn = np.full((12, 12, 12), 0.1, dtype=np.float32)
    horn[2:8, 2:8, 2:8] = 0.9
    return horn


class Adding(nn.Module):
    """Sets the log odds of the horn over the background at chosen voxels."""

    def __init__(self, *odds: tuple[tuple[slice | int, ...], float]) -> None:
        super().__init__()
        self.odds = odds

    def forward(self, probabilities: Tensor) -> Tensor:
        logits = probabilities.log()
        for place, value in self.odds:
            logits[0, 0][place], logits[0, 1][place] = 0.0, value
        return logits


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return np.asarray((3 * logits).softmax(0).numpy(), dtype=np.float32)


@pytest.mark.parametrize("shape", [(12, 12, 12), (7, 9, 5), (1, 2, 3), (16, 8, 8)])
@pytest.mark.parametrize("coarsening", [1, 2, 3])
def test_untrained_network_leaves_probabilities_bit_identical(
    shape: tuple[int, int, int], coarsening: int
) -> None:
    torch.manual_seed(0)
    network = ShapeRestorer(2, channels=(4, 8, 8), coarsening=coarsening)
    seen = noise((2, *shape))
    logits = network(torch.from_numpy(seen)[None])
    assert logits.shape == (1, 2, *shape)
    assert torch.equal(logits[0], torch.from_numpy(seen).clamp(min=1e-3).log())
    assert np.array_equal(restore(model_of(network.eval()), seen), seen)


def test_correction_of_coarse_blocks_stays_where_the_blocks_are() -> None:
    network = ShapeRestorer(2, channels=(4,), coarsening=2)
    network.add_module("unet", EchoingUNet())
    seen = np.full((2, 8, 8, 7), 0.5, dtype=np.float32)
    seen[:, 4:6, 2:4, 6:] = np.array([0.0, 1.0])[:, None, None, None]
    added = network(torch.from_numpy(seen)[None]) - torch.from_numpy(seen).clamp(min=1e-3).log()
    # The block is hottest in its own voxels; the U-Net gave back what it got, times the gain.
    assert added.shape == (1, 2, 8, 8, 7)
    hottest = (added[0, 1] >= added[0, 1].max() - 1e-6).nonzero()
    assert {tuple(place) for place in hottest.tolist()} <= {
        (i, j, 6) for i in (4, 5) for j in (2, 3)
    }


class EchoingUNet(nn.Module):
    divisor = 1

    def forward(self, coarse: Tensor) -> Tensor:
        return coarse


def test_correction_below_caution_is_not_taken() -> None:
    seen = two_classes(box())
    hesitant = Adding(((slice(9, 11), slice(2, 5), slice(2, 5)), 2.9))
    assert np.array_equal(restore(model_of(hesitant), seen), seen)


def test_region_is_taken_whole_when_one_voxel_of_it_reaches_caution() -> None:
    seen = two_classes(box())
    region = (slice(9, 11), slice(2, 5), slice(2, 5))
    found = restore(model_of(Adding((region, 0.5), ((9, 3, 3), 3.0))), seen)
    wanted = seen[1].copy()
    wanted[region] = 1 / (1 + np.exp(-0.5))
    wanted[9, 3, 3] = 1 / (1 + np.exp(-3.0))
    assert np.allclose(found[1], wanted, atol=1e-6)
    assert np.allclose(found.sum(0), 1, atol=1e-6)
    untouched = np.ones(seen.shape[1:], dtype=bool)
    untouched[region] = False
    assert np.array_equal(found[:, untouched], seen[:, untouched])


def test_disagreement_is_the_moved_probability_as_a_share_of_the_structure() -> None:
    seen = two_classes(box())
    moved = 1 / (1 + np.exp(-2.5)) - 0.1
    model = model_of(Adding(((9, 3, 3), 2.5), ((10, 9, 9), 2.5)))
    assert disagreement(model, seen) == pytest.approx(2 * moved / 6**3, rel=1e-5)
    assert disagreement(model_of(Adding()), seen) == pytest.approx(0.0, abs=1e-6)
    assert disagreement(model, two_classes(np.zeros((12, 12, 12), np.float32))) == 0.0


@pytest.mark.parametrize(("share_of_own", "changed"), [(1.001, False), (0.999, True)])
def test_predictions_that_are_usual_for_the_segmenter_are_left_alone(
    share_of_own: float, changed: bool
) -> None:
    seen = two_classes(box())
    model = model_of(Adding(((9, 3, 3), 5.0)))
    usual = replace(model, usual_disagreement=share_of_own * disagreement(model, seen))
    assert np.array_equal(restore(usual, seen), seen) is not changed


def test_damaged_file_of_what_is_usual_is_refused_with_the_way_out(tmp_path: Path) -> None:
    assert read_usual(tmp_path) is None
    (tmp_path / USUAL_FILE).write_text('{"share": 2}')
    with pytest.raises(CheckpointError, match="delete it and run the training again"):
        read_usual(tmp_path)


def test_regions_that_meet_at_an_edge_only_are_apart() -> None:
    seen = two_classes(box())
    found = restore(model_of(Adding(((9, 3, 3), 5.0), ((10, 4, 3), 0.5))), seen)
    assert found[1, 9, 3, 3] > 0.5
    assert found[1, 10, 4, 3] == seen[1, 10, 4, 3]


def test_stray_voxels_are_removed_and_confirmed_ones_keep_their_values() -> None:
    horn = box()
    horn[10, 10, 10] = 0.8
    seen = two_classes(horn)
    found = restore(model_of(Adding(((10, 10, 10), -4.0), ((4, 4, 4), 9.0))), seen)
    assert found[1, 10, 10, 10] < 0.5
    assert found[1, 4, 4, 4] == seen[1, 4, 4, 4]


def test_beyond_the_window_around_the_structures_nothing_changes() -> None:
    horn = np.zeros((24, 24, 24), dtype=np.float32)
    horn[2:8, 2:8, 2:8] = 0.9
    horn[20, 20, 20] = 0.9
    seen = two_classes(horn)
    everything = Everything()
    found = restore(model_of(everything, window=(7, 7, 7)), seen)
    assert everything.shapes == [(1, 2, 7, 7, 7)]
    # The median position of the horn, stray voxel included, is 5 along each axis.
    inside = np.zeros(horn.shape, dtype=bool)
    inside[2:9, 2:9, 2:9] = True
    assert (found[1, inside] > 0.5).all()
    assert np.array_equal(found[:, ~inside], seen[:, ~inside])


def test_a_lost_structure_does_not_move_the_window_away_from_its_place() -> None:
    left, right = np.zeros((2, 40, 12, 12), dtype=np.float32)
    left[4:10, 3:9, 3:9] = 0.9
    right[30:36, 3:9, 3:9] = 0.9
    model = RestorerModel(
        Everything(),
        (Structure("left", (1,)), Structure("right", (2,))),
        SPACE,
        3.0,
        (),
        window=(36, 9, 9),
        offsets=((-13.0, 0.0, 0.0), (13.0, 0.0, 0.0)),
    )

    def changed(*structures: NDArray[np.float32]) -> list[int]:
        """First and last voxel along the first axis that the restorer touched."""
        seen = np.stack([1 - sum(structures), *structures]).astype(np.float32)
        touched = (restore(model, seen) != seen).any(axis=(0, 2, 3))
        return [int(place) for place in np.flatnonzero(touched)[[0, -1]]]

    assert changed(left, right) == [2, 37]
    assert changed(left, np.zeros_like(right)) == [2, 37]
    assert changed(np.zeros_like(left), right) == [2, 37]


class Everything(nn.Module):
    """Finds the first structure everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, probabilities: Tensor) -> Tensor:
        self.shapes.append(tuple(probabilities.shape))
        logits = torch.zeros_like(probabilities)
        logits[:, 1] = 9.0
        return logits


def test_prediction_without_any_structure_stays_as_it_is() -> None:
    seen = two_classes(np.full((6, 6, 6), 0.2, dtype=np.float32))
    assert np.array_equal(restore(model_of(Everything()), seen), seen)


def test_given_probabilities_are_not_written_to() -> None:
    seen = two_classes(box())
    before = seen.copy()
    restore(model_of(Everything()), seen)
    assert np.array_equal(seen, before)


def test_probabilities_of_other_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"knows 1 structures.*found shape \(3, 4, 4, 4\)"):
        restore(model_of(Everything()), noise((3, 4, 4, 4)))


def test_folder_without_a_restorer_is_refused(tmp_path: object) -> None:
    with pytest.raises(CheckpointError, match="no finished model"):
        load_restorer(str(tmp_path))

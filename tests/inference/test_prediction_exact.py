"""Predictions whose every voxel is known: the network is a function of the single voxel.

What it finds is what the image says, so a shift by one voxel, a flipped axis or a window that is
put in the wrong place shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.inference import prediction as prediction_module
from shapeguide.inference.prediction import predict, predict_volume
from shapeguide.inference.run import TrainedRun, as_run
from shapeguide.models.restoration import Restoration
from shapeguide.models.segmenter import Segmenter

STRUCTURES = (Structure("grey", (5,)), Structure("bright", (7, 8)))
LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
TURNED = np.array(
    [
        [0.0, np.cos(0.3), -np.sin(0.3), 5.0],
        [-1.0, 0.0, 0.0, 40.0],
        [0.0, np.sin(0.3), np.cos(0.3), -12.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


class Bands(nn.Module):
    """Background below the mean of the scan, grey up to one deviation above it, bright beyond."""

    def __init__(self, *, blind_faces: bool = False) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.blind_faces = blind_faces
        """Whether it calls the outermost voxels along the first axis of what it sees bright."""
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        edges = [torch.zeros_like(images), images, 2 * images - 1]
        logits = torch.cat(edges, dim=1) * self.sharpness
        if self.blind_faces:
            logits[:, 2, [0, -1]] = 1e3
        return logits


def segmenter(
    spatial_shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    blind_faces: bool = False,
) -> Segmenter:
    space = WorkingSpace(spacing_mm, spatial_shape, "volume", "volume")
    network = Bands(blind_faces=blind_faces).requires_grad_(False)
    return Segmenter(network, STRUCTURES, space)


def calls_of(model: Segmenter) -> int:
    assert isinstance(model.network, Bands)
    return model.network.calls


def noise(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    """Three intensities at random, each clearly of one class: no voxel is like its neighbours."""
    drawn = np.random.default_rng(seed).choice([100, 200, 300], size=shape, p=[0.6, 0.2, 0.2])
    return drawn.astype(np.float32)


def expected(data: NDArray[np.float32]) -> NDArray[np.int64]:
    standard = (data.astype(np.float64) - data.mean(dtype=np.float64)) / data.std(dtype=np.float64)
    assert min(np.abs(standard).min(), np.abs(standard - 1).min()) > 1e-3
    found: NDArray[np.int64] = np.array([0, 5, 7])[(standard > 0).astype(int) + (standard > 1)]
    return found


@pytest.mark.parametrize("affine", [np.eye(4), LAS, TURNED], ids=["RAS", "LAS", "turned"])
def test_every_voxel_gets_the_class_of_its_own_intensity(affine: NDArray[np.float64]) -> None:
    data = noise((11, 14, 9))
    found = predict(segmenter((16, 16, 16)), Volume(data, Grid(data.shape, affine)))
    assert np.array_equal(found.data, expected(data))
    assert np.array_equal(found.grid.affine, affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scan_larger_than_the_window_is_found_voxel_by_voxel(axis: int) -> None:
    shape = [8, 8, 8]
    shape[axis] = 29
    data = noise((shape[0], shape[1], shape[2]), seed=axis)
    model = segmenter((8, 8, 8))
    found = predict(model, Volume(data, Grid(data.shape, LAS)))
    assert np.array_equal(found.data, expected(data))
    assert calls_of(model) > 3


def test_a_quarter_of_a_window_overlaps_the_next() -> None:
    # From 0 to 48 in steps of 12 are five windows: four without overlap, seven with half of it.
    model = segmenter((16, 8, 8))
    data = noise((64, 8, 8))
    predict(model, Volume(data, Grid(data.shape, np.eye(4))))
    assert calls_of(model) == 5


def test_where_windows_overlap_their_faces_count_least() -> None:
    data = noise((28, 8, 8))
    model = segmenter((16, 8, 8), blind_faces=True)
    found = predict(model, Volume(data, Grid(data.shape, np.eye(4))))
    # Far from the middle along the other axes all weights are the smallest one.
    middle = (slice(1, -1), slice(3, 5), slice(3, 5))
    assert np.array_equal(found.data[middle], expected(data)[middle])
    assert (found.data[[0, -1]] == 7).all()


@pytest.mark.parametrize(
    "spacing_mm",
    [(1.5, 1.5, 1.5), (0.7, 0.7, 0.7), (2.0, 1.0, 0.8)],
    ids=["coarser", "finer", "anisotropic"],
)
@pytest.mark.parametrize("affine", [np.eye(4), LAS, TURNED], ids=["RAS", "LAS", "turned"])
@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -1, 0), (0, 0, 1), (1, -2, 3)])
def test_a_ramp_is_cut_where_it_was_after_another_spacing(
    direction: tuple[int, int, int],
    affine: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
) -> None:
    # Linear resampling leaves a ramp as it is, and its classes lie in order: voxels that are half a
    # step from a cut or nearer may go to either side, all others may not.
    shape = (20, 22, 24)
    ramp = np.tensordot(direction, np.indices(shape), axes=1).astype(np.float32)
    found = predict(segmenter((16, 16, 16), spacing_mm), Volume(ramp, Grid(shape, affine)))
    standard = (ramp - ramp.mean(dtype=np.float64)) / ramp.std(dtype=np.float64)
    step = np.abs(direction).max() / ramp.std(dtype=np.float64)
    inner = (slice(2, -2),) * 3
    for cut, ids in ((0.0, (5, 7)), (1.0, (7,))):
        decided = np.abs(standard[inner] - cut) > 0.26 * step
        beyond = np.isin(found.data[inner], ids)
        assert np.array_equal(beyond[decided], (standard[inner] > cut)[decided])
        assert decided.mean() > 0.9


class Erases:
    """A restorer that leaves nothing but background in the first half of what it is given."""

    def __init__(self, structures: tuple[Structure, ...], space: WorkingSpace) -> None:
        self.structures, self.space = structures, space
        self.identity: dict[str, Any] = {"kind": "erases"}

    def restore(self, probabilities: NDArray[np.float32]) -> Restoration:
        restored = probabilities.copy()
        half = restored.shape[1] // 2
        restored[0, :half], restored[1:, :half] = 1, 0
        return Restoration(restored, (restored != probabilities).any(0))


def test_without_a_restorer_predictions_stay_as_the_segmenter_makes_them() -> None:
    data = noise((16, 16, 16))
    volume = Volume(data, Grid(data.shape, np.eye(4)))
    model = segmenter((16, 16, 16))
    for plain in (model, TrainedRun(model, None)):
        found = predict_volume(plain, volume)
        assert found.parts[0].restoration is None
        assert not found.restored
        assert found.changed_mm3 == {"grey": 0.0, "bright": 0.0}
        assert np.array_equal(found.label_map().data, expected(data))
    assert as_run(model).restorer is None


def test_a_restorer_changes_what_it_says_and_the_change_is_counted_in_mm3() -> None:
    data, affine = noise((16, 16, 16)), np.diag([-1.0, 1.0, 2.0, 1.0])
    model = segmenter((16, 16, 16), (1.0, 1.0, 2.0))
    run = TrainedRun(model, Erases(STRUCTURES, model.space))
    found = predict_volume(run, Volume(data, Grid(data.shape, affine)))
    whole = expected(data)
    kept = whole.copy()
    kept[8:] = 0  # the scan is LAS: its second half is the first of the working space
    assert found.restored
    assert np.array_equal(found.label_map().data, kept)
    assert np.array_equal(predict(run, found.volume).data, kept)
    assert found.changed_mm3 == {
        "grey": 2.0 * np.count_nonzero(whole[8:] == 5),
        "bright": 2.0 * np.count_nonzero(whole[8:] == 7),
    }


@pytest.mark.parametrize(
    ("structures", "spacing_mm"),
    [
        (STRUCTURES[:1], (1.0, 1.0, 1.0)),
        (STRUCTURES[::-1], (1.0, 1.0, 1.0)),
        (STRUCTURES, (1.0, 1.0, 1.2)),
    ],
    ids=["fewer", "another order", "another spacing"],
)
def test_a_restorer_of_other_structures_or_spacing_is_refused(
    structures: tuple[Structure, ...], spacing_mm: tuple[float, float, float]
) -> None:
    model = segmenter((16, 16, 16))
    with pytest.raises(
        ConfigError, match=r"the restorer was trained on .*; train both on the same"
    ):
        TrainedRun(model, Erases(structures, WorkingSpace(spacing_mm, (16, 16, 16))))
    # The window of the restorer is its own affair.
    TrainedRun(model, Erases(STRUCTURES, WorkingSpace((1.0, 1.0, 1.0), (8, 8, 8))))


def test_probabilities_are_refused_just_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise((16, 16, 16))
    volume = Volume(data, Grid(data.shape, np.eye(4)))
    needed = 4 * 3 * 16**3
    monkeypatch.setattr(prediction_module, "LARGEST_PROBABILITIES_BYTES", needed)
    predict(segmenter((16, 16, 16)), volume)
    monkeypatch.setattr(prediction_module, "LARGEST_PROBABILITIES_BYTES", needed - 1)
    with pytest.raises(DataError, match=r"probabilities of 3 classes on \(16, 16, 16\) voxels"):
        predict(segmenter((16, 16, 16)), volume)

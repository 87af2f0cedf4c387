"""Prediction of regions that a finder finds: a network and a finder that look at brightness."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapeguide.data.regions import Region, Regions
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.inference.prediction import Prediction, predict_volume
from shapeguide.models.finding import FoundStructure
from shapeguide.models.segmenter import Segmenter

STRUCTURES = (Structure("grey", (7,)), Structure("bright", (9,)))
SHAPE = (40, 36, 32)
LEVELS = {"grey": 200.0, "bright": 300.0}


class Brightness(nn.Module):
    """Background, grey and bright by thresholds; notes what it was shown."""

    def __init__(self, levels: tuple[float, float]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape[2:]))
        low, high = self.levels
        background, bright = images < low, images >= high
        grey = ~background & ~bright
        return torch.cat([background, grey, bright], dim=1).float() * 40


@dataclass
class Told:
    """A finder that is told where structures are, and how far off to say so."""

    off_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hidden: tuple[str, ...] = ()
    structures: tuple[Structure, ...] = STRUCTURES
    calls: list[Volume] = field(default_factory=list)

    def find(self, volume: Volume) -> dict[str, FoundStructure]:
        self.calls.append(volume)
        found = {}
        for name, level in LEVELS.items():
            voxels = np.argwhere(volume.data == level)
            if len(voxels) and name not in self.hidden:
                i, j, k = (volume.grid.to_world(voxels.mean(axis=0)) + self.off_mm).tolist()
                found[name] = FoundStructure((i, j, k), float(len(voxels)))
        return found


def scene() -> NDArray[np.float32]:
    data = np.full(SHAPE, 100, dtype=np.float32)
    data[6:12, 8:16, 10:16] = LEVELS["grey"]
    data[24:30, 8:16, 10:16] = LEVELS["bright"]
    return data


def segmenter(
    finder: Told, groups: list[tuple[str, ...]], window: tuple[int, int, int]
) -> Segmenter:
    data = scene()
    low, high = ((level - data.mean()) / data.std() for level in (150.0, 250.0))
    offsets = {"grey": (9.0, 0.0, 0.0), "bright": (-9.0, 0.0, 0.0)}
    each = tuple(
        Region(group, tuple(offsets[name] if len(group) > 1 else (0.0, 0.0, 0.0) for name in group))
        for group in groups
    )
    return Segmenter(
        Brightness((float(low), float(high))).requires_grad_(False),
        STRUCTURES,
        WorkingSpace((1.0, 1.0, 1.0), window, "structure", "volume"),
        regions=Regions(each, window, 2.0),
        finder=finder,  # type: ignore[arg-type]
    )


def found_in(prediction: Prediction) -> NDArray[np.integer]:
    return prediction.label_map().data


def expected() -> NDArray[np.integer]:
    return np.select([scene() == 200, scene() == 300], [7, 9])


TOGETHER: list[tuple[str, ...]] = [("grey", "bright")]
APART: list[tuple[str, ...]] = [("grey",), ("bright",)]


@pytest.mark.parametrize(
    ("groups", "window"), [(TOGETHER, (32, 16, 16)), (APART, (12, 12, 12)), (APART, (30, 12, 12))]
)
@pytest.mark.parametrize("flip", [False, True])
def test_regions_give_what_they_hold(
    groups: list[tuple[str, ...]], window: tuple[int, int, int], flip: bool
) -> None:
    data, affine = scene(), np.eye(4)
    affine[:3, 3] = (-20, 5, 3)
    wanted = expected()
    if flip:
        data, wanted = np.ascontiguousarray(data[::-1]), wanted[::-1]
        affine[0, 0], affine[0, 3] = -1, affine[0, 3] + SHAPE[0] - 1
    model = segmenter(Told(), groups, window)
    found = predict_volume(model, Volume(data, Grid(SHAPE, affine)))
    assert np.array_equal(found_in(found), wanted)
    assert found.missed == ()
    assert found.probabilities.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert isinstance(model.network, Brightness)
    assert set(model.network.shapes) == {window}
    assert len(model.network.shapes) == len(groups)


def test_what_is_not_found_is_missed_and_not_guessed() -> None:
    volume = Volume(scene(), Grid(SHAPE, np.eye(4)))
    for groups, window in ((TOGETHER, (32, 16, 16)), (APART, (12, 12, 12))):
        found = predict_volume(segmenter(Told(hidden=("bright",)), groups, window), volume)
        assert found.missed == ("bright",)
        assert np.array_equal(found_in(found), np.where(expected() == 7, 7, 0))
    nothing = predict_volume(
        segmenter(Told(hidden=("grey", "bright")), TOGETHER, (32, 16, 16)), volume
    )
    assert nothing.missed == ("grey", "bright")
    assert not found_in(nothing).any()
    assert (nothing.probabilities[0] == 1).all()
    with pytest.raises(ConfigError, match="looked at in 0 regions"):
        _ = nothing.seen


def test_a_region_at_whose_border_something_is_found_is_laid_once_more() -> None:
    volume = Volume(scene(), Grid(SHAPE, np.eye(4)))
    model = segmenter(Told(off_mm=(0.0, 6.0, 0.0)), APART, (10, 12, 10))
    found = predict_volume(model, volume)
    assert np.array_equal(found_in(found), expected())
    assert isinstance(model.network, Brightness)
    assert len(model.network.shapes) == 4  # each once more
    still = segmenter(Told(off_mm=(0.0, 1.0, 0.0)), APART, (10, 12, 10))
    assert np.array_equal(found_in(predict_volume(still, volume)), expected())
    assert isinstance(still.network, Brightness)
    assert len(still.network.shapes) == 2


def test_a_structure_at_the_edge_of_the_scan_does_not_move_its_region() -> None:
    data = scene()[6:]  # grey begins with the scan
    model = segmenter(Told(), APART, (12, 12, 12))
    shifted = np.eye(4)
    found = predict_volume(model, Volume(np.ascontiguousarray(data), Grid(data.shape, shifted)))
    assert np.array_equal(found_in(found), expected()[6:])
    assert isinstance(model.network, Brightness)
    assert len(model.network.shapes) == 2


def test_a_region_larger_than_the_scan() -> None:
    model = segmenter(Told(), TOGETHER, (64, 64, 64))
    found = predict_volume(model, Volume(scene(), Grid(SHAPE, np.eye(4))))
    assert np.array_equal(found_in(found), expected())


def test_a_segmenter_of_regions_needs_its_finder() -> None:
    model = segmenter(Told(), TOGETHER, (32, 16, 16))
    lost = Segmenter(model.network, model.structures, model.space, regions=model.regions)
    with pytest.raises(ConfigError, match="no finder to find them; load its run folder"):
        predict_volume(lost, Volume(scene(), Grid(SHAPE, np.eye(4))))

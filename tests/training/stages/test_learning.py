"""A short training learns to segment scans that it has not seen, plain and guided."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.metrics.overlap import dice
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset

SPACING_MM = (2.0, 2.0, 2.5)
SHAPE = (18, 16, 14)
LEFT, RIGHT = 1, 2
PLACES = {
    "a": ((-7.0, 2.0, 1.0), (8.0, -3.0, -2.0)),
    "b": ((-8.0, -2.0, -2.0), (7.0, 2.0, 2.0)),
    "c": ((-6.0, 0.0, 2.0), (9.0, 1.0, 0.0)),
    "d": ((-7.0, -3.0, 0.0), (8.0, 3.0, -1.0)),
    "unseen": ((-7.5, 1.0, -1.0), (7.5, -1.0, 1.5)),
}
"""Centres in mm from the middle of the grid: a bright ball on one side, a dark one on the other."""


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("balls")
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING_MM, strict=True)]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    noise = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    rows = []
    for name, places in PLACES.items():
        classes = np.zeros(SHAPE, dtype=np.uint8)
        for label, radius_mm, (u, v, w) in zip((LEFT, RIGHT), (5.5, 6.5), places, strict=True):
            classes[(i - u) ** 2 + (j - v) ** 2 + (k - w) ** 2 <= radius_mm**2] = label
        image = 100 + 60.0 * (classes == LEFT) - 60.0 * (classes == RIGHT)
        image += noise.normal(0, 10, SHAPE)
        row = {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
        for path, data in zip(row.values(), (image.astype(np.float32), classes), strict=True):
            nib.save(nib.Nifti1Image(data, np.diag([*SPACING_MM, 1.0])), folder / path)
        rows.append(row)
    labels = {"background": 0, "left": LEFT, "right": RIGHT}
    description = {"name": "balls", "labels": labels, "training": rows}
    (folder / "dataset.json").write_text(json.dumps(description))
    dataset = sg.read_dataset(folder / "dataset.json")
    return dataset.with_structures(left=(LEFT,), right=(RIGHT,))


def short(guidance: str) -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        guidance=guidance,
        warp=WarpLimits(rotation_deg=8.0, scale=(0.85, 1.15), translation_mm=2.0),
        segmentation=quick.segmentation.changed(
            channels=(8, 16), dice_iterations=60, guided_iterations=20, learning_rate=1e-2
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32", checkpoint_every=1000),
    )


@pytest.mark.parametrize("guidance", ["none", "boundary"])
def test_a_short_training_segments_a_scan_that_it_has_not_seen(
    balls: Dataset, tmp_path: Path, guidance: str
) -> None:
    train = balls.select([name for name in PLACES if name != "unseen"])
    segmenter = sg.train_segmenter(
        train, run_dir=tmp_path / "run", settings=short(guidance), progress=False
    )
    unseen = balls.select(["unseen"])[0]
    predicted, reference = sg.predict(segmenter, unseen.read_volume()), unseen.read_label_map()
    for structure in ("left", "right"):
        mask, wanted = predicted.mask(structure), reference.mask(structure)
        assert dice(mask, wanted) > 0.9
        # A scan moved by one voxel would not do.
        assert all(dice(np.roll(mask, 1, axis), wanted) < 0.85 for axis in range(3))

"""What is too large to be seen at once is worked on in patches."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.metrics.overlap import dice
from shapeguide.training import placing
from shapeguide.training.cohort import cohort_of
from shapeguide.training.placing import window_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.segmentation_batches import SegmentationBatches

SHAPE = (72, 66, 64)


@pytest.fixture
def organs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Scans half of which is one bright organ, and windows that hold an eighth of them."""
    monkeypatch.setattr(placing, "LARGEST_WINDOW_VOXELS", 32**3)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        random = np.random.default_rng(number)
        labels = np.zeros(SHAPE, np.uint8)
        labels[6 + number :, 8:-8, 6:-6] = 1
        image = random.normal(0, 10, SHAPE) + 100 * labels
        for kind, data in (("images", image.astype(np.float32)), ("labels", labels)):
            nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / kind / f"o{number}.nii")
    return sg.read_dataset(tmp_path).with_structures(organ=1)


def settings() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        segmentation=quick.segmentation.changed(
            channels=(4, 8), batch_size=2, dice_iterations=40, guided_iterations=0,
            validation_cases=1, validate_every=40,
        ),
        machine=quick.machine.changed(device="cpu"),
    )  # fmt: skip


def test_a_patch_shortens_the_longest_sides_first() -> None:
    assert window_of((96, 96, 80), 8) == (96, 96, 80)
    assert window_of((256, 200, 120), 16) == (128, 128, 120)
    assert np.prod(window_of((600, 600, 600), 8)) <= 128**3
    assert all(length % 8 == 0 for length in window_of((600, 590, 580), 8))


def test_batches_are_patches_from_everywhere(organs: Dataset) -> None:
    cohort = cohort_of(organs, settings())
    assert cohort.in_patches
    assert cohort.regions is None
    assert np.prod(cohort.space.spatial_shape) <= 32**3
    batches = SegmentationBatches(cohort.train_cases, settings())
    shares = [float((batches[n].classes > 0).float().mean()) for n in range(6)]
    assert any(0 < share < 1 for share in shares)
    assert max(shares) - min(shares) > 0.1


def test_an_organ_that_fills_half_of_the_scan_is_trained_and_predicted_in_patches(
    organs: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train, test = organs.split_at_random(test_count=1, seed=0)
    with caplog.at_level("INFO"):
        segmenter = sg.train(train, out=run, settings=settings(), progress=False)
    assert "worked on in patches of" in caplog.text
    assert "guidance 'shape' would mean nothing" in caplog.text
    assert not (run / "finder").exists()
    assert not (run / "shape").exists()
    assert json.loads((run / "model.json").read_text())["regions"] is None
    case = test[0]
    found = sg.predict(segmenter, case.read_volume())
    assert dice(found.data == 1, case.read_label_map().data == 1) > 0.8

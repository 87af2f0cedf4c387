"""Images of two channels, from training to prediction: what only the second shows is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.errors import DataError
from shapeguide.geometry.grid import Grid
from shapeguide.metrics.overlap import dice
from shapeguide.models.segmenter import Segmenter
from shapeguide.training.cohort import cohort_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.segmentation_batches import SegmentationBatches

SHAPE = (16, 16, 16)


def write(folder: Path, name: str, seed: int) -> None:
    """Two scans of a block that the second shows, one on a shifted grid, in the nnU-Net layout."""
    drawn = np.random.default_rng(seed)
    corner = drawn.integers(3, 6, size=3)
    ids = np.zeros(SHAPE, dtype=np.uint8)
    i, j, k = (slice(start, start + 6) for start in corner)
    ids[i, j, k] = 1
    noise = drawn.normal(size=(2, *SHAPE)).astype(np.float32)
    moved = np.eye(4)
    moved[0, 3] = 1.0
    shifted = np.roll(6 * ids.astype(np.float32), -1, axis=0) + 0.3 * noise[1]
    grid = Grid(SHAPE, np.eye(4))
    sg.write_volume(sg.Volume(noise[0], grid), folder / "imagesTr" / f"{name}_0000.nii.gz")
    sg.write_volume(
        sg.Volume(shifted, Grid(SHAPE, moved)), folder / "imagesTr" / f"{name}_0001.nii.gz"
    )
    sg.write_label_map(sg.LabelMap(ids, grid), folder / "labelsTr" / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("channels") / "data"
    for seed in range(4):
        write(folder, f"head_{seed}", seed)
    stated = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "block": 1}}
    (folder / "dataset.json").write_text(json.dumps({**stated, "file_ending": ".nii.gz"}))
    return read_dataset(folder)


def tiny() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        guidance="none",
        segmentation=quick.segmentation.changed(
            dice_iterations=60, channels=(4, 8), batch_size=2, learning_rate=1e-2,
            validation_cases=1, validate_every=60, elastic_mm=0.5, scanner_faults=0.1,
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channels") / "run"
    train = dataset.select([f"head_{n}" for n in range(3)])
    test = dataset.select(["head_3"])
    sg.train(train, test=test, out=folder, settings=tiny(), progress=False)
    return folder


def test_the_second_channel_is_learnt_from_and_noted(run: Path, dataset: Dataset) -> None:
    segmenter = sg.load_segmenter(run, device="cpu")
    assert segmenter.image_channels == ("T1", "T2")
    case = dataset[3]
    found = sg.predict(segmenter, case.read_channels())
    reference = case.read_label_map()
    assert found.grid.matches(reference.grid)
    assert dice(found.data == 1, reference.data == 1) > 0.8
    swapped = sg.predict(segmenter, case.read_channels()[::-1])
    assert dice(swapped.data == 1, reference.data == 1) < 0.5


def test_channels_are_predicted_from_a_dataset_a_folder_or_one_of_their_files(
    run: Path, dataset: Dataset, tmp_path: Path
) -> None:
    images = dataset.path / "imagesTr"
    case = dataset[3]
    expected = sg.predict(sg.load_segmenter(run, device="cpu"), case.read_channels()).data
    patterns = {"images": ("T2=imagesTr/*_0001.nii.gz", "T1=imagesTr/*_0000.nii.gz")}
    by_name = read_dataset(dataset.path, **patterns).unlabelled[3]  # type: ignore[arg-type]
    scans: dict[str, Any] = {
        "cases": [case],
        "folder": images,
        "file": images / "head_3_0001.nii.gz",
        "both": [images / "head_3_0000.nii.gz", images / "head_3_0001.nii.gz"],
    }
    for name, given in scans.items():
        out = tmp_path / name
        report = sg.predict_files(run, given, out_dir=out, progress=False)
        assert report.complete
        found = sg.read_label_map(out / "head_3.nii.gz")
        assert np.array_equal(found.data, expected), name
    assert by_name.channel_names == ("T2", "T1")
    report = sg.predict_files(run, [by_name], out_dir=tmp_path / "named", progress=False)
    on_second = sg.read_label_map(report.written[0])
    assert on_second.grid.matches(by_name.read_grid())
    assert not on_second.grid.matches(case.read_grid())


def test_scans_with_other_channels_are_refused(run: Path, dataset: Dataset, tmp_path: Path) -> None:
    volume = dataset[0].read_volume()
    with pytest.raises(DataError, match="trained on the channels T1, T2, found 1 channels"):
        sg.predict(sg.load_segmenter(run, device="cpu"), volume)
    sg.write_volume(volume, tmp_path / "scans" / "alone.nii.gz")
    report = sg.predict_files(run, tmp_path / "scans", out_dir=tmp_path / "out", progress=False)
    assert "2 channels along a fourth axis expected" in report.failed[0].reason


def test_a_one_channel_segmenter_takes_the_channel_of_its_name(
    dataset: Dataset, run_by_hand: Any, tmp_path: Path
) -> None:
    folder = run_by_hand()
    stated = json.loads((folder / "model.json").read_text())
    stated["image_channels"] = ["T2"]
    (folder / "model.json").write_text(json.dumps(stated))
    segmenter = sg.load_segmenter(folder, device="cpu")
    report = sg.predict_files(segmenter, [dataset[0]], out_dir=tmp_path / "out", progress=False)
    found = sg.read_label_map(report.written[0]).data
    second = dataset[0].read_channels()[1]
    assert np.array_equal(found, sg.predict(segmenter, second).data)


def test_channels_vary_each_by_itself(dataset: Dataset) -> None:
    settings = tiny()
    varied = settings.changed(
        segmentation=settings.segmentation.changed(intensity_augmentation=True, warped_share=0.0)
    )
    batches = SegmentationBatches(cohort_of(dataset, varied).train_cases, varied)
    batch = batches[0]
    assert batch.images.shape == (2, 2, *SHAPE)
    assert batch.intensities is not None
    assert batch.intensities.contrast.shape == (4,)
    assert len(torch.unique(batch.intensities.contrast)) == 4


def test_files_of_older_versions_have_one_channel(run_by_hand: Any) -> None:
    folder = run_by_hand()
    stated = json.loads((folder / "model.json").read_text())
    del stated["image_channels"]
    (folder / "model.json").write_text(json.dumps(stated))
    segmenter: Segmenter = sg.load_segmenter(folder, device="cpu")
    assert segmenter.image_channels == ("image",)

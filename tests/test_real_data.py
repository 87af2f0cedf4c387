"""The whole way on real scans, with a training that is far too short to be good."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.training.settings.groups import TrainSettings

pytestmark = pytest.mark.real_data


def few_iterations(spacing_mm: float) -> TrainSettings:
    quick = sg.preset("quick")
    return quick.changed(
        data=quick.data.changed(spacing_mm=(spacing_mm,) * 3, centre="foreground"),
        shape=quick.shape.changed(iterations=3, quality_pairs=8),
        restorer=quick.restorer.changed(iterations=2),
        shape_loss=quick.shape_loss.changed(accept_collapsed=True),
        segmentation=quick.segmentation.changed(dice_iterations=2, guided_iterations=1),
    )


def first(dataset: Dataset, count: int) -> Dataset:
    return dataset.select([case.id for case in dataset][:count])


def check_prediction(scan: Path, prediction: Path, label_ids: set[int]) -> None:
    """The label map states exactly the grid of its scan and holds known labels only."""
    image, written = (nib.Nifti1Image.from_filename(path) for path in (scan, prediction))
    assert written.shape == image.shape
    assert np.allclose(written.affine, image.affine, atol=1e-5)
    assert int(written.header["sform_code"]) == int(image.header["sform_code"])
    assert int(written.header["qform_code"]) == int(image.header["qform_code"])
    assert set(np.unique(np.asarray(written.dataobj)).tolist()) <= {0, *label_ids}


def test_hippocampus_crops_go_all_the_way(real_data: Path, tmp_path: Path) -> None:
    dataset = sg.read_dataset(real_data / "Task04_Hippocampus").with_structures(
        anterior=(1,), posterior=(2,)
    )
    train, test = first(dataset, 5).split_at_random(test_count=2, seed=0)
    sg.train(train, out=tmp_path / "run", settings=few_iterations(1.5), progress=False)
    report = sg.predict_files(tmp_path / "run", test, out_dir=tmp_path / "out", progress=False)
    assert report.complete
    for case, path in zip(test, report.written, strict=True):
        check_prediction(case.image, path, {1, 2})
    found = sg.evaluate(tmp_path / "out", test, out=tmp_path / "scores.csv")
    assert found.complete
    assert sorted(set(found.scores["structure"])) == ["anterior", "posterior"]


def test_whole_heads_go_all_the_way(real_data: Path, tmp_path: Path) -> None:
    dataset = sg.read_dataset(real_data / "miccai2012").with_structures(
        left_hippocampus=(48,), left_caudate=(37,)
    )
    train, test = dataset.split("split.json")
    assert (len(train), len(test)) == (15, 20)
    sg.train(first(train, 3), out=tmp_path / "run", settings=few_iterations(4.0), progress=False)
    case = test[0]
    report = sg.predict_files(
        tmp_path / "run", [case.image], out_dir=tmp_path / "out", progress=False
    )
    assert report.complete
    check_prediction(case.image, report.written[0], {48, 37})


def test_left_hippocampus_lies_to_the_left_of_the_right_one(real_data: Path) -> None:
    dataset = sg.read_dataset(real_data / "miccai2012").with_structures(left=(48,), right=(47,))
    labels = dataset[0].read_label_map()
    left, right = (
        labels.grid.to_world(np.argwhere(labels.mask(side)).astype(float)).mean(0)[0]
        for side in ("left", "right")
    )
    assert left < right - 20

"""Structures that hold others, as nnU-Net's regions do, from training to scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.metrics.overlap import dice
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.segmentation_step import SegmentationStep

SHAPE = (16, 16, 16)


def write(folder: Path, name: str, seed: int) -> None:
    """A block with a brighter core, in the nnU-Net layout; other ids stand for both."""
    drawn = np.random.default_rng(seed)
    i, j, k = drawn.integers(2, 6, size=3)
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[i : i + 8, j : j + 8, k : k + 8] = 2
    ids[i + 1 : i + 7, j + 1 : j + 7, k + 1 : k + 7] = 5
    image = np.select([ids == 2, ids == 5], [4.0, 9.0], 0.0) + 0.3 * drawn.normal(size=SHAPE)
    grid = Grid(SHAPE, np.eye(4))
    volume = sg.Volume(image.astype(np.float32), grid)
    sg.write_volume(volume, folder / "imagesTr" / f"{name}_0000.nii.gz")
    sg.write_label_map(sg.LabelMap(ids, grid), folder / "labelsTr" / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("nested") / "data"
    for seed in range(4):
        write(folder, f"scan_{seed}", seed)
    labels = {"background": 0, "tumour": [2, 5], "core": [5]}
    stated = {"channel_names": {"0": "T1"}, "labels": labels, "regions_class_order": [2, 5]}
    (folder / "dataset.json").write_text(json.dumps({**stated, "file_ending": ".nii.gz"}))
    return read_dataset(folder)


def tiny() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        guidance="none",
        segmentation=quick.segmentation.changed(
            dice_iterations=100, guided_iterations=0, channels=(4, 8), learning_rate=1e-2,
            warped_share=0.0, intensity_augmentation=False,
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nested") / "run"
    train, test = dataset.select([f"scan_{n}" for n in range(3)]), dataset.select(["scan_3"])
    sg.train(train, test=test, out=folder, settings=tiny(), progress=False)
    return folder


def test_regions_of_nnunet_are_taken_apart_as_they_are(dataset: Dataset) -> None:
    assert [one.name for one in dataset.all_structures] == ["tumour", "tumour_rest", "core"]
    assert [one.label_ids for one in dataset.structures] == [(2,), (5,)]


def test_wholes_and_parts_are_predicted_and_measured(
    run: Path, dataset: Dataset, tmp_path: Path
) -> None:
    case = dataset[3]
    found = sg.predict(sg.load_run(run), case.read_volume())
    for name, ids in (("tumour", (2, 5)), ("core", (5,))):
        assert dice(found.mask(name), np.isin(case.read_label_map().data, ids)) > 0.8
    out = tmp_path / "predicted"
    options = sg.PredictionOptions(probabilities=True)
    report = sg.predict_files(run, [case], out_dir=out, options=options, progress=False)
    sizes = report.volumes.set_index("structure")["volume_mm3"]
    assert sizes["tumour"] == sizes["tumour_rest"] + sizes["core"] == found.mask("tumour").sum()
    whole, rest, core = (
        sg.read_volume(out / f"scan_3_{name}_probability.nii.gz").data
        for name in ("tumour", "tumour_rest", "core")
    )
    assert np.allclose(whole, rest + core, atol=1e-5)
    scores = sg.evaluate(out, dataset.path).scores.set_index("structure")
    assert set(scores.index) == {"tumour", "tumour_rest", "core"}
    assert scores.loc["tumour", "reference_mm3"] == 512
    assert scores.loc["tumour", "dice"] == pytest.approx(
        dice(found.mask("tumour"), np.isin(case.read_label_map().data, (2, 5)))
    )


def test_a_run_goes_on_only_with_the_same_wholes(run: Path, dataset: Dataset) -> None:
    train = dataset.select([f"scan_{n}" for n in range(3)])
    apart = train.with_structures(tumour_rest=2, core=5)
    with pytest.raises(ConfigError, match="structures"):
        sg.train(apart, out=run, settings=tiny(), progress=False)


def test_a_whole_has_a_dice_loss_of_its_own() -> None:
    classes = torch.zeros((1, 4, 4, 4), dtype=torch.uint8)
    classes[0, :2] = 1
    classes[0, 1] = 2
    logits = torch.zeros((1, 3, 4, 4, 4))
    logits[0, 1, :2], logits[0, 2, :2] = 20.0, 20.0  # half of either, all of both
    logits[0, 0, 2:] = 20.0
    settings = tiny().changed(segmentation=tiny().segmentation.changed(cross_entropy_weight=0.0))
    network = torch.nn.Identity()

    def loss(wholes: tuple[tuple[int, ...], ...]) -> float:
        step = SegmentationStep(network, (1.0, 1.0, 1.0), settings, wholes=wholes)
        return float(step.terms(logits, classes, 0).total)

    assert loss(()) == pytest.approx(0.5, abs=1e-4)
    assert loss(((0, 1),)) == pytest.approx(1 / 3, abs=1e-4)

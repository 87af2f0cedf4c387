"""What is usual for a segmenter: measured on its own scans, written once, and heeded."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.data.prepare import prepare_volume
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.inference import usual
from shapeguide.inference.run import TrainedRun
from shapeguide.inference.shown import prepared_probabilities
from shapeguide.inference.usual import calibrated
from shapeguide.models.restorer_model import (
    RESTORER_FOLDER,
    USUAL_FILE,
    RestorerModel,
    disagreement,
)
from shapeguide.models.segmenter import Segmenter
from shapeguide.training.settings.presets import preset

CASES = 12


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Bright balls of rising radius, easily found, on voxels of 2 mm."""
    folder = tmp_path_factory.mktemp("cohort")
    i, j, k = np.indices((16, 16, 16)) - 7.5
    noise = np.random.default_rng(0)
    rows = []
    for index in range(CASES):
        labels = (i**2 + j**2 + k**2 <= (4 + index / 4) ** 2).astype(np.uint8)
        image = labels * 50 + noise.normal(0, 10, labels.shape).astype(np.float32)
        row = {"image": f"i{index:02}.nii.gz", "label": f"l{index:02}.nii.gz"}
        for name, data in zip(row.values(), (image, labels), strict=True):
            nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])), folder / name)
        rows.append(row)
    description = {"name": "balls", "labels": {"background": 0, "ball": 1}, "training": rows}
    (folder / "dataset.json").write_text(json.dumps(description))
    return sg.read_dataset(folder / "dataset.json").with_structures(ball=(1,))


@pytest.fixture(scope="module")
def run(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    quick = preset("quick")
    settings = quick.changed(
        shape=quick.shape.changed(iterations=2, channels=(4,), quality_pairs=4),
        shape_loss=quick.shape_loss.changed(accept_collapsed=True),
        restorer=quick.restorer.changed(
            iterations=10, channels=(4, 8), batch_size=2, usual_share=0.5, caution=0.0
        ),
        segmentation=quick.segmentation.changed(
            channels=(4, 8), dice_iterations=40, guided_iterations=1, learning_rate=1e-2
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32"),
    )
    sg.train(cohort, out=folder, settings=settings, progress=False)
    return folder


def disagreements(run: Path, cohort: Dataset, weights: str) -> list[float]:
    segmenter = sg.load_segmenter(run, weights=weights, device="cpu")  # type: ignore[arg-type]
    restorer = sg.load_restorer(run / RESTORER_FOLDER)
    return [
        disagreement(
            restorer,
            prepared_probabilities(
                segmenter, prepare_volume(case.read_volume(), segmenter.space).data[None]
            ),
        )
        for case in cohort
    ]


def test_training_notes_what_is_usual_for_each_weights(run: Path, cohort: Dataset) -> None:
    usual = json.loads((run / RESTORER_FOLDER / USUAL_FILE).read_text())
    assert (usual["share"], usual["scans"]) == (0.5, CASES)
    assert set(usual["disagreement"]) == {"last", "best", "average"}
    for name, value in usual["disagreement"].items():
        assert value == pytest.approx(np.median(disagreements(run, cohort, name)))
        restorer = sg.load_restorer(run / RESTORER_FOLDER, weights=name)
        assert restorer.usual_disagreement == value


def test_half_of_the_training_scans_are_left_alone_by_predictions(
    run: Path, cohort: Dataset, tmp_path: Path
) -> None:
    tables = {}
    for restorer in ("shape", "none"):
        trained = sg.load_run(run, restorer=restorer, device="cpu")
        options = sg.PredictionOptions(probabilities=True)
        out = tmp_path / restorer
        sg.predict_files(trained, cohort, out_dir=out, options=options, progress=False)
        tables[restorer] = [
            sg.read_volume(out / f"{case.id}_ball_probability.nii.gz").data for case in cohort
        ]
    same = [np.array_equal(*pair) for pair in zip(tables["shape"], tables["none"], strict=True)]
    usual = json.loads((run / RESTORER_FOLDER / USUAL_FILE).read_text())["disagreement"]["last"]
    below = [value <= usual for value in disagreements(run, cohort, "last")]
    assert below.count(True) == CASES // 2
    assert all(one for one, left in zip(same, below, strict=True) if left)
    assert not all(same)


@pytest.fixture
def models(run: Path) -> tuple[RestorerModel, Segmenter]:
    return sg.load_restorer(run / RESTORER_FOLDER), sg.load_segmenter(run, device="cpu")


def test_with_few_scans_or_no_share_everything_is_restored(
    models: tuple[RestorerModel, Segmenter], cohort: Dataset, run: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    restorer, segmenter = models
    few = cohort.select([case.id for case in cohort][:9])
    assert calibrated(restorer, {"last": segmenter}, few)["last"].usual_disagreement is None
    found = calibrated(restorer, {"last": segmenter}, cohort, share=0.0)
    assert found["last"].usual_disagreement is None
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / RESTORER_FOLDER / USUAL_FILE).unlink()
    with caplog.at_level(logging.INFO, logger="shapeguide"):
        sg.calibrate_restorer(copy, few, device="cpu", progress=False)
    written = json.loads((copy / RESTORER_FOLDER / USUAL_FILE).read_text())
    assert (written["scans"], written["disagreement"]) == (9, {})
    assert sg.load_restorer(copy / RESTORER_FOLDER).usual_disagreement is None
    assert "every prediction is restored" in caplog.text


def test_training_that_stopped_before_measuring_restores_nothing_unasked(
    cohort: Dataset, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / RESTORER_FOLDER / USUAL_FILE).unlink()
    scans = [cohort[0]]
    with pytest.raises(CheckpointError, match="run the same training again"):
        sg.load_run(copy, device="cpu")
    seen = sg.load_run(copy, restorer="none", device="cpu")
    assert sg.predict_files(seen, scans, out_dir=tmp_path / "out", progress=False).complete


def test_many_scans_are_thinned_evenly(
    models: tuple[RestorerModel, Segmenter], cohort: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usual, "MOST_SCANS", 3)
    seen = []

    def noted(_: RestorerModel, probabilities: np.ndarray) -> float:
        seen.append(probabilities.tobytes())
        return float(len(seen))

    monkeypatch.setattr(usual, "disagreement", noted)
    restorer, segmenter = models
    found = calibrated(restorer, {"last": segmenter}, cohort, share=1.0)
    expected = [
        prepared_probabilities(
            segmenter, prepare_volume(cohort[index].read_volume(), segmenter.space).data[None]
        ).tobytes()
        for index in (0, 6, 11)
    ]
    assert found["last"].usual_disagreement == 3.0
    assert seen == expected


def test_another_share_makes_other_label_maps(
    models: tuple[RestorerModel, Segmenter], cohort: Dataset, tmp_path: Path
) -> None:
    restorer, segmenter = models
    lenient, strict = (
        TrainedRun(segmenter, replace(restorer, usual_disagreement=threshold))
        for threshold in (0.1, 0.2)
    )
    sg.predict_files(lenient, cohort[0], out_dir=tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match=r"restorer\.usual_disagreement was 0\.1, is 0\.2"):
        sg.predict_files(strict, cohort[0], out_dir=tmp_path / "out", progress=False)


def test_what_was_measured_stays_until_another_share_is_asked_for(
    run: Path, cohort: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / RESTORER_FOLDER / USUAL_FILE
    before = path.stat().st_mtime_ns
    sg.calibrate_restorer(copy, cohort, share=0.5, device="cpu", progress=False)
    assert path.stat().st_mtime_ns == before
    sg.calibrate_restorer(copy, cohort, share=1.0, device="cpu", progress=False)
    largest = max(disagreements(copy, cohort, "last"))
    assert sg.load_restorer(path.parent).usual_disagreement == pytest.approx(largest)
    sg.calibrate_restorer(copy, cohort, share=0.0, device="cpu", progress=False)
    assert sg.load_restorer(path.parent).usual_disagreement is None


def test_restorer_of_another_spacing_is_refused(
    models: tuple[RestorerModel, Segmenter], cohort: Dataset
) -> None:
    restorer, segmenter = models
    other = replace(restorer, space=replace(restorer.space, spacing_mm=(3.0, 3.0, 3.0)))
    with pytest.raises(ConfigError, match="train both on the same"):
        calibrated(other, {"last": segmenter}, cohort)

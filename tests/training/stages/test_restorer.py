"""The restorer stage: trained, resumed, refused, and of use to predictions."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.metrics.overlap import dice
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.restorer_model import RESTORER_FOLDER
from shapeguide.training.engine.log import LOG_FILE, read_log
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages import restorer as restorer_stage
from shapeguide.training.stages.classes import with_background
from shapeguide.training.stages.restorer_step import restorer_terms

LENGTH = 16
BALLS = {"a": 9.0, "b": 11.0, "c": 10.0, "empty": 10.0}
MIDDLE, BESIDE = (6.5, 7.5, 7.5), (13.0, 7.5, 7.5)
"""Radius of the larger ball of each case, mm; the last case lacks the smaller one."""


def ball(radius_mm: float, centre: tuple[float, float, float]) -> np.ndarray:
    i, j, k = np.indices((LENGTH,) * 3)
    squares = sum((2.0 * (line - at)) ** 2 for line, at in zip((i, j, k), centre, strict=True))
    return np.asarray(squares) <= radius_mm**2


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four cases of a large and a small ball on voxels of 2 mm."""
    folder = tmp_path_factory.mktemp("balls")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    rows = []
    for name, radius_mm in BALLS.items():
        labels = np.zeros((LENGTH,) * 3, dtype=np.uint8)
        labels[ball(radius_mm, MIDDLE)] = 1
        if name != "empty":
            labels[ball(4.0, BESIDE)] = 2
        image = labels.astype(np.float32) * 50 + np.indices(labels.shape).sum(0) * 0.1
        for kind, data in (("images", image), ("labels", labels)):
            path = folder / kind / f"{name}.nii.gz"
            nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])), path)
        rows.append({"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"})
    description = {
        "name": "balls",
        "labels": {"background": 0, "large": 1, "small": 2},
        "training": rows,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return sg.read_dataset(folder / "dataset.json").with_structures(large=(1,), small=(2,))


def tiny(**changes: Any) -> TrainSettings:
    quick = preset("quick")
    chosen = {"iterations": 4, "batch_size": 2, "channels": (4, 8), **changes}
    return quick.changed(
        restorer=quick.restorer.changed(**chosen),
        machine=quick.machine.changed(device="cpu", precision="fp32", checkpoint_every=2),
    )


def bits(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_short_training_fills_a_hole_of_a_ball_and_leaves_a_whole_one(
    balls: Dataset, tmp_path: Path
) -> None:
    settings = tiny(iterations=60, batch_size=8, channels=(8, 16), learning_rate=1e-2, caution=2.0)
    model = sg.train_restorer(
        balls.select(["a", "b", "c"]), run_dir=tmp_path, settings=settings, progress=False
    )
    whole = torch.from_numpy(ball(10.0, MIDDLE).astype(np.float32))
    small = torch.from_numpy(ball(4.0, BESIDE).astype(np.float32))
    masks = torch.stack([whole, small])[None] * 0.98 + 0.01
    clean = with_background(masks)[0].numpy()
    masks[:, :, :, :, 6:8] *= 0.4
    holed = with_background(masks)[0].numpy()
    restored = sg.restore(model, holed)
    before, after = (dice(given.argmax(0) == 1, whole.numpy() > 0) for given in (holed, restored))
    assert before < 0.9
    assert after > before + 0.05
    assert dice(sg.restore(model, clean).argmax(0) == 1, whole.numpy() > 0) > 0.97
    assert all(row.restored > row.spoilt for row in model.quality)


def test_finished_stage_is_loaded_and_other_settings_are_refused(
    balls: Dataset, tmp_path: Path
) -> None:
    first = sg.train_restorer(balls, run_dir=tmp_path, settings=tiny(), progress=False)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = sg.train_restorer(balls, run_dir=tmp_path, settings=tiny(), progress=False)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    assert (again.structures, again.space, again.caution, again.window, again.quality) == (
        first.structures,
        first.space,
        tiny().restorer.caution,
        first.window,
        first.quality,
    )
    with pytest.raises(ConfigError, match=r"another run: settings\.restorer\.caution was"):
        sg.train_restorer(balls, run_dir=tmp_path, settings=tiny(caution=1.5), progress=False)
    assert {"dice", "cross_entropy"} <= set(read_log(tmp_path / LOG_FILE)[-1])
    description = json.loads((tmp_path / MODEL_FILE).read_text())
    assert (description["kind"], description["coarsening"]) == ("restorer", 1)


class KilledError(Exception):
    pass


def test_killed_and_resumed_stage_ends_with_the_same_bits(balls: Dataset, tmp_path: Path) -> None:
    sg.train_restorer(balls, run_dir=tmp_path / "whole", settings=tiny(), progress=False)
    calls: list[int] = []

    def killing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KilledError
        return restorer_terms(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restorer_stage, "restorer_terms", killing)
        with pytest.raises(KilledError):
            sg.train_restorer(balls, run_dir=tmp_path / "killed", settings=tiny(), progress=False)
    assert not (tmp_path / "killed" / MODEL_FILE).exists()
    sg.train_restorer(balls, run_dir=tmp_path / "killed", settings=tiny(), progress=False)
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.parametrize(("cases", "counted"), [(["a"], [1, 1]), (["a", "empty"], [2, 1])])
def test_one_case_trains_and_a_structure_may_be_absent_from_some(
    balls: Dataset, tmp_path: Path, cases: list[str], counted: list[int]
) -> None:
    model = sg.train_restorer(
        balls.select(cases), run_dir=tmp_path, settings=tiny(), progress=False
    )
    assert [row.cases for row in model.quality] == counted


def test_a_structure_that_is_absent_from_all_cases_is_refused(
    balls: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no voxel of any case belongs to small \(2,\)"):
        sg.train_restorer(
            balls.select(["empty"]), run_dir=tmp_path, settings=tiny(), progress=False
        )


def test_coarser_blocks_are_trained_on_where_the_working_voxels_are_smaller(
    balls: Dataset, tmp_path: Path
) -> None:
    model = sg.train_restorer(
        balls, run_dir=tmp_path, settings=tiny(spacing_mm=6.0), progress=False
    )
    assert model.network.coarsening == 3
    assert model.window == (LENGTH,) * 3


def test_restorer_that_does_not_help_is_warned_about(
    balls: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sg.train_restorer(balls, run_dir=tmp_path, settings=tiny(caution=1e3), progress=False)
    assert any("DOES NOT HELP" in record.message for record in caplog.records)


def test_settings_without_iterations_and_maps_beyond_the_memory_limit_are_refused(
    balls: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"restorer\.iterations is 0"):
        sg.train_restorer(balls, run_dir=tmp_path, settings=tiny(iterations=0), progress=False)
    settings = tiny()
    little = settings.changed(data=settings.data.changed(memory_limit_gb=1e-5))
    with pytest.raises(ConfigError, match=r"distance maps of 4 cases and 2 structures"):
        sg.train_restorer(balls, run_dir=tmp_path, settings=little, progress=False)


@pytest.fixture(scope="module")
def run(balls: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose segmenter learnt next to nothing and whose restorer changes much."""
    folder = tmp_path_factory.mktemp("run") / "run"
    settings = tiny(iterations=20, learning_rate=0.05, caution=0.0)
    settings = settings.changed(
        shape=settings.shape.changed(iterations=2, channels=(4,), quality_pairs=4),
        shape_loss=settings.shape_loss.changed(accept_collapsed=True),
        segmentation=settings.segmentation.changed(
            channels=(4, 8), dice_iterations=8, guided_iterations=1
        ),
    )
    sg.train(balls.select(["a", "b"]), out=folder, settings=settings, progress=False)
    return folder


def test_guided_run_has_a_restorer_and_other_runs_have_none(
    balls: Dataset, run: Path, tmp_path: Path
) -> None:
    assert (run / RESTORER_FOLDER / MODEL_FILE).is_file()
    settings = tiny().changed(guidance="none")
    settings = settings.changed(
        segmentation=settings.segmentation.changed(
            channels=(4, 8), dice_iterations=1, guided_iterations=1
        )
    )
    sg.train(balls, out=tmp_path, settings=settings, progress=False)
    assert not (tmp_path / RESTORER_FOLDER).exists()


def test_predictions_are_restored_unless_that_is_not_wanted(
    balls: Dataset, run: Path, tmp_path: Path
) -> None:
    segmenter = sg.load_segmenter(run, device="cpu")
    restorer = sg.load_restorer(run / RESTORER_FOLDER)
    volume = balls[0].read_volume()
    plain = sg.predict(segmenter, volume)
    restored = sg.predict(sg.TrainedRun(segmenter, restorer), volume)
    assert not np.array_equal(plain.data, restored.data)
    for wanted, name in ((restored, "shape"), (plain, "none")):
        trained, out = sg.load_run(run, restorer=name, device="cpu"), tmp_path / name
        assert np.array_equal(sg.predict(trained, volume).data, wanted.data)
        report = sg.predict_files(trained, balls[0], out_dir=out, progress=False)
        assert report.restored == (report.written if wanted is restored else [])
        found = sg.read_label_map(report.written[0], structures=segmenter.structures)
        assert np.array_equal(found.data, wanted.data)
        changed = {
            structure.name: 8.0
            * np.count_nonzero(plain.mask(structure.name) != wanted.mask(structure.name))
            for structure in segmenter.structures
        }
        table = pd.read_csv(out / "volumes.csv").set_index("structure")["restored_mm3"]
        assert table.to_dict() == changed


def test_outcomes_that_are_kept_keep_what_the_table_states(
    balls: Dataset, run: Path, tmp_path: Path
) -> None:
    trained = sg.load_run(run, device="cpu")
    for _ in range(2):
        sg.predict_files(trained, [balls[0]], out_dir=tmp_path, progress=False)
    path = tmp_path / "volumes.csv"
    before = pd.read_csv(path)
    assert before["restored_mm3"].max() > 0
    before.drop(columns=["restored_mm3", "model"]).to_csv(path, index=False)
    report = sg.predict_files(trained, list(balls)[:2], out_dir=tmp_path, progress=False)
    assert report.volumes["case"].tolist() == [balls[0].id] * 2 + [balls[1].id] * 2
    assert report.volumes["restored_mm3"].isna().tolist() == [True, True, False, False]


def test_restorer_of_another_spacing_or_of_other_structures_is_refused(run: Path) -> None:
    segmenter = sg.load_segmenter(run, device="cpu")
    restorer = sg.load_restorer(run / RESTORER_FOLDER)
    other = replace(restorer, space=replace(restorer.space, spacing_mm=(1.0, 2.0, 2.0)))
    with pytest.raises(ConfigError, match=r"restorer was trained on.*train both on the same"):
        sg.TrainedRun(segmenter, other)
    renamed = replace(restorer, structures=restorer.structures[::-1])
    with pytest.raises(ConfigError, match=r"restorer was trained on.*train both on the same"):
        sg.TrainedRun(segmenter, renamed)

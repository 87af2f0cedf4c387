"""A folder of predictions: whose it is, what made each label map, and what a scan may do to it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import shapeguide as sg
from shapeguide.data.case import Case
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.volume import Volume
from shapeguide.inference import prediction_files
from shapeguide.inference.prediction import Prediction, predict_volume
from shapeguide.inference.prediction_files import PredictionReport
from shapeguide.inference.run import TrainedRun
from shapeguide.inference.shown import channels_for
from shapeguide.inference.sizes_table import VOLUMES_FILE
from shapeguide.models.segmenter import Segmenter
from shapeguide.storage.whole import read_table
from shapeguide.workflows.evaluation import evaluate

Run = Callable[..., Path]


def write_scan(path: Path, *, seed: int = 0, shape: tuple[int, int, int] = (16, 16, 16)) -> Path:
    path.parent.mkdir(exist_ok=True)
    data = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    image = nib.Nifti1Image(data, np.eye(4))
    image.set_sform(np.eye(4), 1)
    nib.save(image, path)
    return path


def predict(run: Path, scans: object, out: Path, **options: Any) -> PredictionReport:
    return sg.predict_files(
        sg.load_run(run, device="cpu"),
        scans,  # type: ignore[arg-type]
        out_dir=out,
        options=sg.PredictionOptions(**options),
        progress=False,
    )


def models_of(out: Path) -> dict[str, str | None]:
    cases: dict[str, str | None] = json.loads((out / "predictions.json").read_text())["cases"]
    return cases


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("x"), RecursionError("deep")])
def test_whatever_a_scan_does_the_others_are_done(
    run_by_hand: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = tmp_path / "scans"
    scans = [write_scan(folder / f"{name}.nii.gz", seed=ord(name)) for name in "abc"]
    second = sg.read_volume(scans[1]).data

    def failing(run: TrainedRun, channels: tuple[Volume, ...]) -> Prediction:
        if np.allclose(channels[0].data, second):
            raise error
        return predict_volume(run, channels)

    monkeypatch.setattr(prediction_files, "predict_volume", failing)
    report = predict(run_by_hand(), scans, tmp_path / "out")
    assert [path.name for path in report.written] == ["a.nii.gz", "c.nii.gz"]
    assert [failure.scan.name for failure in report.failed] == ["b.nii.gz"]
    assert type(error).__name__ in report.failed[0].reason
    assert models_of(tmp_path / "out")["b"] is None


def test_a_scan_is_read_while_the_network_looks_at_another(
    run_by_hand: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other, which they could not one after the other."""
    names = [f"{number}" for number in range(6)]
    scans = [write_scan(tmp_path / "scans" / f"{name}.nii.gz", seed=int(name)) for name in names]
    reading, looking = threading.Event(), threading.Lock()

    def read(segmenter: Segmenter, case: Case) -> tuple[Volume, ...]:
        if case.id == "1":
            reading.set()
        return channels_for(segmenter, case)

    def look(run: TrainedRun, channels: tuple[Volume, ...]) -> Prediction:
        assert looking.acquire(blocking=False), "two scans at once in the networks"
        assert reading.wait(timeout=60), "the next scan was not read meanwhile"
        try:
            return predict_volume(run, channels)
        finally:
            looking.release()

    monkeypatch.setattr(prediction_files, "channels_for", read)
    monkeypatch.setattr(prediction_files, "predict_volume", look)
    report = predict(run_by_hand(), scans, tmp_path / "out")
    assert [path.name for path in report.written] == [f"{name}.nii.gz" for name in names]
    assert list(report.volumes["case"].unique()) == names


def test_one_path_and_one_case_are_taken_as_they_are(run_by_hand: Run, tmp_path: Path) -> None:
    scan, run = write_scan(tmp_path / "scans" / "a.nii.gz"), run_by_hand()
    for given in (str(scan), scan, Case("a", scan), scan.parent):
        report = predict(run, given, tmp_path / "out", overwrite=True)
        assert [path.name for path in report.written] == ["a.nii.gz"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_references_is_neither_adopted_nor_overwritten(
    run_by_hand: Run, tmp_path: Path, overwrite: bool
) -> None:
    scan = write_scan(tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "labels").mkdir()
    precious = tmp_path / "labels" / "a.nii.gz"
    precious.write_bytes(b"by hand")
    with pytest.raises(ConfigError, match="nothing there is touched"):
        predict(run_by_hand(), scan, tmp_path / "labels", overwrite=overwrite)
    assert precious.read_bytes() == b"by hand"
    assert [path.name for path in precious.parent.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_label_map_that_was_not_predicted_stays_in_a_folder_of_predictions(
    run_by_hand: Run, tmp_path: Path, overwrite: bool
) -> None:
    scans = [write_scan(tmp_path / "scans" / f"{name}.nii.gz") for name in "ab"]
    run, out = run_by_hand(), tmp_path / "out"
    predict(run, scans[0], out)
    shutil.copy(out / "a.nii.gz", out / "b.nii.gz")
    before = (out / "b.nii.gz").stat().st_mtime_ns
    report = predict(run, scans, out, overwrite=overwrite)
    assert "was not predicted; it stays as it is" in report.failed[0].reason
    assert (out / "b.nii.gz").stat().st_mtime_ns == before


def test_overwriting_one_scan_leaves_what_is_known_of_the_others(
    run_by_hand: Run, tmp_path: Path
) -> None:
    scans = [
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", seed=i) for i, name in enumerate("ab")
    ]
    first, second, out = run_by_hand("A", seed=0), run_by_hand("B", seed=1), tmp_path / "out"
    predict(first, scans, out)
    before, made = (out / "b.nii.gz").read_bytes(), models_of(out)
    assert made["a"] == made["b"]
    rows = pd.read_csv(out / VOLUMES_FILE)
    report = predict(second, scans[0], out, overwrite=True)
    now = models_of(out)
    assert now["b"] == made["b"]
    assert now["a"] != made["a"]
    assert (out / "b.nii.gz").read_bytes() == before
    table = pd.read_csv(out / VOLUMES_FILE)
    assert table["model"].tolist() == [now["a"]] * 2 + [now["b"]] * 2
    assert table[table["case"] == "b"].equals(rows[rows["case"] == "b"])
    assert [path.name for path in report.written] == ["a.nii.gz"]
    assert set(report.restored) <= set(report.written)
    with pytest.raises(ConfigError, match="of another model"):
        predict(second, scans, out)


def test_a_kept_label_map_of_another_grid_than_its_scan_is_told(
    run_by_hand: Run, tmp_path: Path
) -> None:
    scan, run, out = tmp_path / "scans" / "a.nii.gz", run_by_hand(), tmp_path / "out"
    predict(run, write_scan(scan), out)
    write_scan(scan, shape=(18, 16, 16))
    report = predict(run, scan, out)
    assert "lies on another grid than its scan" in report.failed[0].reason
    assert predict(run, scan, out, overwrite=True).complete


def test_what_was_restored_is_in_the_table_as_soon_as_a_scan_is_done(
    run_by_hand: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [write_scan(tmp_path / "scans" / f"{name}.nii.gz") for name in "ab"]
    run, out = run_by_hand(), tmp_path / "out"
    found: list[pd.DataFrame] = []

    def killed(segmenter: Segmenter, case: Case) -> tuple[sg.Volume, ...]:
        deadline = time.monotonic() + 60
        while case.id == "b" and not found and time.monotonic() < deadline:
            time.sleep(0.05)  # "a" is looked at meanwhile
            if len(table := pd.read_csv(out / VOLUMES_FILE)):  # what a kill -9 would leave
                found.append(table)
        return channels_for(segmenter, case)

    monkeypatch.setattr(prediction_files, "channels_for", killed)
    report = predict(run, scans, out)
    done = report.volumes[report.volumes["case"] == "a"]
    assert done["restored_mm3"].notna().all()
    assert found[0].equals(done)


def test_case_ids_that_pandas_takes_for_nothing_stay_in_the_table(
    run_by_hand: Run, tmp_path: Path
) -> None:
    names = ["NA", "nan", "null", "001"]
    scans = [write_scan(tmp_path / "scans" / f"{name}.nii.gz") for name in names]
    run, out = run_by_hand(), tmp_path / "out"
    for scan in scans:
        predict(run, scan, out)
    table = read_table(out / VOLUMES_FILE, ["case"], text=["case"])
    assert table["case"].unique().tolist() == names


def test_a_table_that_was_edited_in_a_spreadsheet_is_an_error_that_names_it(
    run_by_hand: Run, tmp_path: Path
) -> None:
    scan, run, out = write_scan(tmp_path / "scans" / "a.nii.gz"), run_by_hand(), tmp_path / "out"
    predict(run, scan, out)
    path = out / VOLUMES_FILE
    for text in (path.read_text().replace(",", ";"), "case,structure,volume_mm3\na,horn,much\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"volumes\.csv cannot be read as a table.*delete it"):
            predict(run, scan, out)


def test_names_of_a_foreign_model_never_lead_out_of_the_folder(
    run_by_hand: Run, tmp_path: Path
) -> None:
    scan, run = write_scan(tmp_path / "scans" / "a.nii.gz"), run_by_hand()
    stated = json.loads((run / "model.json").read_text())
    stated["structures"][0]["name"] = "x/../../../evil"
    (run / "model.json").write_text(json.dumps(stated))
    with pytest.raises(sg.ShapeguideError, match="cannot be named"):
        predict(run, scan, tmp_path / "deep" / "out", probabilities=True)
    assert not list(tmp_path.rglob("*evil*"))


def test_command_and_python_give_the_same_label_map(run_by_hand: Run, tmp_path: Path) -> None:
    scan, run = write_scan(tmp_path / "scans" / "a.nii.gz"), run_by_hand()
    report = predict(run, scan, tmp_path / "out")
    trained = sg.load_run(run, device="cpu")
    in_memory = sg.predict(trained, sg.read_volume(scan))
    assert np.array_equal(sg.read_label_map(report.written[0]).data, in_memory.data)
    prediction = sg.predict_volume(trained, sg.read_volume(scan))
    assert prediction.restored
    seen = sg.predict(trained.segmenter, sg.read_volume(scan))
    for item in seen.structures:
        changed = np.count_nonzero(seen.mask(item) != in_memory.mask(item))
        assert prediction.changed_mm3[item.name] == changed


def test_references_of_cases_that_were_not_asked_for_are_no_errors(
    run_by_hand: Run, tmp_path: Path
) -> None:
    scans = [write_scan(tmp_path / "scans" / f"{name}.nii.gz") for name in "ab"]
    run, out = run_by_hand(), tmp_path / "out"
    predict(run, scans, tmp_path / "references")
    (tmp_path / "references" / "predictions.json").unlink()
    scans[1].write_bytes(b"broken")
    predict(run, scans[:1], out)
    assert evaluate(out, tmp_path / "references").complete
    predict(run, scans, out)
    assert evaluate(out, tmp_path / "references").missing == ("b",)

"""Prediction by several processes: the same files as by one, whatever a scan does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import shapeguide as sg
from shapeguide.cells import Workers
from shapeguide.errors import ConfigError

Run = Callable[..., Path]


def write_scan(path: Path, seed: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    data = np.random.default_rng(seed).normal(size=(16, 16, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def test_two_processes_write_what_one_writes_and_go_past_a_broken_scan(
    run_by_hand: Run, tmp_path: Path
) -> None:
    scans = [write_scan(tmp_path / "scans" / f"{name}.nii.gz", ord(name)) for name in "abd"]
    broken = tmp_path / "scans" / "c.nii.gz"
    broken.write_bytes(b"no scan")
    run = run_by_hand()
    reports = {
        jobs: sg.predict_files(
            sg.load_run(run, device="cpu"),
            tmp_path / "scans",
            out_dir=tmp_path / str(jobs),
            options=sg.PredictionOptions(probabilities=True),
            workers=Workers(jobs=jobs),
            progress=False,
        )
        for jobs in (1, 2)
    }
    for jobs, report in reports.items():
        assert sorted(path.name for path in report.written) == [path.name for path in scans]
        assert [failure.scan for failure in report.failed] == [broken]
        names = sorted(path.name for path in (tmp_path / str(jobs)).iterdir())
        assert ".made" not in names
        assert len([name for name in names if not name.startswith(".")]) == 3 * 3 + 2
    one, two = tmp_path / "1", tmp_path / "2"
    for path in one.glob("*.nii.gz"):
        assert path.read_bytes() == (two / path.name).read_bytes()
    rows = (sorted((folder / "volumes.csv").read_text().splitlines()) for folder in (one, two))
    assert next(rows) == next(rows)


def test_a_segmenter_without_a_folder_is_refused_by_several_processes(
    run_by_hand: Run, tmp_path: Path
) -> None:
    segmenter = sg.load_segmenter(run_by_hand(), device="cpu")
    with pytest.raises(ConfigError, match="give its folder"):
        sg.predict_files(
            segmenter,
            write_scan(tmp_path / "a.nii.gz", 0),
            out_dir=tmp_path / "out",
            workers=Workers(jobs=2),
            progress=False,
        )


def test_what_a_killed_call_left_on_the_stage_is_removed_by_the_next(
    run_by_hand: Run, tmp_path: Path
) -> None:
    run, scan, out = run_by_hand(), write_scan(tmp_path / "a.nii.gz", 0), tmp_path / "out"
    sg.predict_files(run, scan, out_dir=out, progress=False)
    (out / ".made").mkdir()
    (out / ".made" / "b.nii.gz").write_bytes(b"half")
    report = sg.predict_files(run, scan, out_dir=out, progress=False)
    assert report.kept == [out / "a.nii.gz"]
    assert not (out / ".made").exists()

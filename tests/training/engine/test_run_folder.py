"""Training into folders that hold something: what is a run's goes, what is the user's stays."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import shapeguide as sg
from shapeguide.cli import main
from shapeguide.storage.identity import differences_in_words
from shapeguide.storage.lock import LOCK_FILE
from shapeguide.training.engine.run_folder import claim_run_folder, dataset_identity
from shapeguide.training.settings.groups import TrainSettings

TINY = (
    "--preset quick --guidance none --device cpu --precision fp32 --channels 4 8 "
    "--dice-iterations 2 --guided-iterations 1"
)
DONE, REFUSED = 0, 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    sg.write_cohort(folder, count=2, spatial_shape=(18, 18, 18), spacing_mm=(3.0, 3.0, 3.0))
    return folder


@pytest.fixture(scope="module")
def trained(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(cohort, folder) == DONE
    return folder


def train(dataset: Path, out: Path | str, *options: str) -> int:
    structure = ("--structure", "horn=1")
    return main(["train", str(dataset), *structure, "--out", str(out), *TINY.split(), *options])


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_overwriting_the_current_folder_keeps_what_the_user_has_there(
    cohort: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tensorboard" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert train(cohort, ".", "--overwrite", "--seed", "5") == DONE
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "tensorboard" / "mine.txt").read_text() == "mine"
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["seed"] == 5
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1


def test_predictions_kept_in_a_run_outlive_its_replacement(
    cohort: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    (out / "predictions").mkdir()
    (out / "predictions" / "a.nii.gz").write_bytes(b"label map")
    assert train(cohort, out, "--overwrite", "--seed", "5") == DONE
    assert (out / "predictions" / "a.nii.gz").read_bytes() == b"label map"


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_the_folder_of_the_dataset_is_never_a_run_folder(
    cohort: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "c"
    shutil.copytree(cohort, dataset)
    before = files_in(dataset)
    assert train(dataset, dataset, *options) == REFUSED
    assert files_in(dataset) == before
    assert "nothing there is touched" in capsys.readouterr().err


def test_a_run_among_the_scans_it_is_trained_on_is_not_overwritten(
    cohort: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "c"
    shutil.copytree(cohort, dataset)
    shutil.copytree(trained, dataset, dirs_exist_ok=True)
    before = files_in(dataset)
    assert train(dataset, dataset, "--overwrite") == REFUSED
    assert files_in(dataset) == before
    assert "nothing is deleted" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
@pytest.mark.parametrize("content", ['{"name": "the run of a marathon"}', "[1, 2]"])
def test_a_run_file_of_another_program_is_left_alone(
    cohort: Path,
    tmp_path: Path,
    content: str,
    options: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "data.bin").write_bytes(b"precious")
    before = files_in(tmp_path)
    assert train(cohort, tmp_path, *options) == REFUSED
    assert files_in(tmp_path) == before
    assert "not the note of a run" in capsys.readouterr().err


def test_training_does_not_settle_among_other_files(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights of another program")
    assert train(cohort, tmp_path) == REFUSED
    assert files_in(tmp_path) == {"model.safetensors": b"weights of another program"}
    assert "holds model.safetensors" in capsys.readouterr().err


def test_a_link_to_a_run_elsewhere_is_not_followed(
    cohort: Path, trained: Path, tmp_path: Path
) -> None:
    out, shared = tmp_path / "run", tmp_path / "shared"
    shutil.copytree(trained, out)
    shutil.copytree(trained, shared)
    os.symlink(shared, out / "shape")
    before = files_in(shared)
    assert train(cohort, out, "--overwrite", "--seed", "5") == DONE
    assert files_in(shared) == before


def test_nothing_is_said_to_be_safe_when_a_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shapeguide import commands

    def run(name: str, arguments: list[str]) -> int:
        raise OSError(28, "No space left on device", "out/a.nii.gz")

    monkeypatch.setattr(commands, "run", run)
    assert main(["describe", "folder"]) == REFUSED
    assert capsys.readouterr().err == "error: out/a.nii.gz: No space left on device\n"


def test_two_trainings_never_share_a_folder(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold = (
        "import sys; from pathlib import Path; from shapeguide.storage.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    out = tmp_path / "run"
    command = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert train(cohort, out, "--seed", "5") == REFUSED
        assert f"process {other.pid}" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == [LOCK_FILE]
        other.communicate()
    assert train(cohort, out, "--seed", "5") == DONE
    assert LOCK_FILE not in files_in(out)


def test_label_map_that_changed_between_two_starts_is_another_dataset(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = tmp_path / "c", tmp_path / "run"
    shutil.copytree(cohort, dataset)
    path = next(dataset.glob("labels*/*.nii.gz"))
    voxels = bytearray(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(bytes(voxels), 0, mtime=0))
    assert train(dataset, out) == DONE
    size = path.stat().st_size
    place = voxels.rindex(1)
    voxels[place] = 0
    path.write_bytes(gzip.compress(bytes(voxels), 0, mtime=0))
    assert path.stat().st_size == size
    assert train(dataset, out) == REFUSED
    assert "dataset.contents was" in capsys.readouterr().err


def test_the_order_of_structures_is_that_of_the_classes_and_counts(cohort: Path) -> None:
    dataset = replace(sg.read_dataset(cohort), labels={1: "horn", 2: "core"})
    first = dataset_identity(dataset.with_structures(horn=1, core=2))
    second = dataset_identity(dataset.with_structures(core=2, horn=1))
    assert differences_in_words(first, dict(first)) == []
    assert differences_in_words(first, second) == [
        'order_of_structures was ["horn", "core"], is ["core", "horn"]'
    ]


def test_scans_are_hashed_once_however_many_stages_claim_a_folder(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cohort, tmp_path / "c")
    dataset = sg.read_dataset(tmp_path / "c")
    hashed: list[str] = []
    whole = hashlib.file_digest

    def counted(opened: Any, kind: str) -> Any:
        hashed.append(opened.name)
        return whole(opened, kind)

    monkeypatch.setattr("hashlib.file_digest", counted)

    def claim(stage: str) -> bool:
        return claim_run_folder(
            tmp_path / stage, stage=stage, settings=TrainSettings(), train=dataset, validation=None
        )

    for stage in ("shape", "restorer", "segmentation", "shape"):
        assert not claim(stage)
    files = [file for case in dataset for file in (case.image, case.label_map)]
    assert sorted(hashed) == sorted(map(str, files))
    os.utime(dataset[0].image, (1, 1))
    claim("restorer")
    assert len(hashed) == len(files) + 1

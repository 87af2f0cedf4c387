"""What is mistyped is refused before anything heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("given", ["nowhere", "empty", "many.json"])
def test_a_dataset_that_cannot_be_trained_on_is_refused_before_torch_is_loaded(
    tmp_path: Path, given: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    labels = {str(number): f"part {number}" for number in range(1, 10)}
    stated = {"labels": labels, "training": [{"image": "scan.nii.gz"}]}
    (tmp_path / "many.json").write_text(json.dumps(stated))
    assert refused_without_torch("train", str(tmp_path / given), "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "nowhere", "here", "--out", "out"),
        ("evaluate", "nowhere", "here"),
        ("evaluate", "here", "nowhere"),
        ("evaluate", "here", "here", "--against", "nowhere"),
    ],
    ids=["run", "predictions", "references", "against"],
)
def test_a_mistyped_path_is_refused_before_torch_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert "nowhere: there is no such file or folder" in refused_without_torch(*words)


def refused_without_torch(*words: str) -> str:
    """What a command says that refuses, without having loaded torch."""
    program = (
        "import sys; from shapeguide.cli import main; "
        "status = main(sys.argv[1:]); print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"], done.stderr
    return done.stderr

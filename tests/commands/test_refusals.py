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
    program = (
        "import sys; from shapeguide.cli import main; "
        "status = main(sys.argv[1:]); print(status, 'torch' in sys.modules)"
    )
    words = ["train", str(tmp_path / given), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"], done.stderr
    assert not (tmp_path / "run").exists()

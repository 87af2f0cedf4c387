"""What an error says."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapeguide.data.nifti import read_volume
from shapeguide.errors import CheckpointError, DataError, reason
from shapeguide.training.engine.checkpoint import read_tensors


def test_the_reason_of_a_failed_read_leaves_out_the_path() -> None:
    error = FileNotFoundError(2, "No such file or directory", "a/b.txt")
    assert reason(error) == "No such file or directory"


def test_a_reason_is_one_short_line() -> None:
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"
    assert len(reason(ValueError("9" * 5000))) == 200


def test_messages_name_a_path_once(tmp_path: Path) -> None:
    for name, read, error in (
        ("scan.nii", read_volume, DataError),
        ("weights.safetensors", read_tensors, CheckpointError),
    ):
        path = tmp_path / name
        for is_folder in (False, True):
            if is_folder:
                path.mkdir()
            with pytest.raises(error) as raised:
                read(path)
            assert str(raised.value).count(str(path)) == 1

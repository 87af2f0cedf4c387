from __future__ import annotations

from pathlib import Path

import pytest

from shapeguide.errors import CheckpointError
from shapeguide.storage.whole import write_json
from shapeguide.studies.study import read_object, seconds_of, stopwatch


def test_seconds_add_up_over_restarts(tmp_path: Path) -> None:
    assert seconds_of(tmp_path, "train") == 0
    write_json(tmp_path / "seconds_train.json", {"seconds": 100.0})
    with stopwatch(tmp_path, "train"):
        pass
    assert 100 <= seconds_of(tmp_path, "train") < 101


def test_a_folder_that_nobody_has_claimed_stays_empty(tmp_path: Path) -> None:
    with stopwatch(tmp_path, "train"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["[1]", "{", '{"seconds": NaN}', '{"seconds": "7"}', "\ud800"])
def test_damaged_notes_of_a_study_are_errors_that_name_the_file(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "seconds_train.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"seconds_train\.json"):
        seconds_of(tmp_path, "train")


def test_an_object_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "cases.json", {"horn": {"train": ["NA"], "test": ["null"]}})
    assert read_object(tmp_path / "cases.json") == {"horn": {"train": ["NA"], "test": ["null"]}}

"""The table of several systems, from folders of predictions and records made by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from peers.heads import STRUCTURES, write_classes, write_label_ids
from peers.steps import Step, Training, carry_out, measure, read_usage, write_training
from peers.table import markdown_table, score_systems
from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.data.nifti import read_label_map, write_label_map
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure
from shapeguide.storage.whole import write_json

SHAPE = (16, 16, 16)
STRUCTURE = Structure("left_caudate", (37,))


def write_labels(path: Path, labels: NDArray[np.uint8]) -> Path:
    write_label_map(LabelMap(labels, Grid(SHAPE, np.diag([1.0, 1.0, 2.0, 1.0]))), path)
    return path


def block(*, moved: int = 0, debris: bool = False) -> NDArray[np.uint8]:
    """A block of 4 x 4 x 4 voxels of the structure, and perhaps one voxel far from it."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2 + moved : 6 + moved, 2:6, 2:6] = 37
    if debris:
        labels[2, 2, 14] = 37
    return labels


@pytest.fixture
def heads(tmp_path: Path) -> Dataset:
    """Three scans of two people with the same reference."""
    cases = []
    for name, person in (("a", "one"), ("b", "one"), ("c", "two")):
        path = write_labels(tmp_path / "references" / f"{name}.nii.gz", block())
        cases.append(Case(name, path, path, group=person, structures=(STRUCTURE,)))
    return Dataset("heads", tuple(cases), {}, (STRUCTURE,), tmp_path)


def write_system(out: Path, name: str, predictions: dict[str, NDArray[np.uint8]]) -> Path:
    """A system with these predictions that trained for two minutes and predicted for 30 s."""
    folder = out / name
    for case, labels in predictions.items():
        write_labels(folder / "predictions" / f"{case}.nii.gz", labels)
    write_json(folder / "system.json", {"title": name, "prepared_in": None})
    used = {"command": [], "cores": 2, "peak_memory_gb": 1.25}
    write_json(folder / "train.json", {**used, "seconds": 120.0})
    write_json(folder / "predict.json", {**used, "seconds": 30.0})
    write_training(Training(50, 100.0, 2, (100, 100, 100), 1_500_000), folder / "training.json")
    return folder


def rows_of(markdown: str) -> dict[str, list[str]]:
    """Cells of each row by its name."""
    lines = [
        line.removeprefix("| ").removesuffix(" |").split(" | ") for line in markdown.splitlines()
    ]
    return {name: cells for name, *cells in lines}


def test_the_table_tells_scores_as_they_come_and_with_the_largest_component(
    tmp_path: Path, heads: Dataset
) -> None:
    out = tmp_path / "out"
    perfect = {case.id: block() for case in heads}
    spoilt = {"a": block(debris=True), "b": block(moved=2), "c": np.zeros(SHAPE, dtype=np.uint8)}
    write_system(out, "nnunet_1.0min", spoilt)
    write_system(out, "shapeguide_seed0", perfect)
    rows = rows_of(markdown_table(out, score_systems(out, heads)))
    ours, theirs = 0, 1
    assert rows["Dice, left caudate"][ours] == "1.000 (1.000 to 1.000)"
    dice = (2 * 64 / 129 + 0.5 + 0) / 3
    assert rows["Dice, left caudate"][theirs].startswith(f"{dice:.3f} (")
    # Debris lies 9 voxels of 2 mm from the block; the moved block 2 voxels of 1 mm from it; the
    # missed one has no distance. Both found scans are of one person, so there is no interval.
    assert rows["Hausdorff, mm, left caudate"][theirs] == f"{(18 + 2) / 2:.2f}"
    assert rows["Hausdorff, mm, largest component, left caudate"][theirs] == f"{(0 + 2) / 2:.2f}"
    assert rows["missed"] == ["0 of 3", "1 of 3"]


def test_a_system_that_found_nothing_has_no_distances(tmp_path: Path, heads: Dataset) -> None:
    out = tmp_path / "out"
    write_system(out, "nnunet", {case.id: np.zeros(SHAPE, dtype=np.uint8) for case in heads})
    rows = rows_of(markdown_table(out, score_systems(out, heads)))
    assert rows["Dice, left caudate"] == ["0.000 (0.000 to 0.000)"]
    assert rows["HD95, mm, left caudate"] == ["-"]
    assert rows["missed"] == ["3 of 3"]


def test_the_table_tells_what_a_system_took(tmp_path: Path, heads: Dataset) -> None:
    out = tmp_path / "out"
    folder = write_system(out, "monai_2.0min", {case.id: block() for case in heads})
    write_json(folder / "system.json", {"title": "MONAI", "prepared_in": "planned"})
    used = {"command": [], "seconds": 90.0, "peak_memory_gb": 1.0}
    write_json(out / "planned" / "prepare.json", used)
    rows = rows_of(markdown_table(out, score_systems(out, heads)))
    assert rows[""] == ["MONAI"]
    assert rows["minutes of planning and preprocessing"] == ["1.5"]
    assert rows["minutes of the training command"] == ["2.0"]
    assert rows["batch, patch"] == ["2 of 100x100x100"]
    assert rows["million voxels trained a second"] == ["1.00"]  # 50 times 2 million in 100 s
    assert rows["parameters, million"] == ["1.5"]
    assert rows["prediction, seconds per scan"] == ["10.0"]


def test_a_system_without_all_predictions_is_refused(tmp_path: Path, heads: Dataset) -> None:
    out = tmp_path / "out"
    write_system(out, "monai_2.0min", {"a": block(), "b": block()})
    with pytest.raises(SystemExit, match=r"missing .*'c'"):
        score_systems(out, heads)


def test_class_indices_go_to_the_other_systems_and_come_back_as_label_ids(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for place, label_id in enumerate((*STRUCTURES.values(), 99)):
        labels[place] = label_id
    path = write_labels(tmp_path / "labels" / "a.nii.gz", labels)
    structures = tuple(Structure(name, (one,)) for name, one in STRUCTURES.items())
    write_classes(Case("a", path, path, structures=structures), tmp_path / "classes" / "a.nii.gz")
    classes = read_label_map(tmp_path / "classes" / "a.nii.gz").data
    assert [int(classes[place, 0, 0]) for place in range(6)] == [1, 2, 3, 4, 0, 0]
    write_label_ids(tmp_path / "classes", tmp_path / "back")
    back = read_label_map(tmp_path / "back" / "a.nii.gz").data
    np.testing.assert_array_equal(back, np.where(labels == 99, 0, labels))


def test_a_step_is_done_once_and_never_as_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    made.write_text("left by a stopped start")
    append = ("bash", "-c", f"sleep 0.1; echo once >> {made}")
    step = Step(tmp_path / "system", "train", append, (made,))
    carry_out(step)
    carry_out(step)
    assert made.read_text() == "once\n"
    assert "done before" in capsys.readouterr().out
    usage = read_usage(tmp_path / "system", "train")
    assert usage is not None
    assert usage.seconds >= 0.1
    with pytest.raises(SystemExit, match="another command"):
        carry_out(Step(tmp_path / "system", "train", ("true", "now"), (made,)))


def test_the_memory_of_a_step_is_that_of_its_children_too(tmp_path: Path) -> None:
    hold = f"{sys.executable} -c 'import time; held = b\"x\" * 2**28; time.sleep(1.5)'; true"
    usage = measure(("bash", "-c", hold), log=tmp_path / "log", environment={})
    assert 0.25 < usage.peak_memory_gb < 0.35


def test_a_failing_step_tells_what_it_printed(tmp_path: Path) -> None:
    step = Step(tmp_path / "system", "train", ("bash", "-c", "echo no room; exit 3"), ())
    with pytest.raises(SystemExit, match=r"ended with 3:\s+no room"):
        carry_out(step)
    assert not step.record.exists()

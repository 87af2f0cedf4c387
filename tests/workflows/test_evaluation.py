from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from shapeguide.data.dataset import read_dataset
from shapeguide.data.nifti import write_label_map
from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure
from shapeguide.metrics.scores import COLUMNS
from shapeguide.workflows.evaluation import evaluate, label_map_files

HORN = Structure("horn", (1, 2))
new_image: Any = nib.Nifti1Image  # nibabel's classes carry no types
AFFINE = np.diag((1.0, 1.0, 2.0, 1.0))


def cube(start: int, *, label_id: int = 1) -> NDArray[np.uint8]:
    """A cube of 4 x 4 x 4 voxels that starts at an index along the first axis."""
    data = np.zeros((12, 12, 12), dtype=np.uint8)
    data[start : start + 4, 4:8, 4:8] = label_id
    return data


def write(path: Path, data: NDArray[np.uint8], *, affine: NDArray[np.float64] = AFFINE) -> None:
    write_label_map(LabelMap(data, Grid((12, 12, 12), affine)), path)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Three cases with the same cube."""
    for case in ("a", "b", "c"):
        write(tmp_path / "references" / f"{case}.nii.gz", cube(4))
    return tmp_path / "references"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """The cube as it is, moved by one voxel, and not found."""
    write(tmp_path / "predictions" / "a.nii.gz", cube(4))
    write(tmp_path / "predictions" / "b.nii", cube(5))
    write(tmp_path / "predictions" / "c.nii.gz", np.zeros((12, 12, 12), dtype=np.uint8))
    return tmp_path / "predictions"


def test_folders_are_paired_by_case_id_and_every_case_is_scored(
    predictions: Path, references: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "scores.csv"
    evaluation = evaluate(predictions, references, (HORN,), out=out)
    table = evaluation.scores
    assert tuple(table.columns) == COLUMNS
    assert table["case"].tolist() == ["a", "b", "c"]
    assert table["dice"].tolist() == [1.0, 0.75, 0.0]
    assert table["hausdorff_mm"].tolist() == [0.0, 1.0, np.inf]
    assert table["missed"].tolist() == [False, False, True]
    assert table["reference_mm3"].tolist() == pytest.approx([128.0] * 3)
    assert evaluation.complete
    assert evaluation.comparison is None
    pd.testing.assert_frame_equal(pd.read_csv(out, keep_default_na=False), table)
    assert [path.name for path in out.parent.iterdir()] == ["scores.csv"]


def test_a_prediction_may_write_one_label_id_for_all_of_a_structure(
    predictions: Path, references: Path
) -> None:
    write(references / "a.nii.gz", cube(4, label_id=2))
    assert evaluate(predictions, references, (HORN,)).scores["dice"].tolist()[0] == 1.0


def test_a_missing_prediction_is_a_row_with_an_error_and_is_reported(
    predictions: Path, references: Path
) -> None:
    (predictions / "b.nii").unlink()
    evaluation = evaluate(predictions, references, (HORN,))
    assert evaluation.missing == ("b",)
    assert not evaluation.complete
    row = evaluation.scores.set_index("case").loc["b"]
    assert np.isnan(row["dice"])
    assert row["error"] == f"no prediction in {predictions}"
    assert evaluation.summary["errors"].tolist() == [1] * 5


@pytest.mark.parametrize("content", ["truncated", "text", "nan", "4D"])
def test_a_broken_prediction_is_reported_and_the_others_are_scored(
    predictions: Path, references: Path, content: str
) -> None:
    path = predictions / "a.nii.gz"
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif content == "text":
        path.write_text("not a scan")
    elif content == "nan":
        nib.save(new_image(np.full((12, 12, 12), np.nan, dtype=np.float32), AFFINE), path)
    else:
        nib.save(new_image(np.ones((12, 12, 12, 3), dtype=np.uint8), AFFINE), path)
    evaluation = evaluate(predictions, references, (HORN,))
    assert [trouble.case for trouble in evaluation.troubles] == ["a"]
    assert "a.nii.gz" in evaluation.troubles[0].reason
    assert not evaluation.complete
    assert evaluation.scores["dice"].tolist()[1:] == [0.75, 0.0]
    assert evaluation.scores["error"].tolist()[0] == evaluation.troubles[0].reason


def test_a_broken_reference_is_reported_and_the_others_are_scored(
    predictions: Path, references: Path
) -> None:
    (references / "c.nii.gz").write_text("not a scan")
    evaluation = evaluate(predictions, references, (HORN,))
    assert [trouble.case for trouble in evaluation.troubles] == ["c"]
    assert evaluation.scores["dice"].tolist()[:2] == [1.0, 0.75]


def test_a_prediction_on_another_grid_is_reported_with_its_case_and_the_way_out(
    predictions: Path, references: Path
) -> None:
    write(predictions / "b.nii", cube(5), affine=np.eye(4))
    evaluation = evaluate(predictions, references, (HORN,))
    trouble = evaluation.troubles[0]
    assert trouble.case == "b"
    assert trouble.reason.startswith("b: prediction and reference lie on different grids")
    assert "resample" in trouble.reason


def test_when_every_prediction_is_on_another_grid_that_is_the_error(
    predictions: Path, references: Path
) -> None:
    for case in ("a", "b", "c"):
        (predictions / "b.nii").unlink(missing_ok=True)
        write(predictions / f"{case}.nii.gz", cube(4), affine=np.eye(4))
    with pytest.raises(GeometryError, match="a: prediction and reference lie on different grids"):
        evaluate(predictions, references, (HORN,))


def test_predictions_of_no_case_at_all_name_what_was_expected(
    references: Path, tmp_path: Path
) -> None:
    write(tmp_path / "others" / "z.nii.gz", cube(4))
    with pytest.raises(DataError, match=r"any of 3 cases.*a\.nii\.gz, found z"):
        evaluate(tmp_path / "others", references, (HORN,))


def test_an_empty_folder_of_predictions_is_refused(references: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no label maps"):
        evaluate(tmp_path / "empty", references, (HORN,))


def test_a_folder_that_does_not_exist_is_refused(references: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        evaluate(tmp_path / "nowhere", references, (HORN,))
    with pytest.raises(DataError, match="nowhere"):
        evaluate(references, tmp_path / "nowhere", (HORN,))


def test_a_folder_of_references_needs_the_structures(predictions: Path, references: Path) -> None:
    with pytest.raises(ConfigError, match="--structure"):
        evaluate(predictions, references)


def test_two_files_of_one_case_are_refused(predictions: Path, references: Path) -> None:
    write(predictions / "a.nii", cube(4))
    with pytest.raises(DataError, match=r"case a has two files.*keep one"):
        evaluate(predictions, references, (HORN,))


def test_other_files_in_a_folder_are_left_alone(predictions: Path) -> None:
    (predictions / "volumes.csv").write_text("case,volume\n")
    (predictions / ".a.nii.gz").write_text("hidden")
    assert list(label_map_files(predictions)) == ["a", "b", "c"]


def test_two_folders_of_predictions_are_compared_case_by_case(
    predictions: Path, references: Path, tmp_path: Path
) -> None:
    write(tmp_path / "plain" / "a.nii.gz", cube(6))
    write(tmp_path / "plain" / "c.nii.gz", cube(4))
    evaluation = evaluate(predictions, references, (HORN,), against=tmp_path / "plain")
    assert evaluation.comparison is not None
    assert evaluation.against is not None
    found = evaluation.comparison.set_index("metric").loc["hausdorff_mm"]
    assert (found["pairs"], found["found"], found["wins"], found["losses"]) == (2, 1, 1, 1)
    assert found["mean_difference"] == -2.0
    assert evaluation.against.missing == ("b",)
    assert evaluation.missing == ()
    assert not evaluation.complete


def test_a_dataset_states_its_structures_and_its_references(
    predictions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dataset"
    for case in ("a", "b", "c"):
        write(folder / "imagesTr" / f"{case}.nii.gz", cube(4))
        write(folder / "labelsTr" / f"{case}.nii.gz", cube(4))
    training = [
        {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        for case in ("a", "b", "c")
    ]
    description = {
        "name": "cubes",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "front", "2": "back"},
        "numTraining": 3,
        "numTest": 0,
        "training": training,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    by_path = evaluate(predictions, folder / "dataset.json")
    assert by_path.scores["structure"].tolist() == ["front", "back"] * 3
    dataset = read_dataset(folder / "dataset.json").select(["a", "b"])
    named = evaluate(predictions, dataset, (HORN,))
    assert named.scores["structure"].tolist() == ["horn"] * 2
    assert named.scores["dice"].tolist() == [1.0, 0.75]


@pytest.mark.real_data
def test_real_label_maps_score_perfectly_against_themselves(real_data: Path) -> None:
    folder = real_data / "Task04_Hippocampus"
    dataset = read_dataset(folder / "dataset.json")
    few = dataset.select([case.id for case in dataset][:3])
    evaluation = evaluate(folder / "labelsTr", few)
    assert evaluation.complete
    assert evaluation.scores["dice"].tolist() == [1.0] * 6
    assert evaluation.scores["hd95_mm"].tolist() == [0.0] * 6
    assert (evaluation.scores["prediction_mm3"] > 500).all()

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.errors import ConfigError
from shapeguide.training.cohort import cohort_of, hold_out
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.shape import train_shape


def scans(*people: int) -> Dataset:
    """A dataset of people with so many scans each; nothing of it is read."""
    cases = tuple(
        Case(f"p{person}_{scan}", Path("nowhere.nii.gz"), group=f"p{person}")
        for person, count in enumerate(people)
        for scan in range(count)
    )
    return Dataset("d", cases, labels={}, structures=(), path=Path("d"))


@pytest.mark.parametrize(
    ("people", "held_out"),
    [
        ([1] * 9, 0),
        ([1] * 10, 1),
        ([1] * 40, 4),
        ([1] * 200, 8),
        ([2] * 6, 2),
        ([3] * 4, 3),
        ([12], 0),
    ],
)
def test_a_tenth_is_held_out_or_the_scans_of_one_person(people: list[int], held_out: int) -> None:
    train, validation = hold_out(scans(*people), TrainSettings())
    found = [] if validation is None else [case.group for case in validation]
    assert len(found) == held_out
    assert not set(found) & {case.group for case in train}
    assert len(train) + len(found) == sum(people)


def test_more_than_there_are_cannot_be_held_out() -> None:
    settings = TrainSettings()
    three = settings.changed(segmentation=settings.segmentation.changed(validation_cases=3))
    with pytest.raises(ConfigError, match="cannot hold out 3 of 3 cases"):
        hold_out(scans(1, 1, 1), three)


def with_labels(folder: Path, *ids: int) -> Dataset:
    """A description of two labels, with one case for each id, which holds that id alone."""
    training = []
    for place, label_id in enumerate(ids):
        labels = np.zeros((16, 16, 16), np.uint8)
        labels[4:9, 4:9, 4:9] = label_id
        for kind, data in (("image", labels.astype(np.float32)), ("label", labels)):
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{place}_{kind}.nii.gz")
        training.append({"image": f"{place}_image.nii.gz", "label": f"{place}_label.nii.gz"})
    content = {"labels": {"1": "one", "2": "two", "3": "three"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))
    return read_dataset(folder)


def test_a_structure_that_no_case_has_is_refused_by_name(tmp_path: Path) -> None:
    dataset = with_labels(tmp_path, 1, 3)
    settings = TrainSettings()
    cohort_of(dataset.with_structures(one=1, three=3), settings).check_structures_occur()
    cohort = cohort_of(dataset.with_structures(one=(1, 3), lost=2), settings)
    with pytest.raises(ConfigError, match=r"(?s)belongs to lost \(2,\).*label ids.*1  one"):
        cohort.check_structures_occur()
    with pytest.raises(ConfigError, match=r"belongs to lost \(2,\)"):
        train_shape(cohort, run_dir=tmp_path / "run", settings=settings, progress=False)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_window_too_large_to_be_predicted_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    settings = TrainSettings()
    large = settings.changed(
        data=settings.data.changed(spatial_shape=(512, 512, 512), spacing_mm=(1.0, 1.0, 1.0))
    )
    with pytest.raises(ConfigError, match=r"GiB are taken; train with .*\(data\.spatial_shape\)"):
        cohort_of(with_labels(tmp_path, 1, 2, 3), large)

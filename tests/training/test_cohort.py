from __future__ import annotations

from pathlib import Path

import pytest

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.training.cohort import hold_out
from shapeguide.training.settings.groups import TrainSettings


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

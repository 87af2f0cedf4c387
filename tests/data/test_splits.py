"""Splits, folds and groups: one person never trains and tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shapeguide.data.splits import (
    Split,
    check_split,
    fold_split,
    groups_of,
    random_split,
    read_split,
)
from shapeguide.errors import ConfigError, DataError

TEN = {f"c{number}": number for number in range(10)}


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_split_file_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "s.json", {"train": ["a"], "test": ["b", "c"], "same_person": [["b", "c"]]}
    )
    assert read_split(path) == Split(("a",), ("b", "c"), (("b", "c"),))


def test_a_list_of_folds_is_read_as_nnunet_writes_it(tmp_path: Path) -> None:
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    path = written(tmp_path / "splits_final.json", folds)
    assert read_split(path, fold=1) == Split(("b",), ("a",))
    with pytest.raises(ConfigError, match="no fold 2, it holds 2"):
        read_split(path, fold=2)


@pytest.mark.parametrize(
    "content",
    [
        "text",
        {"test": ["a"]},
        {"train": "a", "test": ["b"]},
        {"train": [1], "test": [2]},
        {"train": ["a"], "test": ["b"], "same_person": [[1]]},
    ],
)
def test_a_split_file_of_another_form_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match=r"s\.json"):
        read_split(written(tmp_path / "s.json", content))


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{train: ")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_split(tmp_path / "s.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(tmp_path / "absent.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_split(tmp_path / "deep.json")


def test_groups_that_share_a_case_are_one() -> None:
    stated = {"a": None, "b": "p", "c": "p", "d": None, "e": None}
    groups = groups_of(stated, [("c", "d"), ("x", "e")])
    assert groups["b"] == groups["c"] == groups["d"]
    assert len(set(groups.values())) == 3


def test_a_case_named_like_a_group_is_not_in_it() -> None:
    groups = groups_of({"p": None, "b": "p"})
    assert groups["p"] != groups["b"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split((), ("c1",)), "no cases to train"),
        (Split(("c1",), ()), "no cases to test"),
        (Split(("c1", "x"), ("c2",)), "no cases x"),
        (Split(("c1", "c1"), ("c2",)), "twice"),
        (Split(("c1", "c2"), ("c2", "c3")), "same person"),
    ],
)
def test_an_unusable_split_is_refused(split: Split, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_split(split, TEN, "split")


def test_a_person_in_train_and_test_is_named() -> None:
    groups = groups_of({"a": None, "b": None, "c": None}, [("a", "c")])
    with pytest.raises(DataError, match="a = c; move them to one side"):
        check_split(Split(("a", "b"), ("c",)), groups, "split")


@given(
    st.lists(st.integers(0, 6), min_size=8, max_size=20),
    st.integers(0, 2**31),
    st.integers(2, 3),
)
def test_folds_test_each_case_once_and_never_part_a_person(
    people: list[int], seed: int, count: int
) -> None:
    groups = groups_of({f"c{n}": f"p{person}" for n, person in enumerate(people)})
    if len(set(people)) < count:
        return
    tested: list[str] = []
    for index in range(count):
        split = fold_split(groups, index=index, count=count, seed=seed)
        check_split(split, groups, "fold")
        assert set(split.train) | set(split.test) == set(groups)
        tested += split.test
    assert sorted(tested) == sorted(groups)


def test_folds_of_single_cases_are_of_equal_size() -> None:
    sizes = [len(fold_split(TEN, index=index, count=5, seed=3).test) for index in range(5)]
    assert sizes == [2] * 5


def test_a_random_split_depends_on_the_seed_alone() -> None:
    shuffled = dict(reversed(TEN.items()))
    first = random_split(TEN, test_count=3, seed=1)
    assert first == random_split(shuffled, test_count=3, seed=1)
    assert first != random_split(TEN, test_count=3, seed=2)
    assert (len(first.train), len(first.test)) == (7, 3)


def test_a_random_split_never_parts_a_person() -> None:
    groups = groups_of({f"c{n}": f"p{n // 2}" for n in range(10)})
    for seed in range(10):
        split = random_split(groups, test_count=5, seed=seed)
        check_split(split, groups, "random")
        assert len(split.test) == 4


@pytest.mark.parametrize("count", [0, 10, -1])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"test_count is {count}; with 10 cases"):
        random_split(TEN, test_count=count, seed=0)


def test_impossible_folds_are_refused() -> None:
    for index, count in ((5, 5), (-1, 5), (0, 1)):
        with pytest.raises(ConfigError, match="no fold"):
            fold_split(TEN, index=index, count=count, seed=0)
    with pytest.raises(DataError, match="cannot be split into 11 parts"):
        fold_split(TEN, index=0, count=11, seed=0)


def test_one_case_or_one_person_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 cases of 1 people cannot be split"):
        random_split({"a": 0}, test_count=1, seed=0)
    with pytest.raises(DataError, match="2 cases of 1 people"):
        random_split({"a": 0, "b": 0}, test_count=1, seed=0)
    with pytest.raises(DataError, match="every person has more than 1 scans"):
        random_split({"a": 0, "b": 0, "c": 1, "d": 1}, test_count=1, seed=0)

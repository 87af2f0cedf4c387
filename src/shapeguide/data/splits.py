"""Who trains and who tests: split files, random splits, folds; a group stays on one side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shapeguide.data.reach import Reach
from shapeguide.errors import ConfigError, DataError
from shapeguide.storage.names import few
from shapeguide.storage.whole import read_json

SPLIT_FILE = "split.json"


@dataclass(frozen=True)
class Split:
    """Case ids to train and to test on, and which cases show the same person."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    same_person: tuple[tuple[str, ...], ...] = ()


def read_split(path: Path, *, fold: int = 0) -> Split:
    """Read a split file.

    Args:
        path: JSON: {"train": [...], "test": [...]} with "val" in place of "test" if you like and
            an optional "same_person": [[a, b], ...]; or a list of such, one per fold, as nnU-Net
            writes in splits_final.json.
        fold: Which one of a list.

    Raises:
        DataError: If the file is missing or has another form.
        ConfigError: If the list has no such fold.
    """
    content = read_json(path)
    if isinstance(content, list):
        if not 0 <= fold < len(content):
            raise ConfigError(f"{path}: there is no fold {fold}, it holds {len(content)} folds")
        content = content[fold]
    form = '{"train": [case ids], "test": [case ids]}'
    if not isinstance(content, dict) or "train" not in content:
        raise DataError(f"{path}: a split file holds {form}")
    test: Any = content.get("test", content.get("val", []))
    same_person = content.get("same_person", [])
    if not _are_ids(content["train"]) or not _are_ids(test):
        raise DataError(f"{path}: a split file holds {form}, where each case id is a text")
    if not isinstance(same_person, list) or not all(_are_ids(group) for group in same_person):
        raise DataError(f'{path}: "same_person" holds lists of case ids, as in [["a", "b"], ...]')
    groups = tuple(tuple(group) for group in same_person)
    return Split(tuple(content["train"]), tuple(test), groups)


def people_beside(reach: Reach) -> dict[str, str]:
    """Case id to the first case id of the same person, from the `split.json` of a folder.

    Raises:
        DataError: If it is damaged, or leads out of the folder.
    """
    path = reach.folder / SPLIT_FILE
    if not path.is_file():
        return {}
    reach.check(path)
    same_person = read_split(path).same_person
    return {case_id: group[0] for group in same_person for case_id in group}


def groups_of(
    case_groups: Mapping[str, str | None], same_person: Iterable[Iterable[str]] = ()
) -> dict[str, int]:
    """Number of the group of each case; groups that share a case are one.

    Args:
        case_groups: Case id to the group that the description states, or None for a case alone.
        same_person: More groups of case ids; ids that are no cases are passed over.

    Returns:
        Case id to group number, numbered by case id whatever the order of the cases.
    """
    members: list[set[str]] = [{case_id} for case_id in case_groups]
    stated = {group for group in case_groups.values() if group is not None}
    joined = [{id_ for id_, name in case_groups.items() if name == group} for group in stated]
    joined += [set(group) & case_groups.keys() for group in same_person]
    for group in joined:
        touched = [part for part in members if part & group]
        members = [part for part in members if not part & group]
        if touched:
            members.append(set().union(*touched))
    members.sort(key=min)
    return {case_id: number for number, part in enumerate(members) for case_id in part}


def check_split(split: Split, groups: Mapping[str, int], name: str) -> None:
    """Refuse a split that tests on what it trains on.

    Args:
        split: The split to check.
        groups: Group number of every case, see `groups_of`.
        name: Name of the split for messages.

    Raises:
        DataError: If a side is empty, an id is unknown or repeated, or a case or a group is on
            both sides.
    """
    for side, ids in (("train", split.train), ("test", split.test)):
        if not ids:
            raise DataError(f"{name}: no cases to {side}; both sides need at least one")
        unknown = sorted(set(ids) - groups.keys())
        if unknown:
            raise DataError(
                f"{name}: the dataset has no cases {few(unknown)}; "
                "correct the split or the dataset description"
            )
        if len(set(ids)) < len(ids):
            raise DataError(f"{name}: a case comes twice under {side}; name each case once")
    test_groups = {groups[case_id] for case_id in split.test}
    straddling = {groups[case_id] for case_id in split.train} & test_groups
    if straddling:
        sides = sorted({*split.train, *split.test})
        people = [[id_ for id_ in sides if groups[id_] == group] for group in sorted(straddling)]
        raise DataError(
            f"{name}: the same person is in train and test: "
            f"{few([' = '.join(person) for person in people])}; move them to one side"
        )


def random_split(groups: Mapping[str, int], *, test_count: int, seed: int) -> Split:
    """Draw about `test_count` test cases; never more, and fewer only if groups do not add up.

    Raises:
        DataError: If there are not two groups, or no drawing leaves cases on both sides.
        ConfigError: If the count is below 1 or leaves nothing to train on.
    """
    _check_group_count(groups, 2)
    if not 1 <= test_count < len(groups):
        raise ConfigError(
            f"test_count is {test_count}; with {len(groups)} cases it goes from 1 to "
            f"{len(groups) - 1}"
        )
    test: list[str] = []
    for members in _shuffled(groups, seed):
        if len(test) + len(members) <= test_count:
            test.extend(members)
    if not test:
        raise DataError(
            f"every person has more than {test_count} scans, so none can be held out alone; "
            "raise the number of test cases"
        )
    return Split(tuple(sorted(set(groups) - set(test))), tuple(sorted(test)))


def fold_split(groups: Mapping[str, int], *, index: int, count: int, seed: int) -> Split:
    """Fold `index` of `count` folds of about equal size for testing, the others for training.

    Raises:
        DataError: If there are fewer groups than folds.
        ConfigError: If there is no such fold.
    """
    if count < 2 or not 0 <= index < count:
        raise ConfigError(f"there is no fold {index} of {count}; folds go from 0 to {count - 1}")
    _check_group_count(groups, count)
    folds: list[list[str]] = [[] for _ in range(count)]
    # The largest groups first: the small ones then level the folds.
    for members in sorted(_shuffled(groups, seed), key=len, reverse=True):
        min(folds, key=len).extend(members)
    test = set(folds[index])
    return Split(tuple(sorted(set(groups) - test)), tuple(sorted(test)))


def _shuffled(groups: Mapping[str, int], seed: int) -> list[list[str]]:
    parts: dict[int, list[str]] = {}
    for case_id in sorted(groups):
        parts.setdefault(groups[case_id], []).append(case_id)
    order = np.random.default_rng(seed).permutation(len(parts))
    numbers = sorted(parts)
    return [parts[numbers[place]] for place in order]


def _check_group_count(groups: Mapping[str, int], needed: int) -> None:
    found = len(set(groups.values()))
    if found < needed:
        raise DataError(
            f"{len(groups)} cases of {found} people cannot be split into {needed} parts; "
            "add cases, or use all of them without a split"
        )


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)

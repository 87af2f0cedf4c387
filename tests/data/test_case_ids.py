"""Case ids of scans in folders: with and without the channel numbers of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from shapeguide.data.case_ids import case_in_folder, scans_by_case
from shapeguide.errors import DataError


def folder_of(path: Path, stems: Iterable[str]) -> Path:
    path.mkdir(parents=True)
    for stem in stems:
        (path / f"{stem}.nii.gz").write_bytes(b"")
    return path


def beside_nnunet(path: Path, *channels: str) -> None:
    names = dict(enumerate(channels or ["T1"]))
    content = {"channel_names": names, "labels": {"background": 0, "part": 1}}
    (path.parent / "dataset.json").write_text(json.dumps(content))


def test_the_channel_of_nnunet_is_no_part_of_a_case_id(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "imagesTr", ["liver_1_0000", "liver_2_0000"])
    assert list(scans_by_case(folder)) == ["liver_1", "liver_2"]
    scan = folder / "liver_2_0000.nii.gz"
    assert case_in_folder(scan) == ("liver_2", (scan,))


def test_scans_that_are_numbered_are_no_channels(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "scans", ["head_0000", "head_0001", "head_0002"])
    assert list(scans_by_case(folder)) == ["head_0000", "head_0001", "head_0002"]
    assert case_in_folder(folder / "head_0000.nii.gz")[0] == "head_0000"
    assert list(scans_by_case(folder, count=3)) == ["head"]


def test_label_maps_keep_their_names(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "labelsTr", ["liver_1", "liver_2"])
    beside_nnunet(folder)
    assert list(scans_by_case(folder)) == ["liver_1", "liver_2"]


def test_a_scan_without_channel_in_an_nnunet_folder_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "imagesTr", ["liver_1_0000", "liver_2"])
    assert list(scans_by_case(folder)) == ["liver_1_0000", "liver_2"]
    beside_nnunet(folder)
    with pytest.raises(DataError, match=r"liver_2.nii.gz: .* names that end in _0000"):
        scans_by_case(folder)


@pytest.mark.parametrize("described", [True, False])
def test_channels_of_a_case_go_together(tmp_path: Path, described: bool) -> None:
    stems = ["liver_1_0000", "liver_1_0001", "liver_2_0000", "liver_2_0001"]
    folder = folder_of(tmp_path / "imagesTs", stems)
    if described:
        beside_nnunet(folder, "T1", "T2")
    paths = {stem: folder / f"{stem}.nii.gz" for stem in stems}
    both = (paths["liver_2_0000"], paths["liver_2_0001"])
    assert scans_by_case(folder)["liver_2"] == both
    assert case_in_folder(both[1]) == ("liver_2", both)


def test_a_missing_channel_is_named_with_its_case(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "imagesTr", ["a_0000", "a_0001", "b_0000"])
    with pytest.raises(DataError, match=r"b has no channel 0001; .* named b_0001"):
        scans_by_case(folder)
    beside_nnunet(folder, "T1", "FLAIR")
    with pytest.raises(DataError, match=r"b has no channel FLAIR; .* named b_0001"):
        scans_by_case(folder)
    beside_nnunet(folder, "T1")
    with pytest.raises(DataError, match=r"a has 2 channels, and its dataset\.json names 1: T1"):
        scans_by_case(folder)

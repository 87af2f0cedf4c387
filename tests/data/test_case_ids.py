"""Case ids of scans in folders: with and without the channel numbers of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from shapeguide.data.case_ids import case_id_in_folder, scans_by_case
from shapeguide.errors import DataError


def folder_of(path: Path, stems: Iterable[str]) -> Path:
    path.mkdir(parents=True)
    for stem in stems:
        (path / f"{stem}.nii.gz").write_bytes(b"")
    return path


def beside_nnunet(path: Path) -> None:
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "part": 1}}
    (path.parent / "dataset.json").write_text(json.dumps(content))


def test_the_channel_of_nnunet_is_no_part_of_a_case_id(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "imagesTr", ["liver_1_0000", "liver_2_0000"])
    assert list(scans_by_case(folder)) == ["liver_1", "liver_2"]
    assert case_id_in_folder(folder / "liver_2_0000.nii.gz") == "liver_2"


def test_scans_that_are_numbered_are_no_channels(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "scans", ["head_0000", "head_0001", "head_0002"])
    assert list(scans_by_case(folder)) == ["head_0000", "head_0001", "head_0002"]
    assert case_id_in_folder(folder / "head_0000.nii.gz") == "head_0000"


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
def test_several_channels_of_a_case_are_refused(tmp_path: Path, described: bool) -> None:
    stems = ["liver_1_0000", "liver_1_0001", "liver_2_0000", "liver_2_0001"]
    folder = folder_of(tmp_path / "imagesTs", stems)
    if described:
        beside_nnunet(folder)
    with pytest.raises(DataError, match="liver_1 has 2 channels, and only one channel can be read"):
        scans_by_case(folder)

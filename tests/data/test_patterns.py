"""Folders in no layout: described by patterns, by a table, or as one folder per person."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from shapeguide import commands
from shapeguide.commands.arguments import CaseChoice
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.layouts import describe
from shapeguide.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> Path:
    """Empty files; what is described is not read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def pairs(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """Case id to the names of image and label map below the folder of the dataset."""
    root = dataset.path if dataset.path.is_dir() else dataset.path.parent
    found: dict[str, tuple[str, str]] = {}
    for case in dataset:
        assert case.label_map is not None
        found[case.id] = (
            case.image.relative_to(root).as_posix(),
            case.label_map.relative_to(root).as_posix(),
        )
    return found


def test_stars_pair_images_and_label_maps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("T1_002.nii.gz", "002_seg.nii", "T1_001.nii.gz", "001_seg.nii.gz", "T1_003.nii.gz")
    touch(tmp_path, *names, "T1_001.json", "._T1_001.nii.gz", "001_seg.txt")
    with caplog.at_level(logging.WARNING):
        dataset = read_dataset(tmp_path, images="T1_*.nii.gz", labels="*_seg.nii*")
    assert pairs(dataset) == {
        "001": ("T1_001.nii.gz", "001_seg.nii.gz"),
        "002": ("T1_002.nii.gz", "002_seg.nii"),
    }
    assert [case.id for case in dataset.unlabelled] == ["003"]
    assert "1 images have no label map and are not trained on: T1_003.nii.gz" in caplog.text


def test_the_suffix_may_be_left_out_and_a_pair_of_files_is_one_scan(tmp_path: Path) -> None:
    touch(tmp_path, "a_T1.hdr", "a_T1.img", "a_seg.nii.gz", "b_T1.mgz", "b_seg.hdr", "b_seg.img")
    dataset = read_dataset(tmp_path, images="*_T1", labels="*_seg")
    assert pairs(dataset) == {"a": ("a_T1.hdr", "a_seg.nii.gz"), "b": ("b_T1.mgz", "b_seg.hdr")}
    with pytest.raises(DataError, match=r"nothing fits --labels '\*_seg\.nii'; there are scans"):
        read_dataset(tmp_path, images="*_T1", labels="*_seg.nii")


def test_what_fits_both_patterns_is_what_the_longer_one_says(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    dataset = read_dataset(tmp_path, images="*.nii.gz", labels="*_seg.nii.gz")
    swapped = read_dataset(tmp_path, images="*_seg.nii.gz", labels="*.nii.gz")
    assert pairs(dataset)["b"] == ("b.nii.gz", "b_seg.nii.gz")
    assert pairs(swapped)["b"] == ("b_seg.nii.gz", "b.nii.gz")
    assert len(dataset) == len(swapped) == 2


def test_a_name_that_repeats_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "scans/P1/P1_T1.nii", "labels/P1.nii", "scans/P2/P2_T1.nii", "labels/P2.nii")
    dataset = read_dataset(tmp_path, images="scans/*/*_T1.nii", labels="labels/*.nii")
    assert [case.id for case in dataset] == ["P1", "P2"]


@pytest.mark.parametrize(
    ("images", "labels", "ids", "groups"),
    [
        ("*/*/T1.nii", "*/*/seg.nii", ["A_v1", "A_v2", "B_v1"], ["A", "A", "B"]),
        ("**/T1.nii", "**/seg.nii", ["A_v1", "A_v2", "B_v1"], ["A", "A", "B"]),
        ("*/{person}/T1.nii", "*/*/seg.nii", ["A_v1", "A_v2", "B_v1"], ["v1", "v2", "v1"]),
    ],
)
def test_scans_of_one_folder_are_of_one_person_unless_the_pattern_says_who(
    tmp_path: Path, images: str, labels: str, ids: list[str], groups: list[str]
) -> None:
    for scan in ("A/v1", "A/v2", "B/v1"):
        touch(tmp_path, f"{scan}/T1.nii", f"{scan}/seg.nii")
    dataset = read_dataset(tmp_path, images=images, labels=labels)
    found = {case.id: case.group for case in dataset}
    assert (sorted(found), [found[case_id] for case_id in sorted(ids)]) == (ids, groups)


def test_a_person_may_be_part_of_a_name(tmp_path: Path) -> None:
    for scan in ("ann_1", "ann_2", "bob_1"):
        touch(tmp_path, f"{scan}_T1.nii", f"{scan}_seg.nii")
    dataset = read_dataset(tmp_path, images="{person}_*_T1.nii", labels="*_*_seg.nii")
    assert {case.id: case.group for case in dataset} == {
        "ann_1": "ann",
        "ann_2": "ann",
        "bob_1": "bob",
    }


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("T2_*", "*_seg", r"nothing fits --images 'T2_\*'; there are scans such as 1_seg\.nii"),
        ("T1_*", "*_lab", r"nothing fits --labels '\*_lab'"),
        ("T1_*", "*.nii", r"1_seg\.nii: no image fits .* with 1_seg for the stars.* for 1; change"),
        ("T1_1*", "*_seg", r"_seg\.nii: no image fits .* stand for nothing"),
        ("*_seg", "*_seg", r"no image fits .* stand for nothing; change"),
    ],
)
def test_patterns_that_pair_nothing_say_what_is_there(
    tmp_path: Path, images: str, labels: str, message: str
) -> None:
    touch(tmp_path, "T1_1.nii", "1_seg.nii", "2_seg.nii")
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path, images=images, labels=labels)


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/1_T1.nii", "y/1_T1.nii", "1_seg.nii")
    with pytest.raises(DataError, match=r"fits both .*x/1_T1\.nii and .*1_T1\.nii\.gz"):
        read_dataset(touch(tmp_path, "x/1_T1.nii.gz"), images="x/*_T1", labels="*_seg")


@pytest.mark.parametrize(
    "pattern", ["/data/*", "../*", "a/../../*", "T**1.nii", "**", "a\\*", "*\0"]
)
def test_patterns_stay_in_the_folder(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"relative to the folder|whole folders"):
        read_dataset(touch(tmp_path, "a.nii"), images=pattern, labels="*_seg.nii")


def test_images_alone_are_unlabelled_and_no_one_trains_on_them(tmp_path: Path) -> None:
    dataset = read_dataset(touch(tmp_path, "P1/T1.nii", "P2/T1.nii"), images="*/T1.nii")
    assert (len(dataset), [case.id for case in dataset.unlabelled]) == (0, ["P1", "P2"])
    with pytest.raises(ConfigError, match=r"none of the 2 images has a label map"):
        dataset.require_structures()


def test_a_choice_that_the_layout_cannot_follow_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "plain", "images/a.nii", "labels/a.nii")
    with pytest.raises(ConfigError, match=r"states its files, and --images T1w would choose"):
        read_dataset(tmp_path / "plain", images="T1w")
    (tmp_path / "dataset.json").write_text(json.dumps({"training": []}))
    with pytest.raises(ConfigError, match=r"dataset\.json states its files"):
        read_dataset(tmp_path / "dataset.json", images="T1_*", labels="*_seg")


def test_patterns_are_described_and_read_back(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data", "A/T1_1.nii", "A/1_seg.nii", "A/T1_2.nii", "A/2_seg.nii")
    out = folder / "dataset.json"
    words = [str(folder), "--images", "*/T1_*", "--labels", "*/*_seg", "--out", str(out)]
    assert commands.parse("describe", words).run() == 0
    written = read_dataset(out)
    assert [(case.id, case.group) for case in written] == [("A_1", "A"), ("A_2", "A")]


def test_every_command_that_takes_a_dataset_takes_patterns() -> None:
    choice = ["--images", "*/T1", "--labels", "*/seg"]
    for name, words in (
        ("train", ["d", "--out", "o"]),
        ("predict", ["r", "d", "--out", "o"]),
        ("evaluate", ["p", "d"]),
        ("study", ["systems", "d", "--out", "o"]),
    ):
        parsed: Any = commands.parse(name, [*words, *choice])
        assert parsed.cases == CaseChoice(images=("*/T1",), labels="*/seg")


def table(folder: Path, text: str | bytes, name: str = "cases.csv") -> Path:
    """A table beside the scans that it may name."""
    touch(folder, "x/1.nii", "x/2.nii", "x/NA.nii", "y/1.nii", "y/2.nii", "y/NA.nii")
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_names_cases_people_and_sides(tmp_path: Path) -> None:
    text = (
        "image,label,person,case,split\n"
        "x/1.nii,y/1.nii,ann,a1,train\n"
        "x/2.nii,y/2.nii,NA,,test\n"
        "x/NA.nii,,'=bob,,test\n"
    )
    path = table(tmp_path, text)
    dataset = read_dataset(path)
    assert pairs(dataset) == {"a1": ("x/1.nii", "y/1.nii"), "2": ("x/2.nii", "y/2.nii")}
    assert [case.person for case in (*dataset, *dataset.unlabelled)] == ["ann", "NA", "=bob"]
    assert [case.id for case in dataset.unlabelled] == ["NA"]
    train, test = CaseChoice().read(path)
    assert test is not None
    assert ([case.id for case in train], [case.id for case in test]) == (["a1"], ["2"])
    train, test = dataset.split("stated")
    assert ([case.id for case in train], [case.id for case in test]) == (["a1"], ["2"])
    everyone, nobody = CaseChoice(test_count=1).read(path)
    assert len(everyone) == 1
    assert nobody is not None


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_table_with_tabs_is_described_and_keeps_its_sides(tmp_path: Path, start: bytes) -> None:
    text = (
        start + b"image\tlabel\tsplit\r\nx/1.nii\ty/1.nii\ttrain\r\n\r\nx/2.nii\ty/2.nii\ttest\r\n"
    )
    path = table(tmp_path, text, "cases.tsv")
    describe(path, tmp_path / "dataset.json")
    dataset = read_dataset(tmp_path / "dataset.json")
    assert dataset.states_split
    assert [case.id for case in dataset] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,sex\nx/1.nii,y/1.nii,f\n", r"unknown columns 'sex'; known are image"),
        ("image,group\nx/1.nii,a\n", r"no column label, found image, group"),
        ("image;label\nx/1.nii;y/1.nii\n", "separated by semicolons"),
        ("image,label\nx/1.nii\n", "row 1 has 1 cells, expected 2"),
        ("image,label,label\nx/1.nii,y/1.nii,\n", "two columns have one name"),
        ("image,label,person\n,,ann\n", "row 1 has no image"),
        ("image,label\nx/1.nii,\n", "no row has a label"),
        ("image,label\n", "no row has a label"),
        ("", "no column image, label"),
        ("image,label,split\nx/1.nii,y/1.nii,val\n", "row 1 has the split 'val'"),
        ("image,label,split\nx/1.nii,,train\n", "row 1 is for training and has no label"),
        ("image,label\nx/1.nii,y/1.nii\nx/1.nii,y/2.nii\n", "case ids must differ"),
        ("image,label\nx/9.nii,y/1.nii\n", r"x/9\.nii: there is no such file"),
        ("image,label\n../1.nii,y/1.nii\n", "leaves the folder"),
        ("image,label\n=1+1,y/1.nii\n", "not the name of a scan"),
        ("image,label\nx/1.nii,y/é.nii\n".encode("latin-1"), r"not UTF-8 text .* as UTF-8"),
    ],
)
def test_tables_that_cannot_be_used_say_why(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path)
    assert "cases.csv" in str(caught.value)


def test_a_description_states_a_side_for_every_case_or_for_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    entries = [{"image": "a.nii", "split": "train"}, {"image": "b.nii"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(DataError, match=r'b: "split" is none'):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries[:1]}))
    with pytest.raises(DataError, match="no split is stated"):
        read_dataset(tmp_path).split("stated")


@pytest.mark.parametrize(
    ("image", "label"), [("T1", "seg"), ("{}_T1", "{}_seg"), ("scan", "label"), ("{}", "aseg")]
)
def test_one_folder_per_person_is_known_by_its_names(
    tmp_path: Path, image: str, label: str
) -> None:
    for person in ("P01", "P02"):
        touch(tmp_path / person, f"{image.format(person)}.nii.gz", f"{label.format(person)}.nii")
    touch(tmp_path / "P03", f"{image.format('P03')}.nii.gz")
    dataset = read_dataset(tmp_path)
    assert [(case.id, case.group) for case in dataset] == [("P01", "P01"), ("P02", "P02")]
    assert [case.id for case in dataset.unlabelled] == ["P03"]
    assert dataset[0].image.name == f"{image.format('P01')}.nii.gz"


def test_several_images_per_person_need_a_choice(tmp_path: Path) -> None:
    for person in ("P01", "P02"):
        touch(tmp_path / person, "T1.nii.gz", "T2.nii.gz", "seg.nii.gz")
    with pytest.raises(DataError, match=r"hold \*/T1, \*/T2, \*/seg, .* --images '\*/T1'"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, images="T2.nii.gz")[0].image.name == "T2.nii.gz"
    assert read_dataset(tmp_path, images="T2", labels="seg")[1].image.name == "T2.nii.gz"
    with pytest.raises(DataError, match=r"nothing fits --images '\*/T3'"):
        read_dataset(tmp_path, images="T3")


def freesurfer(folder: Path, *subjects: str) -> Path:
    for subject in subjects:
        touch(folder / subject / "mri", "T1.mgz", "norm.mgz", "aseg.mgz", "aparc+aseg.mgz")
    return folder


def test_subjects_of_freesurfer_have_named_labels(tmp_path: Path) -> None:
    dataset = read_dataset(freesurfer(tmp_path, "ann", "bob", "fsaverage"))
    assert pairs(dataset) == {
        "ann": ("ann/mri/T1.mgz", "ann/mri/aseg.mgz"),
        "bob": ("bob/mri/T1.mgz", "bob/mri/aseg.mgz"),
    }
    named = (dataset.labels[17], dataset.labels[53], dataset.labels[2035])
    assert named == ("Left-Hippocampus", "Right-Hippocampus", "ctx-rh-insula")
    with pytest.raises(ConfigError, match=r"17  Left-Hippocampus"):
        dataset.require_structures()
    chosen = dataset.with_structures(hippocampus_left=17, subiculum=205, caudate="Left-Caudate")
    assert [one.label_ids for one in chosen.structures] == [(17,), (205,), (11,)]


def test_other_files_of_freesurfer_are_chosen_by_name(tmp_path: Path) -> None:
    folder = freesurfer(tmp_path, "ann")
    dataset = read_dataset(folder, images="norm", labels="aparc+aseg.mgz")
    assert pairs(dataset) == {"ann": ("ann/mri/norm.mgz", "ann/mri/aparc+aseg.mgz")}
    with pytest.raises(DataError, match=r"expected mri/brain\.mgz beside mri/aseg\.mgz"):
        read_dataset(folder, images="brain.mgz")
    with pytest.raises(DataError, match=r"there are T1\.mgz, .* in ann"):
        read_dataset(folder, labels="aparc.mgz")


def test_longitudinal_subjects_of_freesurfer_are_one_person(tmp_path: Path) -> None:
    names = (
        "ann1",
        "ann2",
        "ann1.long.ann",
        "ann2.long.ann",
        "ann",
        "sub-07_ses-1",
        "sub-07_ses-2",
    )
    dataset = read_dataset(freesurfer(tmp_path, *names))
    assert {case.id: case.group for case in dataset} == {
        "ann1.long.ann": "ann",
        "ann2.long.ann": "ann",
        "sub-07_ses-1": "sub-07",
        "sub-07_ses-2": "sub-07",
    }


def test_a_pattern_for_each_channel_finds_all_of_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "1_T1.nii", "1_T2.nii", "1_seg.nii", "2_T1.nii", "2_T2.nii", "2_seg.nii")
    choice = CaseChoice(images=("*_T1", "*_T2"), labels="*_seg")
    dataset, _ = choice.read(tmp_path)
    assert dataset.channels == ("T1", "T2")
    assert [(case.image.name, case.further_channels[0].name) for case in dataset] == [
        ("1_T1.nii", "1_T2.nii"),
        ("2_T1.nii", "2_T2.nii"),
    ]
    named = read_dataset(tmp_path, images=("late=*_T2", "*_T1"), labels="*_seg")
    assert (named.channels, named[0].image.name) == (("late", "T1"), "1_T2.nii")
    describe(tmp_path, tmp_path / "made.json", images=("*_T1", "*_T2"), labels="*_seg")
    written = read_dataset(tmp_path / "made.json")
    assert (written.channels, written[1].channel_count) == (("T1", "T2"), 2)
    (tmp_path / "2_T2.nii").unlink()
    with pytest.raises(DataError, match=r"2_T1\.nii: no other channel .* '\*_T2' with 2 for the"):
        read_dataset(tmp_path, images=("*_T1", "*_T2"), labels="*_seg")
    with pytest.raises(ConfigError, match="two channels are the same files"):
        read_dataset(tmp_path, images=("*_T1", "*_T1"), labels="*_seg")


def test_channels_of_persons_and_of_freesurfer_are_named_by_their_files(tmp_path: Path) -> None:
    for person in ("P01", "P02"):
        touch(tmp_path / "persons" / person, "T1.nii.gz", "T2.nii.gz", "seg.nii.gz")
    persons = read_dataset(tmp_path / "persons", images=("T1", "T2"))
    assert (persons.channels, persons[0].channel_count) == (("T1", "T2"), 2)
    subjects = freesurfer(tmp_path / "subjects", "ann", "bob")
    dataset = read_dataset(subjects, images=("norm", "T1.mgz"))
    assert (dataset.channels, dataset[0].image.name) == (("norm", "T1"), "norm.mgz")
    (subjects / "bob" / "mri" / "T1.mgz").unlink()
    with pytest.raises(DataError, match=r"bob: expected mri/T1\.mgz beside mri/norm\.mgz"):
        read_dataset(subjects, images=("norm", "T1.mgz"))


def test_rows_of_a_table_are_channels_of_their_case(tmp_path: Path) -> None:
    head = "image,label,case,channel,person\n"
    text = (
        head + "x/1.nii,y/1.nii,a,T1,ann\ny/2.nii,y/1.nii,b,T1,\nx/2.nii,,a,T2,\nx/NA.nii,,b,T2,\n"
    )
    dataset = read_dataset(table(tmp_path, text))
    assert dataset.channels == ("T1", "T2")
    found = {case.id: (case.image.name, case.further_channels[0].name) for case in dataset}
    assert found == {"a": ("1.nii", "2.nii"), "b": ("2.nii", "NA.nii")}
    assert [case.group for case in dataset] == ["ann", None]
    for wrong, message in (
        (
            head + "x/1.nii,y/1.nii,a,T1,\nx/2.nii,,a,T2,\nx/1.nii,y/1.nii,b,T1,\n",
            "'b' has no row of",
        ),
        (head + "x/1.nii,y/1.nii,a,T1,\nx/2.nii,,a,T1,\n", "row 2: 'a' has the channel 'T1' twice"),
        (head + "x/1.nii,y/1.nii,a,T1,\nx/2.nii,y/2.nii,a,T2,\n", "rows 1 and 2 .* differ in"),
        (head + "x/1.nii,y/1.nii,,T1,\n", 'row 1 needs a "case" and a "channel"'),
        ("image,label,channel\nx/1.nii,y/1.nii,T1\n", 'a column "case"'),
    ):
        with pytest.raises(DataError, match=message):
            read_dataset(table(tmp_path, wrong))

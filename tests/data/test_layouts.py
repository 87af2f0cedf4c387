"""Folders in the known layouts, described and read back."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shapeguide.data.dataset import read_dataset
from shapeguide.data.layouts import describe
from shapeguide.data.lpba40 import label_names
from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure, Volume

SHAPE = (4, 5, 6)
GRID = Grid(SHAPE, np.eye(4))
new_analyze: Any = nib.AnalyzeImage  # nibabel's classes carry no types


def put_image(path: Path) -> None:
    write_volume(Volume(np.arange(120, dtype=np.float32).reshape(SHAPE), GRID), path)


def put_label_map(path: Path) -> None:
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[1, 1, 1], ids[2, 2, 2] = 1, 2
    write_label_map(LabelMap(ids, GRID), path)


def put_analyze(path: Path, codes: tuple[int, int], *, packed: bool) -> None:
    """A pair with the odd code at the lower first index and a trailing axis of length 1."""
    data = np.zeros((*SHAPE, 1), dtype=np.uint8)
    data[0, 1, 1, 0], data[3, 1, 1, 0] = codes
    path.parent.mkdir(parents=True, exist_ok=True)
    image = new_analyze(data, None)
    image.to_filename(path)
    if packed:
        voxels = path.with_name(path.name[:-4] + ".img")
        voxels.with_name(voxels.name + ".gz").write_bytes(gzip.compress(voxels.read_bytes()))
        voxels.unlink()


def decathlon(folder: Path) -> Path:
    for case_id in ("b", "a"):
        put_image(folder / "imagesTr" / f"{case_id}.nii.gz")
        put_label_map(folder / "labelsTr" / f"{case_id}.nii.gz")
    put_image(folder / "imagesTs" / "c.nii.gz")
    (folder / "imagesTr" / "._a.nii.gz").write_bytes(b"of macOS")
    return folder


def nnunet(folder: Path, **stated: Any) -> Path:
    for case_id in ("liver_1", "liver_2"):
        put_image(folder / "imagesTr" / f"{case_id}_0000.nii.gz")
        put_label_map(folder / "labelsTr" / f"{case_id}.nii.gz")
    put_image(folder / "imagesTs" / "liver_3_0000.nii.gz")
    content = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "Front": 1, "Back": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **stated,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def bids(folder: Path) -> Path:
    for subject, session in (("01", "1"), ("01", "2"), ("02", "1")):
        scan = f"sub-{subject}_ses-{session}"
        inner = Path(f"sub-{subject}") / f"ses-{session}" / "anat"
        put_image(folder / inner / f"{scan}_T1w.nii.gz")
        put_label_map(folder / "derivatives" / "manual" / inner / f"{scan}_desc-m_dseg.nii.gz")
    put_image(folder / "sub-03" / "anat" / "sub-03_T1w.nii.gz")
    table = "index\tname\n1\tFront\n2\tBack\n"
    (folder / "derivatives" / "manual" / "desc-m_dseg.tsv").write_text(table)
    return folder


def lpba40(folder: Path, *, packed: bool) -> Path:
    for person in ("S01", "S02"):
        inner = folder / "delineation_space" / person
        stem = f"{person}.delineation"
        put_analyze(inner / f"{stem}.skullstripped.hdr", (80, 90), packed=packed)
        put_analyze(inner / f"{stem}.structure.label.hdr", (165, 166), packed=packed)
        native = folder / "native_space" / person
        put_analyze(native / f"{person}.native.mri.hdr", (80, 90), packed=packed)
        put_analyze(native / f"{person}.native.brain.mask.hdr", (1, 1), packed=packed)
    return folder


def plain(folder: Path) -> Path:
    for case_id in ("1000", "1001", "1002"):
        put_image(folder / "images" / f"{case_id}.nii.gz")
        put_label_map(folder / "labels" / f"{case_id}.nii.gz")
    (folder / "label_names.csv").write_text("Number,Name,Class\n1,Front,GM\n2,Back,GM\n")
    split = {"train": ["1000"], "test": ["1001", "1002"], "same_person": [["1001", "1002"]]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def test_a_decathlon_folder_without_description_is_described(tmp_path: Path) -> None:
    dataset = read_dataset(decathlon(tmp_path / "Task"))
    assert (dataset.name, [case.id for case in dataset]) == ("Task", ["a", "b"])
    assert [case.id for case in dataset.unlabelled] == ["c"]
    assert dataset.labels == {}


@pytest.mark.parametrize("name", ["dataset.json", ""])
def test_an_nnunet_folder_is_read_by_folder_or_description(tmp_path: Path, name: str) -> None:
    dataset = read_dataset(nnunet(tmp_path) / name)
    assert [case.id for case in dataset] == ["liver_1", "liver_2"]
    assert [case.id for case in dataset.unlabelled] == ["liver_3"]
    assert dataset.labels == {1: "Front", 2: "Back"}
    assert dataset[0].read_label_map().mask("back").sum() == 1


def test_regions_of_nnunet_that_lie_apart_are_structures(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "rest": [7, 8], "lesion": 3}
    dataset = read_dataset(nnunet(tmp_path, labels=labels, regions_class_order=[1, 2, 3]))
    dataset.require_structures()
    assert dataset.structures == (
        Structure("whole", (1, 2)),
        Structure("lesion", (3,)),
        Structure("rest", (7, 8)),
    )
    assert dataset[0].read_label_map().mask("whole").sum() == 2


def test_regions_of_nnunet_that_overlap_are_refused_by_name_until_some_are_chosen(
    tmp_path: Path,
) -> None:
    labels = {"background": 0, "whole": [1, 2], "posterior": [2, 3]}
    dataset = read_dataset(nnunet(tmp_path, labels=labels))
    assert dataset.structures == ()
    message = (
        r"structures whole \(1, 2\) and posterior \(2, 3\) share label id 2, .*"
        r"choose some by name and label ids"
    )
    with pytest.raises(ConfigError, match=message):
        dataset.require_structures()
    for chosen in (dataset.with_structures(whole="whole"), dataset.with_structures(whole=(1, 2))):
        chosen.require_structures()
        assert chosen[0].read_label_map().mask("whole").sum() == 2


def test_voxels_to_be_ignored_are_refused_by_name(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": 1, "ignore": 2}
    with pytest.raises(DataError, match=r'has the label "ignore" \(2\).*take "ignore" out of'):
        read_dataset(nnunet(tmp_path, labels=labels))


@pytest.mark.parametrize("region", [[], [1, 1], [0, 1], [1.5], [[1]], ["one"], [True], [2**31]])
def test_regions_of_another_form_are_refused(tmp_path: Path, region: Any) -> None:
    with pytest.raises(DataError, match='"labels" of the description'):
        read_dataset(nnunet(tmp_path, labels={"background": 0, "odd": region}))


def test_channels_of_nnunet_are_those_of_one_case(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, channel_names={"0": "T1", "1": "FLAIR"})
    for part, case_id in (
        ("imagesTr", "liver_1"),
        ("imagesTr", "liver_2"),
        ("imagesTs", "liver_3"),
    ):
        put_image(folder / part / f"{case_id}_0001.nii.gz")
    dataset = read_dataset(folder)
    assert dataset.channels == ("T1", "FLAIR")
    assert [case.id for case in dataset] == ["liver_1", "liver_2"]
    assert dataset[0].image.name == "liver_1_0000.nii.gz"
    assert [path.name for path in dataset[0].further_channels] == ["liver_1_0001.nii.gz"]
    assert dataset.unlabelled[0].channel_count == 2
    (folder / "imagesTr" / "liver_2_0001.nii.gz").unlink()
    with pytest.raises(DataError, match="liver_2 has no channel FLAIR"):
        read_dataset(folder)


@pytest.mark.parametrize("names", [{"0": "T1", "2": "T2"}, {"a": "T1"}, ["T1"], {"0": 1}], ids=str)
def test_channel_names_of_another_form_are_refused(tmp_path: Path, names: Any) -> None:
    with pytest.raises(DataError, match=r'"channel_names" of the description .* expected \{"0"'):
        read_dataset(nnunet(tmp_path, channel_names=names))


def test_contrasts_of_one_bids_session_are_channels(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    for scan in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        put_image(folder / scan.replace("_", "/") / "anat" / f"{scan}_acq-x_FLAIR.nii.gz")
    (folder / "sub-03" / "anat" / "sub-03_T1w.nii.gz").unlink()
    dataset = read_dataset(folder, images=("T1w", "FLAIR"))
    assert dataset.channels == ("T1w", "FLAIR")
    assert [case.further_channels[0].name for case in dataset] == [
        "sub-01_ses-1_acq-x_FLAIR.nii.gz",
        "sub-01_ses-2_acq-x_FLAIR.nii.gz",
        "sub-02_ses-1_acq-x_FLAIR.nii.gz",
    ]
    put_image(folder / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_acq-y_FLAIR.nii.gz")
    with pytest.raises(
        DataError, match=r"sub-02_ses-1_T1w.*one FLAIR image .* found .*acq-x.*acq-y"
    ):
        read_dataset(folder, images=("T1w", "FLAIR"))


def test_bids_pairs_images_with_their_segmentations_by_subject(tmp_path: Path) -> None:
    dataset = read_dataset(bids(tmp_path))
    ids = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    assert [case.id for case in dataset] == ids
    assert [case.group for case in dataset] == ["sub-01", "sub-01", "sub-02"]
    assert [case.id for case in dataset.unlabelled] == ["sub-03"]
    assert [item.name for item in dataset.structures] == ["front", "back"]
    assert dataset[1].read_label_map().mask("front").sum() == 1


def test_bids_prefers_the_raw_image_and_keeps_spaces_apart(tmp_path: Path) -> None:
    bids(tmp_path)
    inner = tmp_path / "derivatives" / "manual" / "sub-02" / "ses-1" / "anat"
    put_image(inner / "sub-02_ses-1_desc-preproc_T1w.nii.gz")
    put_image(inner / "sub-02_ses-1_space-MNI_desc-preproc_T1w.nii.gz")
    dataset = read_dataset(tmp_path)
    assert dataset[2].image == tmp_path / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_T1w.nii.gz"


def test_of_several_segmentations_of_bids_one_is_chosen_by_its_entities(tmp_path: Path) -> None:
    manual = bids(tmp_path) / "derivatives" / "manual"
    for scan in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        inner = manual / scan.replace("_", "/") / "anat"
        put_label_map(inner / f"{scan}_desc-other_dseg.nii.gz")
    message = r"2 segmentations; choose by --labels desc-m or --labels desc-other:\n  derivatives/"
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)
    for choice in ("desc-other", "desc-other_dseg", "desc-other_dseg.nii.gz"):
        dataset = read_dataset(tmp_path, labels=choice)
        assert {case.label_map.name[13:] for case in dataset if case.label_map} == {
            "desc-other_dseg.nii.gz"
        }
    assert len(read_dataset(tmp_path, labels="desc-m")) == 3
    with pytest.raises(DataError, match="no desc-none label maps"):
        read_dataset(tmp_path, labels="desc-none")


def test_segmentations_of_bids_that_are_named_alike_are_chosen_by_a_pattern(tmp_path: Path) -> None:
    manual = bids(tmp_path) / "derivatives" / "manual"
    shutil.copytree(manual, manual.with_name("auto"))
    with pytest.raises(DataError, match=r"--labels 'derivatives/auto/\*\*/\*_dseg\.nii\.gz'"):
        read_dataset(tmp_path)
    dataset = read_dataset(tmp_path, labels="derivatives/auto/**/*_dseg.nii.gz")
    assert all("auto" in case.label_map.parts for case in dataset if case.label_map)
    assert [case.id for case in dataset.unlabelled] == ["sub-03"]


def test_another_contrast_of_bids_is_chosen_by_its_suffix(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    for scan in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        put_image(folder / scan.replace("_", "/") / "anat" / f"{scan}_T2w.nii.gz")
    dataset = read_dataset(folder, images="T2w")
    assert dataset[0].image.name == "sub-01_ses-1_T2w.nii.gz"
    assert [case.id for case in dataset] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]


def test_bids_without_images_or_segmentations_is_refused(tmp_path: Path) -> None:
    bids(tmp_path)
    with pytest.raises(DataError, match="no known layout"):
        read_dataset(tmp_path / "derivatives")
    (tmp_path / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_T1w.nii.gz").unlink()
    with pytest.raises(DataError, match="one T1w image with the same entities"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"no \*_dseg"):
        read_dataset(tmp_path / "sub-01")


@pytest.mark.parametrize("packed", [False, True])
def test_lpba40_takes_the_side_from_the_code(tmp_path: Path, packed: bool) -> None:
    dataset = read_dataset(lpba40(tmp_path, packed=packed))
    assert [case.id for case in dataset] == ["S01", "S02"]
    assert [case.id for case in dataset.unlabelled] == ["S01_native", "S02_native"]
    label_map = dataset[0].read_label_map()
    left, right = (
        label_map.grid.to_world(np.argwhere(label_map.mask(f"{side}_hippocampus"))[0])[0]
        for side in ("left", "right")
    )
    assert left < right
    flipped = read_dataset(tmp_path, orientation="LAS")[0].read_label_map()
    assert flipped.grid.affine[0, 0] < 0


def test_lpba40_has_56_structures() -> None:
    names = label_names()
    assert len(names) == 56
    assert (names["161"], names["166"]) == ("left caudate", "right hippocampus")
    assert (names["181"], names["182"]) == ("cerebellum", "brainstem")


def test_lpba40_without_a_label_map_is_refused(tmp_path: Path) -> None:
    lpba40(tmp_path, packed=False)
    for file in (tmp_path / "delineation_space" / "S02").glob("*label*"):
        file.unlink()
    with pytest.raises(DataError, match=r"S02: expected S02\.delineation"):
        read_dataset(tmp_path)


def test_a_plain_folder_takes_names_and_people_from_its_files(tmp_path: Path) -> None:
    dataset = read_dataset(plain(tmp_path))
    assert dataset.labels == {1: "Front", 2: "Back"}
    assert [case.group for case in dataset] == [None, "1001", "1001"]
    train, test = dataset.split("split.json")
    assert (len(train), len(test)) == (1, 2)


def test_label_maps_without_image_are_refused(tmp_path: Path) -> None:
    (plain(tmp_path) / "images" / "1001.nii.gz").unlink()
    with pytest.raises(DataError, match="the label map 1001 in labels/ has no image"):
        read_dataset(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    put_image(plain(tmp_path) / "images" / "1001.nii")
    with pytest.raises(DataError, match="case ids must differ"):
        read_dataset(tmp_path)


def test_unknown_folders_are_refused_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no known layout; expected a dataset\.json"):
        describe(tmp_path, tmp_path / "made.json")
    with pytest.raises(DataError, match="no such folder"):
        describe(tmp_path / "absent", tmp_path / "made.json")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="no label maps"):
        describe(tmp_path, tmp_path / "made.json")


def fill(layout: str, folder: Path) -> Path:
    if layout == "lpba40":
        return lpba40(folder, packed=True)
    return {"decathlon": decathlon, "nnunet": nnunet, "bids": bids, "plain": plain}[layout](folder)


@pytest.mark.parametrize("layout", ["decathlon", "nnunet", "bids", "lpba40", "plain"])
@pytest.mark.parametrize("where", ["data/mine.json", "elsewhere/mine.json"])
def test_a_written_description_reads_like_the_folder(
    tmp_path: Path, layout: str, where: str
) -> None:
    folder = fill(layout, tmp_path / "data")
    describe(folder, tmp_path / where)
    stated = json.loads((tmp_path / where).read_text())
    assert ("root" in stated) == where.startswith("elsewhere")
    outside = where.startswith("elsewhere")
    written = read_dataset(tmp_path / where, allow_outside=outside)
    direct = read_dataset(folder)
    assert [case.id for case in written] == [case.id for case in direct]
    assert [case.group for case in written] == [case.group for case in direct]
    assert written.structures == direct.structures
    assert np.array_equal(written[0].read_volume().data, direct[0].read_volume().data)


def test_a_description_elsewhere_is_described_again_by_its_folder(tmp_path: Path) -> None:
    describe(plain(tmp_path / "data"), tmp_path / "one" / "dataset.json")
    describe(tmp_path / "one", tmp_path / "two" / "dataset.json", allow_outside=True)
    assert len(read_dataset(tmp_path / "two", allow_outside=True)) == 3


@pytest.mark.parametrize("root", ["/", "..", "link", "inner/../../.."])
def test_a_root_that_leads_out_of_the_folder_is_refused_unless_asked_for(
    tmp_path: Path, root: str
) -> None:
    put_image(tmp_path / "secret.nii.gz")
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    root_path = (tmp_path / "data" / root).resolve()
    image = (tmp_path / "secret.nii.gz").relative_to(root_path)
    stated = {"root": root, "training": [{"image": f"./{image}"}]}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match=r'"root" of .* leaves the folder .*--allow-outside'):
        read_dataset(tmp_path / "data")
    assert len(read_dataset(tmp_path / "data", allow_outside=True)) == 1


def test_a_root_inside_the_folder_is_read(tmp_path: Path) -> None:
    put_image(tmp_path / "scans" / "a.nii.gz")
    stated = {"root": "scans", "training": [{"image": "a.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    assert read_dataset(tmp_path)[0].read_volume().data.shape == SHAPE
    stated["training"] = [{"image": "../scans/../dataset.json"}]
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match="leaves the folder"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["label_names.csv", "split.json"])
def test_tables_beside_the_scans_do_not_lead_outside_either(tmp_path: Path, name: str) -> None:
    folder = plain(tmp_path / "data")
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: this path leaves the folder"):
        read_dataset(folder)
    assert len(read_dataset(folder, allow_outside=True)) == 3


def test_label_names_that_are_not_utf8_are_refused_by_the_name_of_the_table(tmp_path: Path) -> None:
    table = bids(tmp_path / "bids") / "derivatives" / "manual" / "desc-m_dseg.tsv"
    table.write_bytes("index\tname\n1\tNoyau caud\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"desc-m_dseg\.tsv: not UTF-8 .* as UTF-8"):
        read_dataset(tmp_path / "bids")
    table = plain(tmp_path / "plain") / "label_names.csv"
    table.write_bytes("1,Noyau caud\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"label_names\.csv: not UTF-8 text"):
        read_dataset(tmp_path / "plain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'columns "index" and "name" expected, found none'),
        ("id\tname\n1\tFront\n", "found id, name"),
        ("index\tname\n1.5\tFront\n", "label ids, found '1.5'"),
        (f"index\tname\n{'9' * 5000}\tFront\n", "label ids, found '99999999999999999999'"),
        ("index\tname\n1\t" + "a" * 200_000, "cannot be read as a table"),
    ],
)
def test_damaged_tables_of_bids_are_refused(tmp_path: Path, text: str, message: str) -> None:
    table = bids(tmp_path) / "derivatives" / "manual" / "desc-m_dseg.tsv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_a_description_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    plain(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        describe(tmp_path / "data", tmp_path / "file" / "dataset.json")


@pytest.mark.real_data
def test_real_folders_are_described(real_data: Path, tmp_path: Path) -> None:
    for name, count in (("Task04_Hippocampus", 200), ("miccai2012", 35)):
        describe(real_data / name, tmp_path / f"{name}.json")
        dataset = read_dataset(tmp_path / f"{name}.json", allow_outside=True)
        assert len(dataset) == count
        assert dataset[0].read_grid().spatial_shape == dataset[0].read_label_map().data.shape

"""Dataset descriptions: what is read, what is refused, what cases give back."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset, check_apart, read_dataset
from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure, Volume

SHAPE = (6, 7, 8)


def cube_ids() -> NDArray[np.uint8]:
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[2:4, 2:4, 2:4] = 1
    ids[4, 2:4, 2:4] = 2
    return ids


def write_case(
    folder: Path,
    case_id: str,
    *,
    affine: NDArray[np.float64] | None = None,
    ids: NDArray[np.integer] | None = None,
) -> dict[str, Any]:
    """Image on an identity grid, label map on the affine; returns the entry of the description."""
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    ids = cube_ids() if ids is None else ids
    write_volume(Volume(image, Grid(SHAPE, np.eye(4))), folder / "imagesTr" / f"{case_id}.nii.gz")
    grid = Grid(ids.shape, np.eye(4) if affine is None else affine)
    write_label_map(LabelMap(ids, grid), folder / "labelsTr" / f"{case_id}.nii.gz")
    return {
        "image": f"./imagesTr/{case_id}.nii.gz",
        "label": f"./labelsTr/{case_id}.nii.gz",
    }


def described(folder: Path, training: list[Any], **more: Any) -> Path:
    content = {
        "name": "Toy",
        "labels": {"0": "background", "1": "Front part", "2": "Back"},
        "training": training,
        **more,
    }
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Dataset:
    entries = [write_case(tmp_path, f"case_{n}") for n in range(5)]
    return read_dataset(described(tmp_path, entries))


def test_a_decathlon_description_is_read_as_it_is(toy: Dataset) -> None:
    assert toy.name == "Toy"
    assert [case.id for case in toy] == [f"case_{n}" for n in range(5)]
    assert toy.labels == {1: "Front part", 2: "Back"}
    assert toy.structures == (Structure("front_part", (1,)), Structure("back", (2,)))
    assert toy[0].read_volume().data.shape == SHAPE
    assert toy[0].read_label_map().mask("back").sum() == 4


def test_structures_are_chosen_by_ids_or_names(toy: Dataset) -> None:
    chosen = toy.with_structures(whole=(1, 2))
    assert chosen[0].read_label_map().mask("whole").sum() == 12
    assert toy.with_structures(whole=("Front part", 2)).structures == chosen.structures
    assert toy.with_structures(back=2).structures == (Structure("back", (2,)),)


def test_ids_that_no_structure_names_are_background(toy: Dataset) -> None:
    label_map = toy.with_structures(back=2)[0].read_label_map()
    assert label_map.class_indices().sum() == 4


@pytest.mark.parametrize("given", [7, "Middle", (1, 9)])
def test_unknown_labels_are_refused(toy: Dataset, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"structure part: Toy has no label (7|'Middle'|9)") as no:
        toy.with_structures(part=given)
    assert str(no.value).endswith("in case_0:\n      1  Front part  8 mm3\n      2  Back  4 mm3")


def test_a_label_id_in_two_structures_is_refused_unless_one_holds_the_other(toy: Dataset) -> None:
    message = (
        r"structures one \(1, 2\) and both \(2, 1\) share label ids 1, 2, and structures may not "
        "overlap unless one holds all of the other: give each id to one of them, or train them in "
        "two runs"
    )
    with pytest.raises(ConfigError, match=message):
        toy.with_structures(one=(1, 2), both=(2, 1))
    nested = toy.with_structures(one=1, both=(1, 2))
    assert nested.structures == (Structure("one", (1,)), Structure("both_rest", (2,)))
    assert nested.all_structures[0] == Structure("both", (1, 2))


def test_a_description_may_state_structures_groups_and_ids(tmp_path: Path) -> None:
    entry = {**write_case(tmp_path, "a"), "id": "first", "group": "Ann"}
    dataset = read_dataset(described(tmp_path, [entry], structures={"whole": [1, 2]}))
    assert dataset.structures == (Structure("whole", (1, 2)),)
    assert (dataset[0].id, dataset[0].group) == ("first", "Ann")


def test_labels_without_names_need_no_naming(tmp_path: Path) -> None:
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "a")], labels={}))
    assert dataset.structures == ()
    assert dataset.with_structures(whole=(1, 2))[0].read_label_map().mask("whole").sum() == 12


def test_names_that_slug_alike_stay_apart(tmp_path: Path) -> None:
    labels = {"1": "Horn", "2": "horn!", "3": "??"}
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "a")], labels=labels))
    assert [item.name for item in dataset.structures] == ["horn_1", "horn_2", "label_3"]


def test_label_ids_that_nobody_names_are_refused(tmp_path: Path) -> None:
    ids = cube_ids()
    ids[0, 0, 0] = 9
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "odd", ids=ids)]))
    with pytest.raises(DataError, match=r"odd: .* label ids 9 are not named"):
        dataset[0].read_label_map()


def test_select_keeps_the_order_asked_for(toy: Dataset) -> None:
    assert [case.id for case in toy.select(["case_3", "case_1"])] == ["case_3", "case_1"]
    assert len(toy.select([])) == 0
    with pytest.raises(DataError, match="no cases nobody"):
        toy.select(["nobody"])


def test_folds_and_random_splits_part_the_cases(toy: Dataset) -> None:
    train, test = toy.split("fold_0")
    assert (len(train), len(test)) == (4, 1)
    assert {case.id for case in train} & {case.id for case in test} == set()
    assert len(toy.split_at_random(test_fraction=0.4, seed=1)[1]) == 2
    for wrong in ({}, {"test_count": 1, "test_fraction": 0.5}, {"test_fraction": 1.5}):
        with pytest.raises(ConfigError):
            toy.split_at_random(**wrong)  # type: ignore[arg-type]


def test_a_split_file_is_found_beside_the_description(toy: Dataset) -> None:
    content = {"train": ["case_0", "case_1"], "test": ["case_2"]}
    (toy.path.parent / "mine.json").write_text(json.dumps(content))
    train, test = toy.split("mine.json")
    assert [case.id for case in train] == ["case_0", "case_1"]
    assert [case.id for case in test] == ["case_2"]
    with pytest.raises(DataError, match="neither a split file nor a fold"):
        toy.split("yours.json")


def test_a_split_that_parts_a_person_is_refused(toy: Dataset, tmp_path: Path) -> None:
    content = {"train": ["case_0", "case_1"], "test": ["case_2"]}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="case_1 = case_2"):
        toy.with_same_person(("case_1", "case_2")).split(path)
    path.write_text(json.dumps({**content, "same_person": [["case_0", "case_2"]]}))
    with pytest.raises(DataError, match="case_0 = case_2"):
        toy.split(path)


def test_a_split_file_that_knows_people_leaves_them_known(toy: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    split = {"train": ["case_0", "case_1"], "test": ["case_2"]}
    path.write_text(json.dumps({**split, "same_person": [["case_0", "case_1"]]}))
    train, test = toy.split(path)
    assert train[0].group == train[1].group is not None
    check_apart(train, test)
    with pytest.raises(ConfigError, match=r"1 test cases show people .*: case_0 = case_1"):
        check_apart(train.select(["case_0"]), train.select(["case_1"]))
    with pytest.raises(ConfigError, match="trained on: case_2; choose"):
        check_apart(toy, test.select(["case_2"]))


def test_one_case_cannot_be_split(toy: Dataset) -> None:
    with pytest.raises(DataError, match="1 cases of 1 people cannot be split"):
        toy.select(["case_0"]).fold(0)


def test_duplicate_case_ids_are_refused(tmp_path: Path) -> None:
    entry = write_case(tmp_path, "a")
    with pytest.raises(DataError, match="found more than once: a"):
        read_dataset(described(tmp_path, [entry, entry]))


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_missing_file_is_named(tmp_path: Path, key: str) -> None:
    entry = {**write_case(tmp_path, "a"), key: "./imagesTr/gone.nii.gz"}
    with pytest.raises(DataError, match=r"gone\.nii\.gz: there is no such file"):
        read_dataset(described(tmp_path, [entry]))


def outside_paths(folder: Path) -> list[str]:
    outer = folder / "other"
    write_case(outer, "x")
    (folder / "toy" / "link.nii.gz").symlink_to(outer / "imagesTr" / "x.nii.gz")
    return ["../other/imagesTr/x.nii.gz", str(outer / "imagesTr" / "x.nii.gz"), "./link.nii.gz"]


def test_paths_that_leave_the_folder_are_refused_unless_asked_for(tmp_path: Path) -> None:
    entry = write_case(tmp_path / "toy", "a")
    for text in [*outside_paths(tmp_path), "../../nowhere.nii.gz"]:
        path = described(tmp_path / "toy", [{**entry, "image": text}])
        with pytest.raises(DataError, match=r"leaves the folder .*allow_outside=True"):
            read_dataset(path)
        if "nowhere" not in text:
            assert read_dataset(path, allow_outside=True)[0].read_volume().data.shape == SHAPE


def test_a_link_inside_the_folder_is_fine(tmp_path: Path) -> None:
    entry = write_case(tmp_path, "a")
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "imagesTr" / "a.nii.gz")
    dataset = read_dataset(described(tmp_path, [{**entry, "image": "link.nii.gz"}]))
    assert dataset[0].id == "link"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("text", "no list of cases"),
        ([], "lists no cases"),
        ([3], "expected"),
        ([{"image": ["a", 3]}], "expected"),
        ([{"image": []}], "expected"),
        ([{"image": "imagesTr/a.nii.gz", "group": 3}], '"group" is 3'),
        ([{"image": "imagesTr/a.nii.gz", "id": "../a"}], "case id cannot be '../a'"),
        ([{"image": "imagesTr/a.nii.gz", "id": "nul.1"}], "a device"),
        ([{"image": "imagesTr/a.txt"}], "not the name of a scan"),
        ([{"image": "a\0.nii.gz"}], "a.*nii"),
        ([{"image": "a" * 5000 + ".nii.gz"}], "not a usable path"),
    ],
)
def test_entries_of_another_form_are_refused(tmp_path: Path, training: Any, message: str) -> None:
    write_case(tmp_path, "a")
    with pytest.raises(DataError, match=message):
        read_dataset(described(tmp_path, training))


@pytest.mark.parametrize(
    "more",
    [
        {"labels": [1, 2]},
        {"labels": {"1": 2.5}},
        {"labels": {"one": "two"}},
        {"structures": [1]},
        {"structures": {"a": ["x"]}},
        {"root": "nowhere"},
        {"root": 3},
        {"test": "x"},
    ],
)
def test_other_parts_of_another_form_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        read_dataset(described(tmp_path, [write_case(tmp_path, "a")], **more))


def test_an_orientation_that_is_none_is_refused(tmp_path: Path) -> None:
    entry = {**write_case(tmp_path, "a"), "orientation": "up"}
    with pytest.raises(ConfigError, match="three letters"):
        read_dataset(described(tmp_path, [entry]))


def test_what_is_no_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset"):
        read_dataset(tmp_path / "absent.json")
    (tmp_path / "dataset.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a dataset description"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json cannot be read as JSON"):
        read_dataset(tmp_path)


def test_missing_test_images_are_passed_over(tmp_path: Path) -> None:
    entries = [write_case(tmp_path, "a"), write_case(tmp_path, "b")]
    tests = ["./imagesTr/b.nii.gz", "./imagesTs/gone.nii.gz"]
    dataset = read_dataset(described(tmp_path, entries[:1], test=tests))
    assert [case.id for case in dataset.unlabelled] == ["b"]
    with pytest.raises(DataError, match="b: this case has no label map"):
        dataset.unlabelled[0].read_label_map()


def test_a_stated_orientation_serves_all_cases(toy: Dataset) -> None:
    assert toy.with_orientation("LPS")[0].read_grid().affine[0, 0] == -1
    assert read_dataset(toy.path, orientation="LPS")[0].read_label_map().grid.affine[0, 0] == -1


def moved(offset_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 3] = offset_mm
    return affine


def test_rounding_of_the_affine_is_not_another_grid(tmp_path: Path) -> None:
    entry = write_case(tmp_path, "a", affine=moved((0.02, 0, 0)))
    label_map = read_dataset(described(tmp_path, [entry]))[0].read_label_map()
    assert np.array_equal(label_map.data, cube_ids())
    assert np.array_equal(label_map.grid.affine, np.eye(4))


def test_a_label_map_in_the_same_space_is_resampled_to_the_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 5
    entry = write_case(tmp_path, "a", affine=flipped, ids=cube_ids()[::-1])
    case = read_dataset(described(tmp_path, [entry]))[0]
    with caplog.at_level(logging.WARNING):
        label_map = case.read_label_map()
        case.read_label_map()
    assert np.array_equal(label_map.data, cube_ids())
    assert caplog.text.count("a: label map resampled") == 1


def test_a_label_map_in_another_space_is_refused_with_both_affines(tmp_path: Path) -> None:
    entry = write_case(tmp_path, "far", affine=moved((100, 0, 0)))
    with pytest.raises(GeometryError, match=r"far: .*do not overlap") as caught:
        read_dataset(described(tmp_path, [entry]))[0].read_label_map()
    assert "100." in str(caught.value)
    assert str(caught.value).count("Grid(spatial_shape=(6, 7, 8)") == 2


def test_an_empty_label_map_in_another_space_is_refused_too(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, dtype=np.uint8)
    entry = write_case(tmp_path, "far", affine=moved((100, 0, 0)), ids=empty)
    with pytest.raises(GeometryError, match="do not overlap"):
        read_dataset(described(tmp_path, [entry]))[0].read_label_map()


def test_many_labels_are_structures_only_once_someone_says_so(tmp_path: Path) -> None:
    labels = {str(label_id): f"Part {label_id}" for label_id in range(9)}
    path = described(tmp_path, [write_case(tmp_path, "a")], labels={**labels, "0": "background"})
    read_dataset(path).require_structures()
    labels["9"] = "Part 9"
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "a")], labels=labels))
    with pytest.raises(ConfigError, match="Toy: it has 9 labels, too many") as caught:
        dataset.require_structures()
    listed = str(caught.value).splitlines()
    assert listed[0].endswith(
        "choose some by name and label ids, as in --structure hippocampus=1,2 or "
        "dataset.with_structures(hippocampus=(1, 2)); label ids, with their sizes in a:"
    )
    assert listed[1:] == [
        "      1  Part 1  8 mm3",
        "      2  Part 2  4 mm3",
        "  and 7 that have names and do not occur there",
    ]
    dataset.with_structures(**{f"s{n}": n for n in range(1, 10)}).require_structures()


def test_without_any_labels_the_ids_that_are_there_are_listed(tmp_path: Path) -> None:
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "a")], labels={}))
    with pytest.raises(
        ConfigError, match=r"no structures are chosen(.|\n)*  1  8 mm3\n +2  4 mm3$"
    ):
        dataset.require_structures()


def test_structures_of_a_description_that_overlap_can_still_be_chosen_from(tmp_path: Path) -> None:
    both = {"whole": [1, 2], "back": [2, 3]}
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "a")], structures=both))
    with pytest.raises(ConfigError, match=r"structures whole .* and back .* share label id 2"):
        dataset.require_structures()
    dataset.with_structures(back=2).require_structures()


def test_a_structure_may_have_any_name_that_a_file_may_have(toy: Dataset) -> None:
    assert toy.with_structures(**{"self": 1}).structures == (Structure("self", (1,)),)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"training": [{"image": "a\\ud800.nii.gz"}]}',
        '{"labels": {"1": "\\ud800"}, "training": []}',
        '{"labels": {"one": ' + "9" * 5000 + '}, "training": []}',
        '{"labels": {"' + "9" * 5000 + '": "one"}, "training": []}',
        '{"training": [{"image": "imagesTr/a.nii.gz", "label_to_image": [[1e999]]}]}',
        '{"training": [{"image": "imagesTr/a.nii.gz", "label_to_image": 1' + "0" * 400 + "}]}",
        '{"training": {"image": "imagesTr/a.nii.gz"}}',
        '{"training": [[]]}',
        '{"training": [], "channel_names": 3}',
        "\x00",
        "caf\xe9",
    ],
)
def test_damaged_descriptions_are_errors_and_no_tracebacks(tmp_path: Path, text: str) -> None:
    write_case(tmp_path, "a")
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"dataset\.json|.*toy"):
        read_dataset(tmp_path / "dataset.json")


def test_a_link_that_leads_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    with pytest.raises(DataError, match=r"loop\.nii\.gz"):
        read_dataset(described(tmp_path, [{"image": "loop.nii.gz"}]))


def test_a_foreign_description_names_nothing_outside_the_output_folder(tmp_path: Path) -> None:
    evil = {"x/../../../evil": [1]}
    with pytest.raises(ConfigError, match=r"cannot be named 'x/../../../evil': it holds /"):
        read_dataset(described(tmp_path, [write_case(tmp_path, "a")], structures=evil))


def test_a_label_whose_name_is_no_file_name_gives_a_structure_named_by_its_id(
    tmp_path: Path,
) -> None:
    labels = {"1": "CON", "2": "long " * 50}
    dataset = read_dataset(described(tmp_path, [write_case(tmp_path, "a")], labels=labels))
    assert [item.name for item in dataset.structures] == ["label_1", "label_2"]


@pytest.mark.parametrize("case_id", ["NA", "nan", "null", "Anna B"])
def test_odd_words_may_be_case_ids(tmp_path: Path, case_id: str) -> None:
    assert Case(case_id, tmp_path / "scan.nii.gz").id == case_id


def test_the_person_of_a_case_is_its_group_or_the_case_itself() -> None:
    assert Case("a1", Path("a1.nii.gz"), group="Ann").person == "Ann"
    assert Case("a1", Path("a1.nii.gz")).person == "a1"


def test_errors_name_the_case_once(tmp_path: Path) -> None:
    case = Case("sick", tmp_path / "gone.nii.gz")
    with pytest.raises(DataError, match=r"^sick: /.*gone"):
        case.read_volume()


@pytest.mark.real_data
def test_the_real_decathlon_task_is_read_as_it_is(real_data: Path) -> None:
    dataset = read_dataset(real_data / "Task04_Hippocampus" / "dataset.json")
    assert len(dataset) == 200
    assert [item.name for item in dataset.structures] == ["anterior", "posterior"]
    train, test = dataset.with_structures(hippocampus=(1, 2)).split_at_random(test_count=40)
    assert (len(train), len(test)) == (160, 40)
    floats = dataset.select(["hippocampus_003", "hippocampus_243"])
    assert all(case.read_label_map().data.max() == 2 for case in floats)


@pytest.mark.real_data
def test_the_real_plain_folder_keeps_people_together(real_data: Path) -> None:
    dataset = read_dataset(real_data / "miccai2012")
    assert len(dataset) == 35
    assert dataset.labels[48] == "Left Hippocampus"
    train, test = dataset.split("split.json")
    assert (len(train), len(test)) == (15, 20)
    pairs = [("1003", "1023"), ("1004", "1024"), ("1005", "1025"), ("1018", "1038")]
    for index in range(5):
        ids = {case.id for case in dataset.fold(index)[1]}
        assert all((first in ids) == (second in ids) for first, second in pairs)
    case = dataset.with_structures(left="Left Hippocampus", right="Right Hippocampus")[0]
    label_map = case.read_label_map()
    left, right = (
        label_map.grid.to_world(np.argwhere(label_map.mask(side)).mean(axis=0))[0]
        for side in ("left", "right")
    )
    assert left < right


@pytest.mark.real_data
def test_the_real_atlas_says_which_ids_there_are_before_it_is_trained_on(real_data: Path) -> None:
    dataset = read_dataset(real_data / "miccai2012")
    with pytest.raises(ConfigError, match=r"\d+ labels, too many") as caught:
        dataset.require_structures()
    lines = str(caught.value).splitlines()
    assert [line for line in lines if "Left Hippocampus  3" in line and line.endswith(" mm3")]
    with pytest.raises(ConfigError, match="has no label 999;") as caught:
        dataset.with_structures(h=999)
    assert "Left Hippocampus" in str(caught.value)

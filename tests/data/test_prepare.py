"""Cases in the working space: shape, place, labels, refusals, and the cache."""

from __future__ import annotations

import os
import resource
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from shapeguide.data import prepared_cases
from shapeguide.data.cache import default_cache_dir, entry_key
from shapeguide.data.case import Case
from shapeguide.data.dataset import read_dataset
from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.data.prepare import PreparedCase, prepare_case, prepare_label_map, prepare_volume
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace, choose_working_space
from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import resample_channels
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.vocabulary import Centre

ONE_MM = (1.0, 1.0, 1.0)
LAS = np.array([[-1.0, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def write_case(
    folder: Path,
    shape: tuple[int, int, int] = (10, 12, 14),
    *,
    box: tuple[slice, slice, slice] = (slice(4, 7), slice(4, 8), slice(4, 9)),
    affine: NDArray[np.float64] = LAS,
    case_id: str = "case",
) -> Case:
    """A bright box in noise, in the middle unless another box is given."""
    ids = np.zeros(shape, dtype=np.uint8)
    ids[box] = 5
    image = np.random.default_rng(0).normal(100, 1, shape).astype(np.float32) + 50 * (ids == 5)
    grid = Grid(shape, affine)
    write_volume(Volume(image, grid), folder / "images" / f"{case_id}.nii.gz")
    write_label_map(LabelMap(ids, grid), folder / "labels" / f"{case_id}.nii.gz")
    return Case(
        case_id,
        folder / "images" / f"{case_id}.nii.gz",
        folder / "labels" / f"{case_id}.nii.gz",
        structures=(Structure("box", (5,)),),
    )


def test_the_space_is_the_median_spacing_and_the_shape_that_holds_every_case(
    tmp_path: Path,
) -> None:
    cases = [
        write_case(tmp_path, (10, 12, 14), affine=np.diag([step, 1, 2, 1]), case_id=f"c{step}")
        for step in (0.9, 1.0, 3.0)
    ]
    space = choose_working_space(cases, divisor=8)
    assert space.spacing_mm == (1.0, 1.0, 2.0)
    assert space.spatial_shape == (32, 16, 16)  # 30 mm, 12 mm, 28 mm
    assert (space.centre, space.normalisation) == ("volume", "foreground")


def test_the_space_counts_along_right_anterior_superior(tmp_path: Path) -> None:
    swapped = np.array([[0.0, 0, 1, 0], [2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]])
    space = choose_working_space([write_case(tmp_path, affine=swapped)], divisor=1)
    assert space.spacing_mm == (1.0, 2.0, 3.0)
    assert space.spatial_shape == (14, 10, 12)


def test_a_shape_that_the_network_cannot_halve_is_refused(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    with pytest.raises(ConfigError, match=r"multiple of 8, for instance \(24, 16, 16\)"):
        choose_working_space([case], spatial_shape=(20, 16, 16), divisor=8)
    with pytest.raises(ConfigError, match="three lengths"):
        choose_working_space([case], spatial_shape=(16, 16), divisor=8)
    with pytest.raises(ConfigError, match="three positive lengths"):
        choose_working_space([case], spacing_mm=(1, 0.5, np.inf), spatial_shape=(16, 16, 16))
    with pytest.raises(DataError, match="found none"):
        choose_working_space([])


@pytest.mark.parametrize(
    "length", [0, -1, np.nan, np.inf, 10**400], ids=["zero", "negative", "nan", "infinite", "huge"]
)
def test_a_space_of_lengths_that_cannot_be_is_refused(length: Any) -> None:
    with pytest.raises(ConfigError, match="a working space"):
        WorkingSpace(ONE_MM, (16, 16, length))


def test_a_case_that_needs_gigabytes_to_be_held_whole_is_named(tmp_path: Path) -> None:
    cases = [
        write_case(tmp_path, (10, 12, 14), affine=np.diag([step, step, step, 1]), case_id=case_id)
        for case_id, step in (("a", 1), ("b", 60), ("c", 1))
    ]
    with pytest.raises(GeometryError, match=r"^b: .*would become \(600, 720, 840\) working voxels"):
        choose_working_space(cases)
    with pytest.raises(ConfigError, match=r"at most 134,217,728 voxels .*; state a smaller shape"):
        WorkingSpace(ONE_MM, (1024, 1024, 1024))
    with pytest.raises(ConfigError, match="spacing must be positive"):
        choose_working_space(cases, spacing_mm=(0, 1, 1))


def test_a_scan_of_huge_voxels_is_refused_before_memory_is_taken() -> None:
    noise = np.random.default_rng(0).normal(size=(29, 29, 29)).astype(np.float32)
    volume = Volume(noise, Grid((29, 29, 29), np.diag([30.0, 30.0, 30.0, 1.0])))
    tracemalloc.start()
    with pytest.raises(GeometryError, match=r"\(870, 870, 870\) working voxels"):
        prepare_volume(volume, WorkingSpace(ONE_MM, (16, 16, 16)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_a_prepared_case_has_the_working_shape_and_keeps_its_labels(tmp_path: Path) -> None:
    prepared = prepare_case(write_case(tmp_path), WorkingSpace(ONE_MM, (16, 16, 16)))
    assert prepared.image.shape == (1, *prepared.classes.shape) == (1, 16, 16, 16)
    assert prepared.image.dtype == np.float32
    assert prepared.classes.dtype == np.uint8
    assert prepared.classes.sum() == 3 * 4 * 5
    image = prepared.image[0]
    assert image[prepared.classes == 1].min() > image[prepared.classes == 0].max()
    found = prepared.grid.to_world(np.argwhere(prepared.classes).mean(axis=0))
    assert np.allclose(found, (4, 5.5, 6))  # (5, 5.5, 6) of an LAS grid from 9 mm


def test_structures_of_several_ids_become_one_class(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    structures = (Structure("absent", (9,)), Structure("box", (5, 6)))
    prepared = prepare_case(
        replace(case, structures=structures), WorkingSpace(ONE_MM, (16, 16, 16))
    )
    assert set(np.unique(prepared.classes)) == {0, 2}


def test_a_sheet_survives_a_coarser_working_space(tmp_path: Path) -> None:
    box = (slice(4, 5), slice(2, 10), slice(2, 12))
    prepared = prepare_case(write_case(tmp_path, box=box), WorkingSpace((2, 2, 2), (8, 8, 8)))
    assert 15 <= prepared.classes.sum() <= 35  # 80 mm3 in voxels of 8 mm3, one layer thick


@pytest.mark.parametrize("centre", ["structure", "foreground"])
def test_the_centre_rule_decides_what_a_crop_keeps(tmp_path: Path, centre: str) -> None:
    box = (slice(0, 3), slice(0, 4), slice(9, 14))
    case = write_case(tmp_path, box=box)
    if centre == "foreground":
        volume = case.read_volume()
        volume.data[case.read_label_map().data == 0] = 0
        write_volume(volume, case.image)
    small = WorkingSpace(ONE_MM, (6, 6, 6))
    with pytest.raises(DataError, match=r'centred on the volume; centre it on the "structure"'):
        prepare_case(case, small)
    prepared = prepare_case(case, replace(small, centre=centre))  # type: ignore[arg-type]
    assert prepared.classes.sum() == 3 * 4 * 5


def test_a_structure_larger_than_the_working_shape_is_refused(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    with pytest.raises(DataError) as caught:
        prepare_case(case, WorkingSpace(ONE_MM, (8, 8, 4), centre="structure"))
    message = str(caught.value)
    assert message.startswith("case: the structures fill 3 x 4 x 5 mm")
    assert "the working shape is 8 x 8 x 4 voxels of 1 x 1 x 1 mm" in message
    assert message.endswith("raise the spatial shape or the spacing")


def test_a_structure_that_just_fits_is_kept_whole(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    space = WorkingSpace(ONE_MM, (3, 4, 5), centre="structure")
    assert prepare_case(case, space).classes.all()


def test_a_label_map_without_a_structure_voxel_is_refused(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path), structures=(Structure("other", (1, 2)),))
    with pytest.raises(DataError, match=r"case: .*no voxel belongs to a structure.*other \(1, 2\)"):
        prepare_case(case, WorkingSpace(ONE_MM, (16, 16, 16)))


def test_a_case_without_structures_is_refused(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path), structures=())
    with pytest.raises(ConfigError, match="case: no structures are chosen"):
        prepare_case(case, WorkingSpace(ONE_MM, (16, 16, 16)))


def test_an_all_zero_image_is_refused_by_name(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    write_volume(Volume(np.zeros((10, 12, 14), np.float32), Grid((10, 12, 14), LAS)), case.image)
    for centre in get_args(Centre):
        with pytest.raises(DataError, match="case: the image is constant: every voxel is 0"):
            prepare_case(case, WorkingSpace(ONE_MM, (16, 16, 16), centre))


def test_a_prepared_volume_covers_all_of_the_scan(tmp_path: Path) -> None:
    volume = write_case(tmp_path, (10, 12, 40)).read_volume()
    space = WorkingSpace(ONE_MM, (16, 8, 16), normalisation="volume")  # which clips nothing
    prepared = prepare_volume(volume, space)
    assert prepared.data.shape == (16, 12, 40)
    back = resample_channels(prepared.data[None], prepared.grid, volume.grid)[0]
    assert abs(np.corrcoef(back.ravel(), volume.data.ravel())[0, 1] - 1) < 1e-6


def test_a_volume_and_its_case_are_normalised_alike(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    space = WorkingSpace(ONE_MM, (8, 8, 8))
    crop, whole = prepare_case(case, space), prepare_volume(case.read_volume(), space)
    offset = np.round(whole.grid.to_index(crop.grid.to_world(np.zeros(3)))).astype(int)
    window = tuple(slice(start, start + 8) for start in offset)
    assert np.array_equal(whole.data[window], crop.image[0])


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 1.1, 0.9)])
@pytest.mark.parametrize("turn", range(4))
def test_labels_come_back_to_their_place_on_any_input_grid(
    tmp_path: Path, turn: int, spacing_mm: tuple[float, float, float]
) -> None:
    random = np.random.default_rng(turn)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * random.uniform(0.8, 1.2, 3)
    affine[:3, 3] = random.uniform(-50, 50, 3)
    case = write_case(tmp_path, (20, 22, 24), affine=affine)
    label_map = case.read_label_map()
    # A ball: the faces of a box would all round the same way.
    indices = np.moveaxis(np.indices((20, 22, 24)), 0, -1) - np.array([9, 11, 12])
    ids = 5 * (np.linalg.norm(indices, axis=-1) < 7).astype(np.uint8)
    write_label_map(replace(label_map, data=ids), case.label_map or "")
    prepared = prepare_case(case, WorkingSpace(spacing_mm, (48, 48, 48)))
    one_hot = (prepared.classes[None] == 1).astype(np.float32)
    back = resample_channels(one_hot, prepared.grid, label_map.grid)[0] > 0.5
    reference = ids == 5
    assert 2 * (back & reference).sum() / (back.sum() + reference.sum()) > 0.93
    apart = np.argwhere(back).mean(axis=0) - np.argwhere(reference).mean(axis=0)
    assert np.abs(apart).max() < 0.25  # voxels: rounded twice, 0.03 is usual; a slip gives 0.5


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases that were prepared, in order."""
    prepared: list[str] = []

    def counting(
        case: Case, space: WorkingSpace, middle_mm: NDArray[np.float64] | None
    ) -> PreparedCase:
        prepared.append(case.id)
        return prepare_case(case, space, middle_mm)

    monkeypatch.setattr(prepared_cases, "prepare_case", counting)
    return prepared


SPACE = WorkingSpace(ONE_MM, (16, 16, 16))


def test_prepared_cases_are_made_once_when_asked_for(tmp_path: Path, counted: list[str]) -> None:
    cases = [write_case(tmp_path / "data", case_id=name) for name in ("a", "b")]
    prepared = PreparedCases(cases, SPACE, cache_dir=tmp_path / "cache")
    assert (len(prepared), counted) == (2, [])
    assert prepared[1] is prepared[-1]
    assert counted == ["b"]
    assert [case.id for case in prepared] == ["a", "b"]
    assert [case.id for case in prepared[:1]] == ["a"]
    assert counted == ["b", "a"]
    assert not (tmp_path / "cache").exists()
    with pytest.raises(IndexError):
        prepared[2]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read whole, in order."""
    found: list[str] = []
    whole, labels = Case.read_volume, Case.read_label_map

    def read_volume(case: Case) -> Volume:
        found.append("volume")
        return whole(case)

    def read_label_map(case: Case) -> LabelMap:
        found.append("label_map")
        return labels(case)

    monkeypatch.setattr(Case, "read_volume", read_volume)
    monkeypatch.setattr(Case, "read_label_map", read_label_map)
    return found


def test_label_maps_alone_read_no_image_and_no_file_is_read_twice(
    tmp_path: Path, read: list[str]
) -> None:
    case = write_case(tmp_path)
    expected = prepare_case(case, SPACE)
    read.clear()
    prepared = PreparedCases([case], SPACE)
    (alone,) = prepared.label_maps()
    assert read == ["label_map"]
    whole = prepared[0]
    assert prepared.label_map(0).classes is whole.classes is alone.classes
    assert read == ["label_map", "volume"]
    assert (whole.image == expected.image).all()
    assert (whole.classes == expected.classes).all()
    assert (whole.grid.affine == expected.grid.affine).all()


@pytest.mark.parametrize("centre", ["volume", "foreground", "structure"])
def test_a_label_map_alone_lies_where_it_lies_beside_its_image(
    tmp_path: Path, centre: Centre
) -> None:
    case = write_case(tmp_path, (20, 12, 14))
    space = WorkingSpace(ONE_MM, (16, 16, 16), centre)
    alone, whole = prepare_label_map(case, space), prepare_case(case, space)
    assert (alone.classes == whole.classes).all()
    assert (alone.grid.affine == whole.grid.affine).all()


def test_label_maps_that_do_not_fit_in_memory_come_from_the_cache(
    tmp_path: Path, read: list[str]
) -> None:
    case = write_case(tmp_path / "data")
    prepared = on_disk([case], tmp_path / "cache")
    (alone,) = prepared.label_maps()
    assert isinstance(alone.classes, np.memmap)
    assert prepared[0].classes is alone.classes
    assert sorted(read) == ["label_map", "volume"]


@pytest.mark.parametrize(
    ("space", "again"),
    [
        (SPACE, 0),
        (WorkingSpace(ONE_MM, (16, 16, 8)), 1),
        (WorkingSpace(ONE_MM, (16, 16, 16), "structure"), 1),
    ],
    ids=["whole", "cropped", "elsewhere"],
)
def test_an_image_that_is_prepared_whole_is_not_read_again_for_prediction(
    tmp_path: Path, read: list[str], space: WorkingSpace, again: int
) -> None:
    case = write_case(tmp_path)
    prepared = PreparedCases([case], space)
    expected = prepare_volume(case.read_volume(), space).data[None]
    prepared.prepare_all()
    read.clear()
    found = prepared.whole_image(case)
    assert found.shape == expected.shape
    assert (found == expected).all()
    assert read == ["volume"] * again


def test_no_cases_are_an_empty_sequence() -> None:
    assert list(PreparedCases((), SPACE)) == []


def on_disk(cases: list[Case], folder: Path, space: WorkingSpace = SPACE) -> PreparedCases:
    return PreparedCases(cases, space, cache_dir=folder, memory_limit_bytes=0)


def test_what_does_not_fit_in_memory_is_mapped_from_the_cache(
    tmp_path: Path, counted: list[str]
) -> None:
    case = write_case(tmp_path / "data")
    first = on_disk([case], tmp_path / "cache")[0]
    second = on_disk([case], tmp_path / "cache")[0]
    assert counted == ["case"]
    expected = prepare_case(case, SPACE)
    for found in (first, second):
        assert isinstance(found.image, np.memmap)
        assert np.array_equal(found.image, expected.image)
        assert np.array_equal(found.classes, expected.classes)
        assert found.grid.matches(expected.grid)
        assert found.id == "case"
    second.image[:] = 0  # on a copy: the file and other readers keep theirs
    assert np.array_equal(on_disk([case], tmp_path / "cache")[0].image, expected.image)


def test_a_changed_file_or_setting_never_meets_an_old_entry(
    tmp_path: Path, counted: list[str]
) -> None:
    case = write_case(tmp_path / "data")
    folder = tmp_path / "cache"
    before = on_disk([case], folder)[0].image.copy()
    state = case.image.stat()
    volume = case.read_volume()
    write_volume(Volume(volume.data[::-1].copy(), volume.grid, volume.placement), case.image)
    os.utime(case.image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not np.array_equal(on_disk([case], folder)[0].image, before)
    on_disk([case], folder, replace(SPACE, normalisation="volume"))[0]
    on_disk([replace(case, structures=(Structure("box", (5, 6)),))], folder)[0]
    assert counted == ["case"] * 4


def test_keys_differ_in_every_setting(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    keys = {
        entry_key(case, SPACE),
        entry_key(case, replace(SPACE, spacing_mm=(1, 1, 2))),
        entry_key(case, replace(SPACE, spatial_shape=(16, 16, 32))),
        entry_key(case, replace(SPACE, centre="structure")),
        entry_key(replace(case, orientation="RAS"), SPACE),
        entry_key(replace(case, named_ids=frozenset({5})), SPACE),
        entry_key(replace(case, id="other"), SPACE),
    }
    assert len(keys) == 7


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "gone", "pickle", "description"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, counted: list[str], damage: str) -> None:
    case = write_case(tmp_path / "data")
    folder = tmp_path / "cache"
    expected = on_disk([case], folder)[0].image.copy()
    stored = next(folder.glob("*.image.npy"))
    content = bytearray(stored.read_bytes())
    stored.unlink()
    if damage == "cut":
        stored.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[-5] ^= 255
        stored.write_bytes(content)
    elif damage == "text":
        stored.write_text("nothing")
    elif damage == "pickle":
        np.save(stored, np.array([{}], dtype=object), allow_pickle=True)
    elif damage == "description":
        stored.write_bytes(content)
        next(folder.glob("*.json")).write_text('{"id": "case"}')
    assert np.array_equal(on_disk([case], folder)[0].image, expected)
    assert np.array_equal(on_disk([case], folder)[0].image, expected)
    assert counted == ["case", "case"]


def test_an_entry_that_another_process_has_mapped_on_windows_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, folder = write_case(tmp_path / "data"), tmp_path / "cache"
    expected = on_disk([case], folder)[0].image.copy()
    stored = next(folder.glob("*.image.npy"))
    damaged = stored.read_bytes()[:-1] + b"?"
    stored.write_bytes(damaged)
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target) == stored:
            raise PermissionError("used by another process")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert np.array_equal(on_disk([case], folder)[0].image, expected)
    assert stored.read_bytes() == damaged


def test_a_read_only_dataset_folder_is_enough(tmp_path: Path) -> None:
    case = write_case(tmp_path / "data")
    for folder in (case.image.parent, tmp_path / "data" / "labels", tmp_path / "data"):
        folder.chmod(0o555)
    before = sorted((tmp_path / "data").rglob("*"))
    assert on_disk([case], tmp_path / "cache")[0].classes.any()
    assert sorted((tmp_path / "data").rglob("*")) == before
    for folder in (tmp_path / "data", case.image.parent, tmp_path / "data" / "labels"):
        folder.chmod(0o755)


def test_a_full_disk_says_where_to_store_instead(tmp_path: Path) -> None:
    case = write_case(tmp_path / "data")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(DataError, match=r"case: .*cannot be stored .* SHAPEGUIDE_CACHE"):
            on_disk([case], tmp_path / "cache")[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_folder_is_named_by_the_user_or_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAPEGUIDE_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("SHAPEGUIDE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    for platform, variable, folder in (
        ("linux", "XDG_CACHE_HOME", ".cache"),
        ("win32", "LOCALAPPDATA", ".cache"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delenv(variable, raising=False)
        assert default_cache_dir() == tmp_path / folder / "shapeguide"
        monkeypatch.setenv(variable, str(tmp_path / platform))
        assert default_cache_dir() == tmp_path / platform / "shapeguide"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_cache_dir() == tmp_path / "Library" / "Caches" / "shapeguide"


def test_prepare_all_shows_a_bad_case_early(tmp_path: Path) -> None:
    good, bad = (write_case(tmp_path, case_id=name) for name in ("good", "bad"))
    bad.image.write_bytes(bad.image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"^bad: "):
        PreparedCases([good, bad], SPACE).prepare_all()


@pytest.mark.real_data
def test_real_cases_keep_their_volume_in_the_working_space(real_data: Path) -> None:
    task = read_dataset(real_data / "Task04_Hippocampus").with_structures(hippocampus=(1, 2))
    few = task.select(["hippocampus_001", "hippocampus_003", "hippocampus_243"])
    space = choose_working_space(few)
    for case, prepared in zip(few, PreparedCases(few, space), strict=True):
        assert prepared.classes.sum() == case.read_label_map().mask("hippocampus").sum()
        assert abs(prepared.image.mean()) < 1.5
    heads = read_dataset(real_data / "miccai2012").with_structures(left=48, right=47)
    case = heads[0]
    coarse = prepare_case(case, WorkingSpace((2, 2, 2), (96, 112, 96)))
    reference = case.read_label_map()
    for index, name in enumerate(("left", "right"), start=1):
        mask = coarse.classes == index
        volume_mm3 = reference.mask(name).sum() * reference.grid.voxel_volume_mm3
        assert abs(mask.sum() * 8 / volume_mm3 - 1) < 0.05
        apart_mm = coarse.grid.to_world(np.argwhere(mask).mean(axis=0)) - reference.grid.to_world(
            np.argwhere(reference.mask(name)).mean(axis=0)
        )
        assert np.abs(apart_mm).max() < 0.5  # rounding to 2 mm; 0.18 mm is usual

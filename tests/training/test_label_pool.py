"""Label maps without images: shapes are learned of them, beside labelled scans or alone."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import shapeguide as sg
from shapeguide import commands
from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.training.cohort import cohort_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.shape.mask_bank import mask_bank
from shapeguide.training.stages.distance_bank import fill_bank

SHAPE = (16, 16, 16)
MM2 = np.diag([2.0, 2.0, 2.0, 1.0])
VOXELS = [6 * 4 * 2, 6 * 4 * 2, 6 * 4 * 2, 8 * 4 * 2, 10 * 4 * 2]
"""Working voxels of 2 mm in the boxes of the two cases and of the three label maps."""
LIA = np.array([[-1.0, 0, 0, 30], [0, 0, 1, -20], [0, -1, 0, 40], [0, 0, 0, 1]])
"""Left, inferior, anterior on voxels of 1 mm."""


def box(ids: np.ndarray, corner: int, lengths: tuple[int, int, int], label_id: int) -> np.ndarray:
    i, j, k = (slice(corner, corner + length) for length in lengths)
    ids[i, j, k] = label_id
    return ids


@pytest.fixture
def labelled(tmp_path: Path) -> Dataset:
    """Two scans with a box of 12 x 8 x 4 mm along R, A, S, label id 1."""
    for name, corner in (("a", 4), ("b", 6)):
        ids = box(np.zeros(SHAPE, dtype=np.uint8), corner, (6, 4, 2), 1)
        ids[0, 0, 0] = 9
        image = ids.astype(np.float32) + np.indices(SHAPE).sum(0)
        write_volume(Volume(image, Grid(SHAPE, MM2)), tmp_path / "data" / "images" / f"{name}.nii")
        write_label_map(
            LabelMap(ids, Grid(SHAPE, MM2)), tmp_path / "data" / "labels" / f"{name}.nii"
        )
    return read_dataset(tmp_path / "data").with_structures(box=(1,))


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Three label maps on a larger grid in another orientation, the box near its corner, id 17."""
    for place in range(3):
        ids = np.zeros((50, 60, 70), dtype=np.uint8)
        box(ids, 3, (12 + 4 * place, 4, 8), 17)
        write_label_map(LabelMap(ids, Grid(ids.shape, LIA)), tmp_path / "maps" / f"{place}_seg.nii")
    return tmp_path / "maps"


def tiny() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        shape=quick.shape.changed(
            iterations=2, batch_size=2, channels=(2, 4), canonical_shape=16, quality_pairs=4
        ),
        restorer=quick.restorer.changed(iterations=2, batch_size=2, channels=(2, 4)),
        machine=quick.machine.changed(device="cpu", precision="fp32"),
    )


def test_shapes_of_the_pool_stand_beside_those_of_the_cases(labelled: Dataset, maps: Path) -> None:
    settings = tiny()
    cohort = cohort_of(labelled.with_label_pool(maps, box=17), settings)
    assert (len(cohort.train), len(cohort.shapes)) == (2, 5)
    bank = mask_bank(cohort.shapes, settings)
    assert bank.masks.flatten(2).sum(-1).flatten().tolist() == VOXELS
    assert bank.people == ("a", "b", "0_seg", "1_seg", "2_seg")
    filled = np.argwhere(bank.masks[2, 0].numpy())
    assert (np.ptp(filled, axis=0) + 1).tolist() == [6, 4, 2]
    distances = fill_bank(cohort.shapes, 1, memory_limit_bytes=2**30)
    assert (distances.distances_mm > 0).flatten(1).sum(1).tolist() == VOXELS


@pytest.mark.parametrize("region", ["all", "structure"])
def test_a_pool_is_looked_at_in_the_regions_of_the_training(
    labelled: Dataset, maps: Path, region: str
) -> None:
    settings = tiny().changed(data=tiny().data.changed(region=region))
    two = labelled.with_structures(box=1, voxel=9)
    cohort = cohort_of(two.with_label_pool(maps, box=17, voxel=9), settings)
    assert cohort.regions is not None
    assert len(cohort.regions.each) == (1 if region == "all" else 2)
    bank = mask_bank(cohort.shapes, settings)
    # Where a region lies off the voxels of a map, its two layers of voxels are three in part.
    assert np.allclose(bank.masks[:, 0].flatten(1).sum(1), VOXELS, rtol=0.35)
    assert bank.masks[:, 1].flatten(1).sum(1).tolist() == [1, 1, 0, 0, 0]


def test_a_pool_that_does_not_fit_in_memory_is_read_when_needed(
    labelled: Dataset, maps: Path
) -> None:
    cohort = cohort_of(labelled.with_label_pool(maps, box=17), tiny())
    small = cohort.in_space(cohort.space, memory_limit_bytes=5000)
    found = [np.count_nonzero(case.classes) for case in small.pool_cases.label_maps()]
    assert found == VOXELS[2:]
    assert not small.pool_cases.fits_in_memory


def test_a_pool_is_a_folder_a_pattern_or_a_dataset(
    labelled: Dataset, maps: Path, tmp_path: Path
) -> None:
    for source, ids in (
        (maps, ["0_seg", "1_seg", "2_seg"]),
        (tmp_path / "ma*" / "*_seg", ["ps_0", "ps_1", "ps_2"]),
        (maps / "{person}_seg.nii", ["0", "1", "2"]),
        (read_dataset(maps, labels="*_seg"), ["0", "1", "2"]),
        (tmp_path / "data", ["a_2", "b_2"]),
    ):
        pool = labelled.with_label_pool(source).pool
        assert [case.id for case in pool] == ids
        assert not any(case.has_image for case in pool)
    twice = labelled.with_label_pool(maps).with_label_pool(maps).pool
    assert [(case.id, case.person) for case in twice[2:4]] == [
        ("2_seg", "2_seg"),
        ("0_seg_2", "0_seg"),
    ]
    train, test = labelled.with_label_pool(maps).fold(0, count=2)
    assert len(train.pool) == len(test.pool) == 3


def test_pools_that_cannot_be_used_say_why(labelled: Dataset, maps: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder of label maps"):
        labelled.with_label_pool(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"nothing fits --labels '\*_lab'"):
        labelled.with_label_pool(maps / "*_lab")
    with pytest.raises(ConfigError, match="a label pool are those of the dataset, box, found ball"):
        labelled.with_label_pool(maps, ball=17)
    with pytest.raises(DataError, match=r"(?s)0_seg: .*no voxel belongs .*box \(1,\).*17"):
        mask_bank(cohort_of(labelled.with_label_pool(maps), tiny()).shapes, tiny())


def test_label_maps_of_the_cases_count_once_and_those_of_test_cases_never(
    labelled: Dataset, maps: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(tmp_path / "data" / "labels" / "a.nii", maps / "copied.nii")
    with caplog.at_level(logging.INFO):
        cohort = cohort_of(labelled.with_label_pool(maps, box=(1, 17)), tiny())
    assert [case.id for case in cohort.pool_cases.cases] == ["0_seg", "1_seg", "2_seg"]
    assert "1 label maps of the pool are those of training cases" in caplog.text
    train = labelled.select(["b"]).with_label_pool(maps, box=(1, 17))
    with pytest.raises(ConfigError, match="1 label maps of the pool are those of test cases: a"):
        sg.train(train, test=labelled.select(["a"]), out=tmp_path / "run", settings=tiny())
    assert not (tmp_path / "run").exists()


def test_shapes_are_learned_of_label_maps_alone(maps: Path, tmp_path: Path) -> None:
    dataset = read_dataset(maps, labels="*").with_structures(box=17)
    assert len(dataset) == 3
    assert dataset[0].read_grid().spatial_shape == (50, 60, 70)
    with pytest.raises(DataError, match=r"^0_seg: .*no image beside its label map"):
        dataset[0].read_volume()
    with pytest.raises(ConfigError, match="3 cases have no image, the first is 0_seg"):
        sg.train(dataset, out=tmp_path / "both", settings=tiny(), progress=False)
    with pytest.raises(ConfigError, match="3 cases have no image"):
        sg.train_segmenter(dataset, run_dir=tmp_path / "one", settings=tiny(), progress=False)
    shape = sg.train_shape(dataset, run_dir=tmp_path / "s", settings=tiny(), progress=False)
    restorer = sg.train_restorer(dataset, run_dir=tmp_path / "r", settings=tiny(), progress=False)
    assert [one.name for one in shape.structures + restorer.structures] == ["box", "box"]


def test_a_run_with_a_pool_is_another_than_one_without(
    labelled: Dataset, maps: Path, tmp_path: Path
) -> None:
    sg.train_restorer(labelled, run_dir=tmp_path / "r", settings=tiny(), progress=False)
    noted = json.loads((tmp_path / "r" / "run.json").read_text())
    assert "pool" not in noted["dataset"]
    with pytest.raises(ConfigError, match="pool"):
        sg.train_restorer(
            labelled.with_label_pool(maps, box=17),
            run_dir=tmp_path / "r",
            settings=tiny(),
            progress=False,
        )


def test_label_maps_among_labelled_scans_are_their_pool(tmp_path: Path, labelled: Dataset) -> None:
    table = tmp_path / "data" / "cases.csv"
    rows = ["image,label,case,split", "images/a.nii,labels/a.nii,a,train", ",labels/b.nii,b,train"]
    table.write_text("\n".join([*rows, ",labels/b.nii,c,test"]))
    dataset = read_dataset(table).with_structures(box=1)
    assert ([case.id for case in dataset], [case.id for case in dataset.pool]) == (["a"], ["b"])
    assert dataset.pool[0].structures == dataset.structures
    sg.describe(table, tmp_path / "data" / "made.json")
    assert len(read_dataset(tmp_path / "data" / "made.json").pool) == 1


def test_the_command_takes_a_pool(maps: Path) -> None:
    words = ["d", "--out", "o", "--label-pool", str(maps), "--pool-structure", "box=17"]
    parsed = commands.parse("train", words)
    assert vars(parsed)["label_pool"] == maps
    assert vars(parsed)["pool_structure"] == (("box=17",),)


@pytest.mark.real_data
def test_whole_heads_without_images_are_a_pool_of_hippocampi(real_data: Path) -> None:
    heads = read_dataset(real_data / "synthseg_label_maps", labels="training_seg_0*")
    heads = heads.with_structures(left=17, right=53)
    crops = read_dataset(real_data / "Task04_Hippocampus").with_structures(hippocampus=(1, 2))
    pooled = crops.select(["hippocampus_001"]).with_label_pool(heads, hippocampus=53)
    cohort = cohort_of(pooled, tiny())
    *_, last = cohort.shapes.label_maps()
    assert last.classes.shape == cohort.space.spatial_shape
    assert 2000 < np.count_nonzero(last.classes) < 7000

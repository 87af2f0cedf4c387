import json
from functools import cache
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from shapeguide.data import synthetic
from shapeguide.data.nifti import read_label_map, read_volume
from shapeguide.data.synthetic import draw_case, write_cohort
from shapeguide.data.synthetic_scene import draw_scene, render_tissues
from shapeguide.data.synthetic_shapes import STRUCTURES, Posed, draw_pose, draw_tube, mirrored
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Volume

CUBE = (48, 48, 48)
ONE_MM = (1.0, 1.0, 1.0)


@cache
def case(index: int, shape: str = "horn", seed: int = 0) -> tuple[Volume, LabelMap]:
    return draw_case(seed, index, spatial_shape=CUBE, spacing_mm=ONE_MM, shape=shape)


def lattice(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """31 positions along each axis, (31, 31, 31, 3)."""
    axes = [np.linspace(low, high, 31) for low, high in zip(lower, upper, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def canonical_mask(posed: Posed) -> NDArray[np.bool_]:
    """A tube about its centroid, stretched to unit covariance, shape (31, 31, 31)."""
    positions = lattice(*posed.bounds_mm())
    inside = positions[posed.distance_outside_mm(positions) < 0]
    values, axes = np.linalg.eigh(np.cov(inside.T))
    root = (axes * np.sqrt(values)) @ axes.T
    unit = lattice(np.full(3, -2.5), np.full(3, 2.5))
    mask: NDArray[np.bool_] = posed.distance_outside_mm(inside.mean(0) + unit @ root) < 0
    return mask


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.mark.parametrize("shape", ["horn", "comma"])
def test_a_case_is_the_same_whenever_it_is_drawn(shape: str) -> None:
    first, again = case(3, shape), case.__wrapped__(3, shape)
    np.testing.assert_array_equal(first[0].data, again[0].data)
    np.testing.assert_array_equal(first[1].data, again[1].data)


def test_index_and_seed_change_the_case() -> None:
    labels = [case(0)[1].data, case(1)[1].data, case(0, seed=1)[1].data]
    for first, second in combinations(labels, 2):
        assert (first != second).any()


def test_the_label_map_names_the_structure() -> None:
    _, label_map = case(0, "comma")
    assert label_map.mask("comma").any()
    assert set(np.unique(label_map.data)) == {0, 1}


@pytest.mark.parametrize("shape", ["horn", "comma"])
def test_cases_differ_in_shape_and_not_only_in_pose(shape: str) -> None:
    tubes = [draw_tube(STRUCTURES[shape], np.random.default_rng(seed)) for seed in range(4)]
    first, second = (
        [
            canonical_mask(draw_pose(tube, place, np.random.default_rng(seed), rotation_deg=4))
            for seed, tube in enumerate(tubes, start=start)
        ]
        for start, place in ((10, (0.0, 0.0, 0.0)), (20, (3.0, 2.0, 1.0)))
    )
    same = [dice(one, other) for one, other in zip(first, second, strict=True)]
    different = [dice(one, other) for one, other in combinations(first, 2)]
    assert max(different) < min(same)
    assert np.mean(different) < np.mean(same) - 0.1


@pytest.mark.parametrize("shape", ["horn", "comma"])
def test_every_structure_fits_on_48_mm(shape: str) -> None:
    for index in range(25):
        lower, upper = draw_scene(0, index, shape).structure.bounds_mm()
        assert (upper - lower).max() <= 43.0 + 1e-9


@pytest.mark.parametrize("shape", ["horn", "comma"])
def test_the_structure_keeps_a_margin_to_the_edge(shape: str) -> None:
    for index in range(4):
        mask = case(index, shape)[1].mask(shape)
        inner = mask[2:-2, 2:-2, 2:-2]
        assert 900 < mask.sum() == inner.sum()


def test_look_alikes_have_the_grey_of_the_structure() -> None:
    ratios = []
    for index in range(4):
        volume, label_map = case(index)
        tissues = render_tissues(draw_scene(0, index, "horn"), volume.grid)
        structure = volume.data[label_map.mask("horn") & (tissues.grey > 0.99)]
        look_alikes = volume.data[tissues.look_alikes & (tissues.grey > 0.99)]
        white = volume.data[(tissues.grey < 0.01) & (tissues.fluid < 0.01)]
        assert look_alikes.size > 0.5 * structure.size
        assert structure.mean() < 0.8 * white.mean()
        ratios.append(look_alikes.mean() / structure.mean())
    assert np.abs(np.array(ratios) - 1).max() < 0.15  # the bias field
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)


def test_a_look_alike_touches_the_structure() -> None:
    touching = 0
    for index in range(4):
        volume, label_map = case(index)
        tissues = render_tissues(draw_scene(0, index, "horn"), volume.grid)
        mask = label_map.mask("horn")
        beside = np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 2)
        touching += bool((beside & tissues.look_alikes).any())
    assert touching >= 3


@pytest.mark.parametrize(
    ("spatial_shape", "spacing_mm"),
    [
        ((76, 96, 76), (0.5, 0.5, 0.5)),
        ((24, 24, 24), (2.0, 2.0, 2.0)),
        ((48, 34, 26), (1.0, 1.5, 2.0)),
    ],
)
def test_spacing_does_not_change_the_physical_volume(
    spatial_shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    reference = case(2)[1].mask("horn").sum()
    _, label_map = draw_case(0, 2, spatial_shape=spatial_shape, spacing_mm=spacing_mm, shape="horn")
    found = label_map.mask("horn").sum() * label_map.grid.voxel_volume_mm3
    assert found == pytest.approx(reference, rel=0.05)


def test_another_window_shows_the_same_head() -> None:
    _, small = case(1)
    _, large = draw_case(0, 1, spatial_shape=(60, 64, 60), spacing_mm=ONE_MM, shape="horn")
    centroids = [
        label_map.grid.to_world(np.argwhere(label_map.mask("horn")).mean(0))
        for label_map in (small, large)
    ]
    np.testing.assert_allclose(centroids[0], centroids[1], atol=0.2)


def test_a_large_grid_shows_zero_around_the_head() -> None:
    volume, label_map = draw_case(
        0, 0, spatial_shape=(40, 48, 40), spacing_mm=(4.0, 4.0, 4.0), shape="horn"
    )
    assert volume.data[0].max() == 0
    assert volume.data[20, 24, 20] > 0
    assert volume.data[label_map.mask("horn")].min() > 0


def test_partial_volume_is_half_where_the_surface_cuts_a_voxel_in_half() -> None:
    scene = draw_scene(0, 0, "horn")
    lower, upper = scene.structure.bounds_mm()
    affine = np.eye(4)
    affine[:3, 3] = lower - 4
    grid = Grid(tuple(np.ceil(upper - lower + 8).astype(int)), affine)
    tissues = render_tissues(scene, grid)
    share = tissues.grey[tissues.structure]
    assert share.min() > 0.5
    assert ((share > 0.5) & (share < 0.95)).any()


def test_a_mirrored_tube_is_the_tube_seen_in_a_mirror() -> None:
    tube = draw_tube(STRUCTURES["horn"], np.random.default_rng(0))
    positions = np.random.default_rng(1).normal(scale=8, size=(50, 3))
    np.testing.assert_allclose(
        mirrored(tube).distance_outside_mm(positions * [-1, 1, 1]),
        tube.distance_outside_mm(positions),
        atol=1e-9,
    )


def test_the_cohort_is_a_readable_decathlon_folder(tmp_path: Path) -> None:
    description = write_cohort(tmp_path / "cohort", count=2, seed=5)
    content = json.loads(description.read_text())
    assert content["labels"] == {"0": "background", "1": "horn"}
    assert content["numTraining"] == 2
    for index, entry in enumerate(content["training"]):
        volume = read_volume(description.parent / entry["image"])
        label_map = read_label_map(description.parent / entry["label"])
        expected_volume, expected_map = case(index, seed=5)
        np.testing.assert_allclose(volume.data, expected_volume.data)
        np.testing.assert_array_equal(label_map.data, expected_map.data)
        assert volume.grid.matches(expected_volume.grid)
        assert label_map.grid.matches(volume.grid)


def test_other_software_reads_the_cohort(tmp_path: Path) -> None:
    write_cohort(tmp_path, count=1, spatial_shape=(26, 36, 26), spacing_mm=(2.0, 1.5, 2.0))
    image = nib.load(tmp_path / "imagesTr" / "horn_000.nii.gz")
    assert isinstance(image, nib.Nifti1Image)
    assert image.shape == (26, 36, 26)
    np.testing.assert_allclose(np.abs(np.diag(image.affine)[:3]), (2.0, 1.5, 2.0))


def test_a_folder_with_content_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_cohort(tmp_path, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_same_cohort_is_not_written_again(tmp_path: Path) -> None:
    description = write_cohort(tmp_path, count=2)
    image = tmp_path / "imagesTr" / "horn_000.nii.gz"
    before = image.stat().st_mtime_ns
    assert write_cohort(tmp_path, count=2) == description
    assert image.stat().st_mtime_ns == before
    for other in ({"count": 3}, {"count": 2, "seed": 1}, {"count": 2, "spacing_mm": (2, 2, 2)}):
        with pytest.raises(DataError, match="holds another cohort"):
            write_cohort(tmp_path, **other)


def test_overwrite_replaces_the_cohort_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_cohort(tmp_path, count=2, overwrite=True)
    write_cohort(tmp_path, count=1, shape="comma", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "imagesTr").iterdir()] == ["comma_000.nii.gz"]
    assert [path.name for path in (tmp_path / "labelsTr").iterdir()] == ["comma_000.nii.gz"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cohort").write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        write_cohort(tmp_path / "cohort", count=1)


def test_a_cohort_that_was_cut_short_has_no_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(synthetic, "write_label_map", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_cohort(tmp_path, count=1)
    assert not (tmp_path / "dataset.json").exists()


def test_a_grid_that_cannot_hold_the_structure_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs \(\d+, \d+, \d+\) voxels"):
        write_cohort(tmp_path / "cohort", count=1, spatial_shape=(16, 16, 16))
    assert not (tmp_path / "cohort").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count=0"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "shape": "cube"}, "known shapes: horn, comma"),
        ({"count": 1, "spatial_shape": (48, 48)}, "spatial_shape"),
        ({"count": 1, "spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
    ],
)
def test_impossible_cohorts_are_refused(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_cohort(tmp_path / "cohort", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "cohort").exists()

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from shapeguide.data.case import Case
from shapeguide.data.extents import Extent, centres_of, extent_of
from shapeguide.data.regions import Region, Regions, choose_regions, far_from_others
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure
from shapeguide.vocabulary import RegionChoice

NEAR, FAR = Structure("near", (3,)), Structure("far", (7,))
SHAPE = (60, 50, 40)


def boxes(shift: int = 0, *, far_at: int = 40) -> NDArray[np.uint8]:
    """Two boxes of 8 x 6 x 4 voxels, their middles 30 voxels apart along the first axis."""
    data = np.zeros(SHAPE, np.uint8)
    data[10 + shift : 18 + shift, 20:26, 12:16] = 3
    data[far_at + shift : far_at + 8 + shift, 20:26, 12:16] = 7
    return data


def case_of(
    folder: Path,
    name: str,
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64] | None = None,
    structures: tuple[Structure, ...] = (NEAR, FAR),
) -> Case:
    paths = [folder / f"{name}_{what}.nii.gz" for what in ("image", "labels")]
    for path, data in zip(paths, (labels.astype(np.float32) * 10, labels), strict=True):
        nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return Case(name, paths[0], paths[1], structures=structures)


@pytest.fixture
def extents(tmp_path: Path) -> list[Extent]:
    return [extent_of(case_of(tmp_path, f"c{n}", boxes(n))) for n in range(3)]


def test_an_extent_knows_centres_and_outermost_points(extents: list[Extent]) -> None:
    extent = extents[1]
    assert extent.centres_mm["near"] == pytest.approx([14.5, 22.5, 13.5])
    points = extent.outlines_mm["far"]
    assert points.min(axis=0).tolist() == [41, 20, 12]
    assert points.max(axis=0).tolist() == [48, 25, 15]


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_an_extent_is_the_same_however_the_voxels_are_stored(
    tmp_path: Path, axes: tuple[int, int, int]
) -> None:
    plain = extent_of(case_of(tmp_path, "plain", boxes()))
    data = np.flip(boxes(), axis=1).transpose(axes)
    affine = np.eye(4)
    affine[1, 1], affine[1, 3] = -1, SHAPE[1] - 1
    affine[:, :3] = affine[:, list(axes)]
    stored = extent_of(case_of(tmp_path, "stored", np.ascontiguousarray(data), affine))
    for name in ("near", "far"):
        assert stored.centres_mm[name] == pytest.approx(plain.centres_mm[name])
        assert stored.outlines_mm[name].min(axis=0) == pytest.approx(
            plain.outlines_mm[name].min(axis=0)
        )


@pytest.mark.parametrize(("choice", "regions"), [("all", 1), ("structure", 2), ("auto", 2)])
def test_regions_far_apart_are_cheaper_one_by_one(
    extents: list[Extent], choice: RegionChoice, regions: int
) -> None:
    found = choose_regions(
        extents, choice=choice, margin_mm=2.0, spacing_mm=(1.0, 1.0, 1.0), divisor=4
    )
    assert len(found.each) == regions
    assert all(length % 4 == 0 for length in found.spatial_shape)
    one = choose_regions(
        extents, choice="all", margin_mm=2.0, spacing_mm=(1.0, 1.0, 1.0), divisor=4
    )
    assert [found.place_of(name) for name in ("near", "far")] == (
        [0, 0] if regions == 1 else [0, 1]
    )
    assert one.each[0].structures == ("near", "far")


def test_auto_takes_one_region_where_structures_are_near(tmp_path: Path) -> None:
    near = [extent_of(case_of(tmp_path, f"c{n}", boxes(far_at=18))) for n in range(2)]
    wanted: list[RegionChoice] = ["auto", "all", "structure"]
    auto, every, each = (
        choose_regions(near, choice=choice, margin_mm=4.0, spacing_mm=(1.0, 1.0, 1.0), divisor=2)
        for choice in wanted
    )
    assert every.voxels < each.voxels
    assert auto == every


@pytest.mark.parametrize("choice", ["all", "structure"])
def test_a_region_holds_its_structures_turned_and_off_by_its_margin(
    tmp_path: Path, choice: RegionChoice
) -> None:
    cases = [extent_of(case_of(tmp_path, f"c{n}", boxes(n))) for n in range(3)]
    margin_mm = 3.0
    regions = choose_regions(
        cases, choice=choice, margin_mm=margin_mm, spacing_mm=(1.0, 1.0, 1.0), divisor=2
    )
    random = np.random.default_rng(1)
    whole = 0
    for trial in range(60):
        extent = cases[trial % 3]
        turn = Rotation.from_euler("xyz", random.uniform(-20, 20, 3), degrees=True)
        off = random.uniform(-margin_mm, margin_mm, 3)
        for region in regions.each:
            centres = {name: turn.apply(extent.centres_mm[name]) for name in region.structures}
            middle = region.middle_mm(centres, extent.grid)
            assert middle is not None
            for name in region.structures:
                points = turn.apply(extent.outlines_mm[name])
                reach = np.abs(points - middle - off).max(axis=0)
                whole += bool((reach <= np.array(regions.spatial_shape) / 2).all())
    assert whole >= 0.98 * 60 * 2
    assert (np.array(regions.spatial_shape) <= [60, 40, 40]).all()  # no larger than it must be


def test_a_region_without_some_of_its_structures_lies_where_it_would_with_them(
    extents: list[Extent],
) -> None:
    regions = choose_regions(
        extents, choice="all", margin_mm=1.0, spacing_mm=(1.0, 1.0, 1.0), divisor=1
    )
    extent, region = extents[0], regions.each[0]
    both = region.middle_mm(extent.centres_mm, extent.grid)
    one = region.middle_mm({"far": extent.centres_mm["far"]}, extent.grid)
    assert both == pytest.approx([28.5, 22.5, 13.5])
    assert one == pytest.approx(both)
    assert region.middle_mm({}, extent.grid) is None


def test_offsets_go_along_the_axes_of_a_turned_scan() -> None:
    turn = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn
    region = Region(("near",), ((10.0, 0.0, 0.0),))
    middle = region.middle_mm({"near": np.zeros(3)}, Grid((4, 4, 4), affine))
    assert middle == pytest.approx(turn @ [10, 0, 0])


def test_a_case_whose_structure_lies_elsewhere_is_named(tmp_path: Path) -> None:
    cases = [extent_of(case_of(tmp_path, f"c{n}", boxes(n))) for n in range(4)]
    assert far_from_others(cases) == []
    wrong = boxes()
    wrong[wrong == 7] = 0
    wrong[2:10, 2:8, 30:34] = 7
    odd = extent_of(case_of(tmp_path, "odd", wrong))
    told = far_from_others([*cases, odd])
    assert [sentence.split(":")[0] for sentence in told] == ["odd", "odd"]
    assert "far lies 46 mm" in told[1]


def test_regions_hold_each_structure_once() -> None:
    twice = Region(("near",), ((0.0, 0.0, 0.0),))
    with pytest.raises(ConfigError, match="each structure once"):
        Regions((twice, twice), SHAPE, 1.0)
    with pytest.raises(ConfigError, match="margin"):
        Regions((twice,), SHAPE, -1.0)
    with pytest.raises(ConfigError, match="one offset for each"):
        Regions((Region(("near",), ()),), SHAPE, 1.0)
    with pytest.raises(ConfigError, match="no region holds far"):
        Regions((twice,), SHAPE, 1.0).place_of("far")


def test_centres_leave_out_what_is_not_there(tmp_path: Path) -> None:
    labels = boxes()
    labels[labels == 7] = 0
    case = case_of(tmp_path, "c", labels)
    assert list(centres_of(case.read_label_map())) == ["near"]

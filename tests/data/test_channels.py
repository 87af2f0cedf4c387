"""Images of several channels: read together, on the grid of the first."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.channels import chosen_channels
from shapeguide.data.dataset import read_dataset
from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.data.prepare import prepare_volume
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Volume

SHAPE = (6, 7, 8)
GRID = Grid(SHAPE, np.eye(4))
new_image: Any = nib.Nifti1Image  # nibabel's classes carry no types


def ramp(grid: Grid) -> Volume:
    """Intensities that say where they are: the first world coordinate in mm."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.spatial_shape), indexing="ij"), axis=-1)
    return Volume(grid.to_world(indices.astype(np.float64))[..., 0].astype(np.float32), grid)


def affine(spacing_mm: float, shift_mm: float) -> NDArray[np.float64]:
    made = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    made[0, 3] = shift_mm
    return made


def two_files(folder: Path, other: Grid) -> Case:
    write_volume(ramp(GRID), folder / "T1.nii")
    write_volume(ramp(other), folder / "T2.nii")
    return Case("ann", folder / "T1.nii", further_channels=(folder / "T2.nii",))


def put_decathlon(folder: Path, channels: NDArray[np.float32], modality: Any) -> Path:
    """A Decathlon folder of one case whose image holds its channels along the fourth axis."""
    (folder / "imagesTr").mkdir(parents=True)
    new_image(channels, np.eye(4)).to_filename(folder / "imagesTr" / "a.nii.gz")
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[2, 2, 2] = 1
    write_label_map(LabelMap(ids, GRID), folder / "labelsTr" / "a.nii.gz")
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    content = {"labels": {"1": "part"}, "training": [entry], "modality": modality}
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


def test_a_channel_on_another_grid_is_brought_to_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = two_files(tmp_path, Grid((5, 5, 5), affine(2.0, -1.0)))
    with caplog.at_level(logging.WARNING):
        first, second = case.read_channels()
    assert second.grid.matches(first.grid)
    np.testing.assert_allclose(second.data[:, :6], first.data[:, :6], atol=1e-4)
    assert "ann: channels lie on different grids" in caplog.text


def test_channels_of_two_persons_are_refused_by_their_grids(tmp_path: Path) -> None:
    case = two_files(tmp_path, Grid(SHAPE, affine(1.0, 5.0)))
    message = r"^ann: T1\.nii, T2\.nii: two channels do not overlap: 16%"
    with pytest.raises(GeometryError, match=message):
        case.read_channels()


def test_a_slab_of_another_channel_is_enough_where_most_of_it_lies_inside(tmp_path: Path) -> None:
    case = two_files(tmp_path, Grid((2, 7, 8), affine(1.0, 1.0)))
    assert len(case.read_channels()) == 2


def test_the_decathlon_keeps_channels_in_one_file(tmp_path: Path) -> None:
    both = np.stack([ramp(GRID).data, 10 + ramp(GRID).data], axis=-1)
    dataset = read_dataset(put_decathlon(tmp_path, both, {"0": "T2", "1": "ADC"}))
    assert (dataset.channels, dataset[0].channel_count) == (("T2", "ADC"), 2)
    first, second = dataset[0].read_channels()
    assert np.array_equal(first.data, both[..., 0])
    assert np.array_equal(second.data, both[..., 1])
    assert np.array_equal(dataset[0].read_volume().data, first.data)
    assert dataset[0].read_grid().matches(GRID)
    assert dataset[0].read_label_map().data.sum() == 1


@pytest.mark.parametrize(
    ("count", "found"), [(1, r"3 axes"), (3, r"4 axes of lengths \(6, 7, 8, 3\)")]
)
def test_a_file_with_other_than_the_named_channels_is_refused(
    tmp_path: Path, count: int, found: str
) -> None:
    stacked = np.stack([ramp(GRID).data] * count, axis=-1)
    dataset = read_dataset(put_decathlon(tmp_path, stacked, {"0": "T2", "1": "ADC"}))
    with pytest.raises(
        DataError, match=f"^a: .*2 channels along a fourth axis expected, .*{found}"
    ):
        dataset[0].read_channels()


def test_cases_of_one_dataset_have_the_same_channels(tmp_path: Path) -> None:
    path = put_decathlon(tmp_path, ramp(GRID).data, {"0": "T1", "1": "T2"})
    stated = json.loads(path.read_text())
    image = "./imagesTr/a.nii.gz"
    for images, message in (
        ([image] * 3, r"3 images and \"modality\" names the channels T1, T2"),
        ([image, "./imagesTr/b.nii.gz"], r"b\.nii\.gz: there is no such file"),
    ):
        stated["training"][0]["image"] = images
        path.write_text(json.dumps(stated))
        with pytest.raises(DataError, match=message):
            read_dataset(path)
    del stated["modality"]
    stated["training"] = [{"image": image, "id": "one"}, {"image": [image] * 2, "id": "two"}]
    path.write_text(json.dumps(stated))
    with pytest.raises(DataError, match="one has 1, two has 2; complete them"):
        read_dataset(path)


def test_prepared_images_have_all_channels_in_memory_and_from_the_cache(tmp_path: Path) -> None:
    both = np.stack([ramp(GRID).data, np.square(ramp(GRID).data)], axis=-1)
    dataset = read_dataset(put_decathlon(tmp_path, both, {"0": "T2", "1": "ADC"}))
    case = dataset.with_structures(part=1)[0]
    space = WorkingSpace((1.0, 1.0, 1.0), (8, 8, 8))
    prepared = PreparedCases([case], space)
    image = prepared[0].image
    assert image.shape == (2, 8, 8, 8)
    for found, channel in zip(image, case.read_channels(), strict=True):
        assert np.array_equal(found, prepare_volume(channel, space).data)
    assert np.array_equal(prepared.whole_image(case), image)
    # Of one channel, both would fit.
    for _ in range(2):
        stored = PreparedCases([case], space, tmp_path / "cache", memory_limit_bytes=5 * 8**3)
        assert np.array_equal(stored[0].image, image)
        assert isinstance(stored[0].image, np.memmap)


def test_channels_are_taken_by_name_or_else_by_order() -> None:
    one, two, three = (Volume(np.full(SHAPE, value, np.float32), GRID) for value in (1, 2, 3))
    given, names = (one, two, three), ("T1", "T2", "FLAIR")
    assert chosen_channels(given, names, ("FLAIR", "T1")) == (three, one)
    assert chosen_channels(given, names, ("a", "b", "c")) == given
    assert chosen_channels(given[:2], ("MR", "MR"), ("MR", "MR")) == given[:2]
    assert chosen_channels((two,), ("T2",), ("image",)) == (two,)
    with pytest.raises(DataError, match="trained on the channels T1, PD, found T1, T2, FLAIR"):
        chosen_channels(given, names, ("T1", "PD"))
    with pytest.raises(DataError, match="trained on the channels T1, T2, found 1 channels"):
        chosen_channels((one,), (), ("T1", "T2"))

"""Scans from and to files: every format, every trap, every kind of damage."""

from __future__ import annotations

import gzip
import logging
import resource
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHImage
from numpy.typing import NDArray

from shapeguide.data import nifti
from shapeguide.data.nifti import (
    read_grid,
    read_label_map,
    read_volume,
    write_label_map,
    write_volume,
)
from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure, Volume

VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
LAS = np.array([[-2.0, 0, 0, 10], [0, 1, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1]])
OBLIQUE = np.array([[0.8, -0.6, 0, 1], [0.6, 0.8, 0, 2], [0, 0, 1.5, 3], [0, 0, 0, 1]])
new_nifti1: Any = nib.Nifti1Image  # nibabel's classes carry no types
new_nifti1_pair: Any = nib.Nifti1Pair
new_nifti2: Any = nib.Nifti2Image
new_analyze: Any = nib.AnalyzeImage
new_mgh: Any = MGHImage


def saved(path: Path, data: NDArray[Any] = VOXELS, affine: NDArray[Any] = LAS) -> Path:
    new_nifti1(data, affine).to_filename(path)
    return path


def with_header(path: Path, **fields: Any) -> Path:
    """A NIfTI file whose header fields are overwritten byte by byte, unchecked."""
    image = new_nifti1(VOXELS, LAS)
    raw = bytearray(image.to_bytes())
    header = image.header.copy()
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)) if path.name.endswith(".gz") else bytes(raw))
    return path


def analyze_pair(folder: Path, *, packed: bool, data: NDArray[Any] = VOXELS) -> Path:
    image = new_analyze(data, None)
    image.header.set_zooms((2.0, 1.0, 3.0, 1.0)[: data.ndim])
    image.to_filename(folder / "scan.img")
    if packed:
        voxels = folder / "scan.img"
        (folder / "scan.img.gz").write_bytes(gzip.compress(voxels.read_bytes()))
        voxels.unlink()
    return folder / "scan.hdr"


@pytest.mark.parametrize("affine", [LAS, OBLIQUE], ids=["LAS", "oblique"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("make", [new_nifti1, new_nifti2], ids=["nifti1", "nifti2"])
def test_nifti_is_read_with_its_grid(
    tmp_path: Path, make: Any, name: str, affine: NDArray[np.float64]
) -> None:
    make(VOXELS, affine).to_filename(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.data, VOXELS)
    assert volume.data.dtype == np.float32
    assert np.allclose(volume.grid.affine, affine, atol=1e-6)
    assert read_grid(tmp_path / name).matches(volume.grid)


@pytest.mark.parametrize("opened_by", ["scan.hdr", "scan.img"])
def test_a_nifti_pair_is_read_by_either_file(tmp_path: Path, opened_by: str) -> None:
    new_nifti1_pair(VOXELS, LAS).to_filename(tmp_path / "scan.img")
    volume = read_volume(tmp_path / opened_by)
    assert np.array_equal(volume.data, VOXELS)
    assert np.allclose(volume.grid.affine, LAS)


@pytest.mark.parametrize("name", ["scan.mgz", "scan.mgh"])
def test_mgh_is_read_with_its_grid(tmp_path: Path, name: str) -> None:
    new_mgh(VOXELS.astype(np.float32), OBLIQUE).to_filename(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.data, VOXELS)
    assert np.allclose(volume.grid.affine, OBLIQUE, atol=1e-5)


def test_a_big_endian_file_is_read(tmp_path: Path) -> None:
    new_header: Any = nib.Nifti1Header
    image = new_nifti1(VOXELS.astype(">i2"), LAS, new_header(endianness=">"))
    image.to_filename(tmp_path / "scan.nii")
    assert np.array_equal(read_volume(tmp_path / "scan.nii").data, VOXELS)
    assert read_label_map(tmp_path / "scan.nii").data.max() == 23


def test_scaled_voxels_are_unscaled(tmp_path: Path) -> None:
    path = with_header(tmp_path / "scan.nii", scl_slope=0.5, scl_inter=10)
    assert np.allclose(read_volume(path).data, VOXELS * 0.5 + 10)


@pytest.mark.parametrize("packed", [False, True], ids=["img", "img.gz"])
@pytest.mark.parametrize("orientation", ["RAS", "las"])
def test_analyze_is_read_with_a_stated_orientation(
    tmp_path: Path, packed: bool, orientation: str
) -> None:
    volume = read_volume(analyze_pair(tmp_path, packed=packed), orientation=orientation)
    assert np.array_equal(volume.data, VOXELS)
    assert volume.grid.spacing_mm == (2.0, 1.0, 3.0)
    assert volume.grid.affine[0, 0] == (2 if orientation == "RAS" else -2)
    assert np.allclose(volume.grid.centre_mm, 0)


def test_a_trailing_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    path = analyze_pair(tmp_path, packed=True, data=VOXELS[..., None])
    assert read_volume(path, orientation="RAS").data.shape == (2, 3, 4)
    nifti = saved(tmp_path / "four.nii.gz", VOXELS[..., None, None])
    assert read_volume(nifti).data.shape == (2, 3, 4)


def test_analyze_without_an_orientation_says_how_to_state_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='orientation such as "RAS"'):
        read_volume(analyze_pair(tmp_path, packed=False))


def test_nifti_without_codes_needs_an_orientation_too(tmp_path: Path) -> None:
    path = with_header(tmp_path / "scan.nii", sform_code=0, qform_code=0)
    with pytest.raises(DataError, match="does not say where left and right are"):
        read_grid(path)
    assert read_grid(path, orientation="LAS").affine[0, 0] == -2


@pytest.mark.parametrize("orientation", ["RA", "RAX", "RLS", "XYZ"])
def test_an_impossible_orientation_is_refused(tmp_path: Path, orientation: str) -> None:
    with pytest.raises(ConfigError, match="three letters"):
        read_grid(saved(tmp_path / "scan.nii"), orientation=orientation)


def two_forms(path: Path, *, sform_code: int, qform_code: int, apart_mm: float) -> Path:
    image = new_nifti1(VOXELS, None)
    moved = LAS.copy()
    moved[0, 3] += apart_mm
    image.set_sform(LAS, sform_code)
    image.set_qform(moved, qform_code)
    image.to_filename(path)
    return path


def test_the_sform_counts_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = two_forms(tmp_path / "scan.nii", sform_code=2, qform_code=1, apart_mm=4)
    with caplog.at_level(logging.WARNING):
        assert read_grid(path).affine[0, 3] == 10
    assert "4.0 mm apart" in caplog.text


def test_forms_that_nearly_agree_give_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_grid(two_forms(tmp_path / "scan.nii", sform_code=2, qform_code=1, apart_mm=0.5))
    assert not caplog.text


def test_the_qform_counts_when_the_sform_has_code_zero(tmp_path: Path) -> None:
    path = two_forms(tmp_path / "scan.nii", sform_code=0, qform_code=1, apart_mm=4)
    assert read_grid(path).affine[0, 3] == 14


def test_a_singular_sform_gives_way_to_the_qform(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = with_header(tmp_path / "scan.nii", srow_x=0, qform_code=1)
    with caplog.at_level(logging.WARNING):
        volume = read_volume(path)
    assert volume.grid.affine[0, 0] == -2
    assert "using the other affine" in caplog.text
    write_volume(volume, tmp_path / "again.nii")
    assert read_grid(tmp_path / "again.nii").matches(volume.grid)


def test_a_singular_affine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="no usable affine"):
        read_grid(with_header(tmp_path / "scan.nii", srow_x=(0, 1, 0, 0), qform_code=0))


@pytest.mark.parametrize("length", [0.0, -1.0, np.nan])
def test_spacing_that_is_not_positive_is_refused(tmp_path: Path, length: float) -> None:
    pixdim = (1, 1, length, 1, 1, 1, 1, 1)
    path = with_header(tmp_path / "scan.nii", pixdim=pixdim, sform_code=0, qform_code=1)
    with pytest.raises(GeometryError, match="spacing must be positive"):
        read_grid(path)
    with pytest.raises(GeometryError, match="spacing must be positive"):
        read_grid(path, orientation="RAS")


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 4, 2)])
def test_arrays_that_are_not_3d_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path / "scan.nii.gz", np.zeros(shape, dtype=np.uint8), np.eye(4))
    with pytest.raises(DataError, match="one 3D volume expected"):
        read_volume(path)


def test_an_mgh_file_of_several_frames_is_refused(tmp_path: Path) -> None:
    new_mgh(np.zeros((2, 3, 4, 2), np.float32), np.eye(4)).to_filename(tmp_path / "scan.mgz")
    with pytest.raises(DataError, match="one 3D volume expected"):
        read_volume(tmp_path / "scan.mgz")


def test_colour_voxels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one real number each"):
        read_volume(with_header(tmp_path / "scan.nii", datatype=128))


def test_an_unknown_voxel_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_volume(with_header(tmp_path / "scan.nii", datatype=7777))


@pytest.mark.parametrize("dim", [(3, 0, 3, 4, 1, 1, 1, 1), (3, -2, 3, 4, 1, 1, 1, 1)])
def test_lengths_that_are_not_positive_are_refused(tmp_path: Path, dim: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="claims the shape"):
        read_volume(with_header(tmp_path / "scan.nii", dim=dim))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_header_that_claims_a_hundred_gigabytes_takes_no_memory(
    tmp_path: Path, name: str
) -> None:
    path = with_header(tmp_path / name, dim=(3, 30000, 30000, 60, 1, 1, 1, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="54,000,000,000, and at most 268,435,456 are read"):
        read_volume(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_claim_below_the_limit_is_compared_with_the_file(tmp_path: Path, name: str) -> None:
    path = with_header(tmp_path / name, dim=(3, 600, 600, 600, 1, 1, 1, 1))
    with pytest.raises(DataError, match="cannot hold"):
        read_volume(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_packed_file_is_refused(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = saved(tmp_path / "scan.nii.gz", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"scan\.nii\.gz"):
        read_volume(path)


def test_damaged_bytes_in_a_packed_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    raw = new_nifti1(VOXELS, LAS).to_bytes()
    stored = bytearray(gzip.compress(raw, compresslevel=0))
    stored[-20] ^= 1  # a voxel; the deflate stream itself stays valid
    path.write_bytes(stored)
    with pytest.raises(DataError, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize(
    ("unit", "factor"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (2 + 8, 1.0), (3 + 16, 0.001)]
)
@pytest.mark.parametrize("forms", [(1, 0), (0, 1), (4, 1)], ids=["sform", "qform", "both"])
def test_lengths_are_read_in_the_unit_that_the_header_states(
    tmp_path: Path, unit: int, factor: float, forms: tuple[int, int]
) -> None:
    codes = {"sform_code": forms[0], "qform_code": forms[1]}
    path = with_header(tmp_path / "scan.nii", xyzt_units=unit, **codes)
    expected = LAS.copy()
    expected[:3] *= factor
    assert np.allclose(read_grid(path).affine, expected, rtol=1e-6, atol=0)
    assert np.allclose(read_grid(path, orientation="LAS").spacing_mm, np.array([2, 1, 3]) * factor)


@pytest.mark.parametrize("unit", ["meter", "mm", "micron"])
def test_outputs_state_the_grid_of_the_input_in_its_unit(tmp_path: Path, unit: str) -> None:
    image = new_nifti1(VOXELS, LAS)
    image.set_qform(LAS, 1)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "in.nii")
    label_map = read_label_map(tmp_path / "in.nii")
    write_label_map(label_map, tmp_path / "out.nii")
    before: Any = nib.load(tmp_path / "in.nii")
    after: Any = nib.load(tmp_path / "out.nii")
    for field in ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "pixdim"):
        assert np.array_equal(after.header[field], before.header[field])
    assert after.header.get_xyzt_units()[0] == unit
    assert read_grid(tmp_path / "out.nii").matches(label_map.grid, tolerance_mm=0)


def test_a_unit_that_is_none_is_taken_for_mm_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_grid(with_header(tmp_path / "scan.nii", xyzt_units=6)).affine[0, 0] == -2
    assert "unknown unit 6; mm are taken" in caplog.text


@pytest.mark.parametrize(("code", "restated"), [(1, 1), (5, 5), (77, 2), (32767, 2)])
def test_a_code_that_the_format_does_not_define_is_restated_as_one_that_it_does(
    tmp_path: Path, code: int, restated: int
) -> None:
    volume = read_volume(with_header(tmp_path / "in.nii", sform_code=code, qform_code=-1))
    write_volume(volume, tmp_path / "out.nii")
    after: Any = nib.load(tmp_path / "out.nii")
    assert (after.header["sform_code"], after.header["qform_code"]) == (restated, 0)
    assert np.allclose(after.affine, LAS)


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, -1.0, 1e30])
def test_an_offset_that_is_none_is_refused(tmp_path: Path, offset: float) -> None:
    """NaN ended a cohort by a traceback."""
    with pytest.raises(DataError, match="puts the voxels at byte"):
        read_volume(with_header(tmp_path / "scan.nii", vox_offset=offset))


def test_the_magic_of_nifti2_in_a_header_of_nifti1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a NIfTI or Analyze file"):
        read_volume(with_header(tmp_path / "scan.nii", magic=b"n+2"))


@pytest.mark.parametrize("length", [1e25, 3e38, np.inf, np.nan])
def test_voxels_absurdly_far_away_are_refused(tmp_path: Path, length: float) -> None:
    path = with_header(tmp_path / "scan.nii", srow_x=(length, 0, 0, 0), qform_code=0)
    with pytest.raises(GeometryError, match=r"no usable affine; sform: (voxels lie|the affine)"):
        read_volume(path)
    with pytest.raises(GeometryError, match=r"from the origin|spacing must be positive"):
        read_grid(
            with_header(tmp_path / "scan.nii", pixdim=(1, length, 1, 1, 1, 1, 1, 1)),
            orientation="RAS",
        )


def test_a_pair_states_its_own_offset_and_a_single_file_at_least_its_header(tmp_path: Path) -> None:
    path = with_header(tmp_path / "scan.nii", vox_offset=0)
    assert np.array_equal(read_volume(path).data, VOXELS)
    new_nifti1_pair(VOXELS, LAS).to_filename(tmp_path / "pair.img")
    voxels = (tmp_path / "pair.img").read_bytes()
    header: Any = nib.load(tmp_path / "pair.img").header
    header["vox_offset"] = 16
    (tmp_path / "pair.hdr").write_bytes(header.binaryblock + b"\0\0\0\0")
    (tmp_path / "pair.img").write_bytes(b"\xff" * 16 + voxels)
    assert np.array_equal(read_volume(tmp_path / "pair.hdr").data, VOXELS)


def test_a_gzipped_file_is_unpacked_as_far_as_its_header_announces(tmp_path: Path) -> None:
    """Gigabytes of zeros behind the voxels are few bytes on disk."""
    path = tmp_path / "scan.nii.gz"
    packer = zlib.compressobj(1, wbits=31)
    with path.open("wb") as file:
        file.write(packer.compress(new_nifti1(VOXELS, LAS).to_bytes()))
        for _ in range(4):
            file.write(packer.compress(bytes(2**25)))
        file.write(packer.flush())
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 1048576 bytes follow the last"):
        read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mgz"])
def test_a_little_may_follow_the_voxels(tmp_path: Path, name: str) -> None:
    make = new_mgh if name.endswith(".mgz") else new_nifti1
    make(VOXELS.astype(np.float32), LAS).to_filename(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    raw = whole if name == "scan.nii" else gzip.decompress(whole)
    for behind, message in ((2000, None), (2**20 + 1000, "bytes follow the last")):
        grown = raw + bytes(behind)
        (tmp_path / name).write_bytes(grown if name == "scan.nii" else gzip.compress(grown))
        if message is None:
            assert np.array_equal(read_volume(tmp_path / name).data, VOXELS)
        else:
            with pytest.raises(DataError, match=message):
                read_volume(tmp_path / name)


def test_scans_of_several_runs_of_voxels_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (np.arange(24, dtype=np.float64) * 12).reshape(2, 3, 4)
    path = saved(tmp_path / "scan.nii.gz", data)
    monkeypatch.setattr(nifti, "RUN_VOXELS", 5)
    assert np.array_equal(read_volume(path).data, data)
    label_map = read_label_map(path)
    assert np.array_equal(label_map.data, data)
    assert label_map.data.dtype == np.uint16
    assert label_map.data.flags.c_contiguous


def test_a_truncated_plain_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "scan.nii")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        read_volume(path)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.hdr", "scan.mgz"])
@pytest.mark.parametrize("content", [b"", b"patient,age\n1,2\n" * 60], ids=["empty", "text"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "scan.img").write_bytes(content)
    with pytest.raises(DataError, match="it begins with"):
        read_volume(tmp_path / name, orientation="RAS")


def test_missing_files_and_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "absent.nii.gz")
    with pytest.raises(DataError, match="not the name of a scan"):
        read_volume(tmp_path / "scan.dcm")
    header = analyze_pair(tmp_path, packed=False)
    header.with_suffix(".img").unlink()
    with pytest.raises(DataError, match="two files"):
        read_volume(header, orientation="RAS")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").mkdir()
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "scan.nii")


def test_voxels_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    data = VOXELS.astype(np.float64)
    data[0, 0, :2] = np.nan
    data[1, 1, 1] = np.inf
    data[1, 1, 2] = 1e300
    path = saved(tmp_path / "scan.nii.gz", data)
    with pytest.raises(DataError, match=r"4 of 24 voxels are NaN.*nan_to_num"):
        read_volume(path)


def test_whole_numbers_stored_as_float_are_label_ids(tmp_path: Path) -> None:
    path = saved(tmp_path / "labels.nii.gz", VOXELS.astype(np.float32))
    structures = (Structure("horn", (3, 4)),)
    label_map = read_label_map(path, structures=structures)
    assert label_map.data.dtype == np.uint8
    assert np.array_equal(label_map.data, VOXELS)
    assert label_map.mask("horn").sum() == 2


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "0.5"), (-3, "-3 to 22"), (np.nan, "NaN"), (3e9, "to 3000000000")]
)
def test_label_ids_that_are_none_are_refused(tmp_path: Path, value: float, message: str) -> None:
    data = VOXELS.astype(np.float64)
    data[1, 2, 3] = value
    with pytest.raises(DataError, match=message):
        read_label_map(saved(tmp_path / "labels.nii.gz", data))


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (70000, np.int32)]
)
def test_label_maps_are_written_in_the_smallest_type(
    tmp_path: Path, largest: int, dtype: type
) -> None:
    data = np.zeros((2, 3, 4), dtype=np.int64)
    data[1, 2, 3] = largest
    write_label_map(LabelMap(data, Grid((2, 3, 4), LAS)), tmp_path / "labels.nii.gz")
    stored: Any = nib.load(tmp_path / "labels.nii.gz")
    assert stored.get_data_dtype() == dtype
    assert np.array_equal(np.asarray(stored.dataobj), data)


@pytest.mark.parametrize(
    ("sform_code", "qform_code", "apart_mm"), [(1, 1, 0.0), (4, 1, 3.0), (0, 1, 3.0), (2, 0, 3.0)]
)
def test_outputs_restate_the_placement_of_the_input(
    tmp_path: Path, sform_code: int, qform_code: int, apart_mm: float
) -> None:
    path = two_forms(
        tmp_path / "in.nii", sform_code=sform_code, qform_code=qform_code, apart_mm=apart_mm
    )
    label_map = read_label_map(path)
    write_label_map(label_map, tmp_path / "out.nii.gz")
    before: Any = nib.load(path)
    after: Any = nib.load(tmp_path / "out.nii.gz")
    assert (after.header["sform_code"], after.header["qform_code"]) == (sform_code, qform_code)
    if sform_code:
        assert np.array_equal(after.get_sform(), before.get_sform())
    if qform_code:
        assert np.allclose(after.get_qform(), before.get_qform(), atol=1e-5)
    assert np.allclose(after.affine, before.affine, atol=1e-5)
    assert np.allclose(after.header.get_zooms(), before.header.get_zooms())
    assert np.array_equal(np.asarray(after.dataobj), VOXELS)


def test_a_sheared_grid_is_written_as_sform_alone(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    volume = Volume(VOXELS.astype(np.float32), Grid((2, 3, 4), sheared))
    write_volume(volume, tmp_path / "scan.nii")
    stored: Any = nib.load(tmp_path / "scan.nii")
    assert int(stored.header["qform_code"]) == 0
    assert np.allclose(read_grid(tmp_path / "scan.nii").affine, sheared)


def test_an_axis_too_long_for_nifti1_is_written_as_nifti2(tmp_path: Path) -> None:
    volume = Volume(np.zeros((40000, 1, 1), np.float32), Grid((40000, 1, 1), np.eye(4)))
    write_volume(volume, tmp_path / "scan.nii.gz")
    assert read_grid(tmp_path / "scan.nii.gz").spatial_shape == (40000, 1, 1)


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    volume = Volume(VOXELS.astype(np.float32), Grid((2, 3, 4), OBLIQUE))
    write_volume(volume, tmp_path / "a.nii.gz")
    write_volume(volume, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").data, volume.data)


def test_other_output_formats_are_refused(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 2, 2), np.float32), Grid((2, 2, 2), np.eye(4)))
    with pytest.raises(DataError, match=r"written as \.nii or \.nii\.gz"):
        write_volume(volume, tmp_path / "scan.mgz")


@contextmanager
def files_limited_to(byte_count: int) -> Iterator[None]:
    """No file grows beyond this many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (byte_count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    with (
        files_limited_to(20_000),
        pytest.raises(DataError, match=f"{name}: cannot be written"),
    ):
        write_volume(Volume(noise, Grid(noise.shape, np.eye(4))), path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == b"old"


def test_names_of_scans_are_recognised(tmp_path: Path) -> None:
    assert case_id_of(Path("a/case_1.nii.gz")) == "case_1"
    assert case_id_of(Path("S01.native.mri.img.gz")) == "S01.native.mri"
    for name in ("b.MGZ", "a.nii", "._a.nii", "c.hdr", "c.img.gz", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.nii").mkdir()
    assert [path.name for path in list_scans(tmp_path)] == ["a.nii", "b.MGZ", "c.hdr"]


@pytest.mark.real_data
def test_real_files_keep_types_and_orientation_apart(real_data: Path) -> None:
    task = real_data / "Task04_Hippocampus"
    floats = read_label_map(task / "labelsTr" / "hippocampus_003.nii.gz")
    assert floats.data.dtype == np.uint8
    assert set(np.unique(floats.data)) == {0, 1, 2}
    scan = real_data / "miccai2012" / "images" / "1000.nii.gz"
    assert read_grid(scan).affine[0, 0] < 0
    assert (read_volume(scan).data == 0).mean() > 0.3


@pytest.mark.real_data
def test_the_code_and_not_the_parity_says_the_side(real_data: Path) -> None:
    label_map = read_label_map(real_data / "miccai2012" / "labels" / "1000.nii.gz")
    for right, left in ((36, 37), (47, 48)):
        centres = [
            label_map.grid.to_world(np.argwhere(label_map.data == code).mean(axis=0))[0]
            for code in (right, left)
        ]
        assert centres[0] > centres[1] + 10

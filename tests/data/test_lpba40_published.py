"""LPBA40 as LONI hands it out: both spaces, the transforms between them, the paper's settings."""

from __future__ import annotations

import gzip
import json
import logging
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

import shapeguide as sg
from shapeguide import commands
from shapeguide.cli import main
from shapeguide.data.air_transforms import LAYOUT, read_air
from shapeguide.data.prepare import prepare_case
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import DataError

SHAPE = (32, 12, 32)  # few slices of coronal scans, as 256 x 124 x 256
SPACING_MM = (0.86, 1.5, 0.86)
LEFT, RIGHT = 165, 166
PEOPLE = ("S01", "S02", "S40")
new_analyze: Any = nib.AnalyzeImage  # nibabel's classes carry no types


def put_analyze(stem: Path, data: NDArray[np.generic], *, packed: bool = True) -> None:
    """An Analyze pair with a trailing axis of length 1, as in the download."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    image = new_analyze(data[..., None], None)
    image.header.set_zooms((*SPACING_MM, 1.0))
    image.to_filename(stem.with_name(stem.name + ".hdr"))
    voxels = stem.with_name(stem.name + ".img")
    if packed:
        voxels.with_name(voxels.name + ".gz").write_bytes(gzip.compress(voxels.read_bytes()))
        voxels.unlink()


def scan(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A noisy head with a bright block of each side, and their label map."""
    rng = np.random.default_rng(number)
    image = rng.integers(20, 60, SHAPE).astype(np.uint8)
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    end = 20 + number
    label_map[6:12, 3:9, 10:end] = LEFT
    label_map[20:26, 3:9, 10:end] = RIGHT
    image[label_map > 0] += 100
    return image, label_map


def put_air(
    path: Path, to_reslice: NDArray[np.float64], *, shape: tuple[int, ...] = SHAPE, order: str = "<"
) -> None:
    """A transform between two scans of the shape and spacing of the tree.

    Args:
        path: The file.
        to_reslice: Voxel index of the standard scan to that of the reslice scan.
        shape: Of both scans.
        order: Byte order.
    """
    cubic = np.diag([1 / (step / min(SPACING_MM)) for step in SPACING_MM] + [1.0])
    by_column = (to_reslice @ cubic).T.ravel()
    one_scan = (16, *shape, *SPACING_MM)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = (b"native", b"delineation")
    fields = (*by_column, names[0], *one_scan, names[1], *one_scan, b"", 0, 0, 0, 0, b"")
    path.write_bytes(struct.pack(order + LAYOUT, *fields))


def shift(i: float, j: float, k: float) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 3] = (i, j, k)
    return affine


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Both spaces; native voxel (i, j, k) shows what lies at (i + 1, j, k - 2) of the other."""
    for number, person in enumerate(PEOPLE):
        image, label_map = scan(number)
        delineated = tmp_path / "delineation_space" / person / f"{person}.delineation"
        put_analyze(delineated.with_name(f"{person}.delineation.skullstripped"), image)
        put_analyze(delineated.with_name(f"{person}.delineation.structure.label"), label_map)
        native = tmp_path / "native_space" / person
        put_analyze(native / f"{person}.native.mri", np.roll(image, (-1, 0, 2), axis=(0, 1, 2)))
        put_analyze(native / f"{person}.native.brain.mask", np.ones(SHAPE, dtype=np.uint8))
        put_air(native / "transforms" / f"{person}.delineation.to.native.air", shift(1, 0, -2))
    (tmp_path / "delineation_space" / "lpba40.label.xml").write_text("<labels/>")
    return tmp_path


def test_the_delineation_space_is_for_training(tree: Path) -> None:
    assert main(["describe", str(tree), "--out", str(tree / "dataset.json")]) == 0
    dataset = sg.read_dataset(tree / "dataset.json")
    assert [case.id for case in dataset] == list(PEOPLE)
    assert [case.id for case in dataset.unlabelled] == [f"{name}_native" for name in PEOPLE]
    assert len(dataset.structures) == 56
    grid = dataset[0].read_grid()
    assert grid.spatial_shape == SHAPE
    assert np.allclose(grid.spacing_mm, SPACING_MM)
    assert np.allclose(np.sign(np.diag(grid.affine)), 1)
    assert np.array_equal(dataset[2].read_volume().data, scan(2)[0])
    assert np.array_equal(dataset[2].read_label_map().data, scan(2)[1])


def test_the_folder_of_the_delineation_space_describes_itself(tree: Path) -> None:
    dataset = sg.read_dataset(tree / "delineation_space")
    assert [case.id for case in dataset] == list(PEOPLE)
    assert dataset.unlabelled == ()


@pytest.mark.parametrize("where", ["native_space/native.json", "elsewhere/native.json"])
def test_native_scans_take_the_label_maps_through_their_transforms(tree: Path, where: str) -> None:
    out = tree / where
    out.parent.mkdir(exist_ok=True)
    assert main(["describe", str(tree / "native_space"), "--out", str(out)]) == 0
    with pytest.raises(DataError, match="leaves the folder of the dataset"):
        sg.read_dataset(out)
    dataset = sg.read_dataset(out, allow_outside=True)
    assert [case.id for case in dataset] == list(PEOPLE)
    for number, case in enumerate(dataset):
        labelled = case.read_label_map().data > 0
        assert np.array_equal(labelled, np.roll(scan(number)[1] > 0, (-1, 0, 2), axis=(0, 1, 2)))
        assert (case.read_volume().data[labelled] > 100).all()


def test_native_scans_are_for_training_where_only_label_maps_are_delineated(tree: Path) -> None:
    for stripped in tree.glob("delineation_space/*/*skullstripped*"):
        stripped.unlink()
    dataset = sg.read_dataset(tree)
    assert [case.image.name for case in dataset] == [f"{name}.native.mri.hdr" for name in PEOPLE]
    assert dataset[0].read_label_map().mask("left_hippocampus")[5, 3, 12]
    assert dataset.unlabelled == ()


def test_a_native_scan_without_label_map_is_left_unlabelled(tree: Path) -> None:
    for labels in tree.glob("delineation_space/S02/*label*"):
        labels.unlink()
    dataset = sg.read_dataset(tree / "native_space")
    assert [case.id for case in dataset] == ["S01", "S40"]
    assert [case.id for case in dataset.unlabelled] == ["S02_native"]


def test_a_label_map_without_native_scan_is_refused(tree: Path) -> None:
    for file in tree.glob("native_space/S02/S02.native.mri*"):
        file.unlink()
    with pytest.raises(DataError, match=r"S02: expected S02\.native\.mri"):
        sg.read_dataset(tree / "native_space")
    (tree / "native_space" / "S02").rename(tree / "native_space" / "gone")
    with pytest.raises(DataError, match=r"expected S02/S02\.native\.mri"):
        sg.read_dataset(tree / "native_space")


def test_without_a_transform_equal_voxels_are_taken_with_a_warning(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "native_space" / "S01" / "transforms" / "S01.delineation.to.native.air").unlink()
    with caplog.at_level(logging.WARNING):
        dataset = sg.read_dataset(tree / "native_space")
    assert "S01.delineation.to.native.air is not there" in caplog.text
    assert np.array_equal(dataset[0].read_label_map().data, scan(0)[1])
    put_analyze(tree / "native_space" / "S01" / "S01.native.mri", np.ones((30, 12, 32), np.uint8))
    with pytest.raises(DataError, match=r"S01: .*\(30, 12, 32\), its label map \(32, 12, 32\)"):
        sg.read_dataset(tree / "native_space")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_transform_reads_the_same_in_either_byte_order(tmp_path: Path, order: str) -> None:
    turned = np.array([[0, 0, 1, 4], [0, 1, 0, 0], [-1, 0, 0, 31], [0, 0, 0, 1]], dtype=np.float64)
    put_air(tmp_path / "t.air", turned, order=order)
    transform = read_air(tmp_path / "t.air")
    assert np.allclose(transform.to_reslice, turned)
    assert (transform.standard_shape, transform.reslice_shape) == (SHAPE, SHAPE)


def test_the_matrix_of_a_transform_starts_from_cubic_voxels(tmp_path: Path) -> None:
    """Native voxels of 0.86 x 1.5 x 0.86 mm: the tenth slice lies 10 * 1.5 / 0.86 cubes away."""
    content = struct.pack("<" + LAYOUT, *np.eye(4).ravel(), *_two_scans())
    (tmp_path / "t.air").write_bytes(content)
    found = read_air(tmp_path / "t.air").to_reslice @ np.array([0, 10, 0, 1])
    assert np.allclose(found, [0, 10 * 1.5 / 0.86, 0, 1])


def _two_scans() -> tuple[object, ...]:
    one_scan = (16, *SHAPE, *SPACING_MM)
    return (b"native", *one_scan, b"delineation", *one_scan, b"", 0, 0, 0, 0, b"")


def test_damaged_and_foreign_transforms_are_refused(tree: Path) -> None:
    path = tree / "native_space" / "S01" / "transforms" / "S01.delineation.to.native.air"
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole[:272] + b"\xff" * (len(whole) - 272)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"S01\.delineation\.to\.native\.air: "):
            sg.read_dataset(tree / "native_space")
    perspective = np.eye(4)
    perspective[3, 0] = 0.01
    put_air(path, perspective)
    with pytest.raises(DataError, match="no affine transform"):
        sg.read_dataset(tree / "native_space")
    for unusable in (np.diag([1e308, 1, 1, 1]), np.diag([1, 1, 0, 1]), np.diag([1, 1, 1, 0])):
        put_air(path, unusable)
        with pytest.raises(DataError, match="no affine transform"):
            sg.read_dataset(tree / "native_space")
    put_air(path, np.eye(4), shape=(256, 124, 256))
    with pytest.raises(DataError, match=r"of shapes \(256, 124, 256\).*have \(32, 12, 32\)"):
        sg.read_dataset(tree / "native_space")


@pytest.mark.parametrize("rows", [[[1, 0], [0, 1]], "eye", [[0.0] * 4] * 4, [[None] * 4] * 4])
def test_a_description_with_another_form_of_transform_is_refused(tree: Path, rows: object) -> None:
    sg.describe(tree / "native_space", tree / "dataset.json")
    stated = json.loads((tree / "dataset.json").read_text())
    stated["training"][0]["label_to_image"] = rows
    (tree / "dataset.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match=r'S01: "label_to_image" is .*four rows of four numbers'):
        sg.read_dataset(tree / "dataset.json")


@pytest.mark.parametrize("shape", [(256, 256, 128), (256, 128, 256)])
def test_the_train_command_reaches_the_settings_of_the_paper(shape: tuple[int, int, int]) -> None:
    words = ["LPBA40", "--out", "run", "--preset", "paper", "--structure", "left_hippocampus=165"]
    words += ["--spatial-shape", *map(str, shape), "--precision", "bf16"]
    command: Any = commands.parse("train", [*words, "--activation-checkpoints"])
    settings = command.settings
    assert settings.data.spatial_shape == shape
    assert (settings.data.centre, settings.data.normalisation) == ("volume", "volume")
    assert (settings.warp.rotation_deg, settings.warp.scale) == (8.0, (0.85, 1.15))
    shape_stage = settings.shape
    assert (shape_stage.objective, shape_stage.pose) == ("pairwise", "grid")
    assert (shape_stage.iterations, shape_stage.batch_size) == (200, 1)
    assert (shape_stage.learning_rate, shape_stage.decay) == (1e-4, "none")
    segmentation = settings.segmentation
    assert (segmentation.dice_iterations, segmentation.guided_iterations) == (800, 400)
    assert (segmentation.segmenter, segmentation.batch_size) == ("unet3d", 1)
    assert (segmentation.cross_entropy_weight, segmentation.intensity_augmentation) == (0, False)
    loss = settings.shape_loss
    assert (loss.alpha, loss.cap, loss.cap_form, loss.distance) == (0.1, 1.0, "hard", "raw")
    assert (settings.guidance, settings.machine.precision) == ("shape", "bf16")
    assert settings.machine.activation_checkpoints


def test_the_crop_of_the_paper_fits_scans_of_124_coronal_slices(tree: Path) -> None:
    case = sg.read_dataset(tree).with_structures(left=(LEFT,), right=(RIGHT,))[0]
    space = WorkingSpace(SPACING_MM, (32, 16, 32), "volume", "volume")
    prepared = prepare_case(case, space)
    assert prepared.image.shape == (1, 32, 16, 32)
    inside = prepared.image[0, :, 2:14]
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    assert inside.std() == pytest.approx(1, abs=1e-5)
    wanted = np.select([scan(0)[1] == LEFT, scan(0)[1] == RIGHT], [1, 2])
    assert np.array_equal(prepared.classes[:, 2:14], wanted)


@pytest.mark.parametrize("space", ["delineation_space", "native_space"])
def test_the_preset_of_the_paper_trains_from_the_tree(tree: Path, space: str) -> None:
    run = tree / "run"
    words = ["--preset", "paper", "--spatial-shape", "32", "16", "32", "--channels", "2", "4"]
    words += ["--structure", f"left={LEFT}", f"right={RIGHT}"]
    words += ["--dice-iterations", "2", "--guided-iterations", "1"]
    words += ["--shape.iterations", "2", "--shape.channels", "2", "4", "--shape.quality-pairs", "4"]
    assert main(["train", str(tree / space), "--out", str(run), *words, "--device", "cpu"]) == 0
    segmenter = sg.load_segmenter(run, device="cpu")
    space_used = segmenter.space
    assert space_used.spatial_shape == (32, 16, 32)
    assert space_used.normalisation == "volume"
    assert np.allclose(space_used.spacing_mm, SPACING_MM)
    prediction = sg.predict(segmenter, sg.read_dataset(tree / space)[0].read_volume())
    assert prediction.data.shape == SHAPE

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapeguide.data.case import Case
from shapeguide.data.nifti import read_label_map, read_volume
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError, ConfigError, DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.inference import prediction_files
from shapeguide.inference.prediction import predict, predict_volume
from shapeguide.inference.prediction_files import PredictionOptions, predict_files
from shapeguide.inference.provenance import PREDICTIONS_FILE
from shapeguide.inference.shown import channels_for
from shapeguide.inference.sizes_table import VOLUMES_FILE
from shapeguide.metrics.overlap import dice
from shapeguide.models.segmenter import Segmenter
from shapeguide.workflows.evaluation import evaluate

STRUCTURES = (Structure("bright", (7, 8)),)


class BrightVoxels(nn.Module):
    """A segmenter whose right answer is known: what is brighter than average by one deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.windows: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.windows.append(tuple(images.shape[2:]))
        bright = (images - 1.0) * self.sharpness
        return torch.cat([torch.zeros_like(bright), bright], dim=1)


def segmenter(spatial_shape: tuple[int, int, int] = (32, 32, 32)) -> Segmenter:
    space = WorkingSpace((1.0, 1.0, 1.0), spatial_shape, "volume", "volume")
    return Segmenter(BrightVoxels().requires_grad_(False), STRUCTURES, space)


def scene(
    shape: tuple[int, int, int] = (20, 24, 22),
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    data = np.full(shape, 100, dtype=np.float32)
    mask = np.zeros(shape, dtype=bool)
    mask[3:9, 5:15, 6:12] = True
    data[mask] = 200
    return data, mask


def write_scan(path: Path, affine: NDArray[np.float64] | None = None) -> Path:
    image = nib.Nifti1Image(scene()[0], np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 2)
    nib.save(image, path)
    return path


OBLIQUE = np.array(
    [
        [0.0, 1.0 * np.cos(0.3), -1.0 * np.sin(0.3), 5.0],
        [-1.2, 0.0, 0.0, 40.0],
        [0.0, 1.0 * np.sin(0.3), 1.0 * np.cos(0.3), -12.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


@pytest.mark.parametrize(
    "affine",
    [np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0]), np.diag([1.0, -1.5, 2.0, 1.0]), OBLIQUE],
    ids=["RAS", "LAS", "anisotropic", "oblique"],
)
def test_prediction_lies_on_the_grid_of_its_input(affine: NDArray[np.float64]) -> None:
    data, mask = scene()
    volume = Volume(data, Grid(mask.shape, affine))
    prediction = predict(segmenter(), volume)
    assert prediction.grid is volume.grid
    assert prediction.structures == STRUCTURES
    assert set(np.unique(prediction.data)) == {0, 7}
    assert dice(prediction.mask("bright"), mask) > 0.85


def test_probabilities_sum_to_one_and_cover_the_input() -> None:
    data, mask = scene()
    volume = Volume(data, Grid(mask.shape, np.eye(4)))
    probabilities = predict_volume(segmenter(), volume).probabilities
    assert probabilities.shape == (2, *mask.shape)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-3)


def test_volume_larger_than_the_working_shape_is_covered_by_windows() -> None:
    data, mask = scene((40, 24, 22))
    small = segmenter((16, 32, 32))
    prediction = predict(small, Volume(data, Grid(mask.shape, np.eye(4))))
    assert dice(prediction.mask("bright"), mask) > 0.95
    network = small.network
    assert isinstance(network, BrightVoxels)
    assert set(network.windows) == {(16, 32, 32)}
    assert len(network.windows) > 1


def test_largest_component_drops_the_rest() -> None:
    data, mask = scene()
    data[16:18, 18:20, 18:20] = 200
    volume = Volume(data, Grid(mask.shape, np.eye(4)))
    assert predict(segmenter(), volume).mask("bright")[16, 18, 18]
    kept = predict(segmenter(), volume, largest_component=True).mask("bright")
    assert not kept[16:].any()
    assert kept[3:9, 5:15, 6:12].all()


def test_written_label_map_keeps_shape_affine_and_codes(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.nii.gz", OBLIQUE)
    report = predict_files(segmenter(), [scan], out_dir=tmp_path / "out", progress=False)
    assert report.complete
    image, written = (
        nib.Nifti1Image.from_filename(path) for path in (scan, tmp_path / "out" / "a.nii.gz")
    )
    assert written.shape == image.shape
    for form in ("get_sform", "get_qform"):
        (affine, code), (expected, expected_code) = (
            getattr(item, form)(coded=True) for item in (written, image)
        )
        assert code == expected_code
        assert np.allclose(affine, expected, atol=1e-5)


def test_broken_scan_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / f"{name}.nii.gz") for name in ("a", "b", "c")]
    scans[1].write_bytes(scans[1].read_bytes()[:200])
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)), scans[2])
    report = predict_files(segmenter(), scans, out_dir=tmp_path / "out", progress=False)
    assert not report.complete
    assert [path.name for path in report.written] == ["a.nii.gz"]
    assert [failure.scan.name for failure in report.failed] == ["b.nii.gz", "c.nii.gz"]
    assert all(failure.reason for failure in report.failed)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.nii.gz", VOLUMES_FILE, PREDICTIONS_FILE,
    }  # fmt: skip


def test_too_little_memory_for_one_scan_is_reported_and_the_table_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [write_scan(tmp_path / f"{name}.nii.gz") for name in "abc"]
    whole = channels_for

    def scarce(segmenter: Segmenter, case: Case) -> tuple[Volume, ...]:
        if case.id == "b":
            raise RuntimeError("out of memory")  # as PyTorch's allocators do
        if case.id == "c":
            raise KeyboardInterrupt
        return whole(segmenter, case)

    monkeypatch.setattr(prediction_files, "channels_for", scarce)
    report = predict_files(segmenter(), scans[:2], out_dir=tmp_path / "two", progress=False)
    assert [failure.reason for failure in report.failed] == ["RuntimeError: out of memory"]
    with pytest.raises(KeyboardInterrupt):
        predict_files(segmenter(), scans, out_dir=tmp_path / "three", progress=False)
    assert list(pd.read_csv(tmp_path / "three" / "volumes.csv")["case"].unique()) == ["a"]


def test_outputs_that_are_there_are_kept_unless_overwriting_is_wanted(tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / f"{name}.nii.gz") for name in ("a", "b")]
    out = tmp_path / "out"
    predict_files(segmenter(), scans[:1], out_dir=out, progress=False)
    stamp = (out / "a.nii.gz").stat().st_mtime_ns
    again = predict_files(segmenter(), scans, out_dir=out, progress=False)
    assert [path.name for path in again.kept] == ["a.nii.gz"]
    assert [path.name for path in again.written] == ["b.nii.gz"]
    assert (out / "a.nii.gz").stat().st_mtime_ns == stamp
    options = PredictionOptions(overwrite=True)
    forced = predict_files(segmenter(), scans, out_dir=out, options=options, progress=False)
    assert len(forced.written) == 2


def test_label_maps_of_other_models_or_options_are_not_gone_on_with(tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / f"{name}.nii.gz") for name in "ab"]
    out = tmp_path / "out"
    predict_files(segmenter(), scans[:1], out_dir=out, progress=False)
    assert predict_files(segmenter(), scans, out_dir=out, progress=False).kept
    largest = PredictionOptions(largest_component=True)
    with pytest.raises(ConfigError, match="largest_component was false, is true"):
        predict_files(segmenter(), scans, out_dir=out, options=largest, progress=False)
    other = segmenter()
    with torch.no_grad():
        next(other.network.parameters()).add_(1)
    with pytest.raises(ConfigError, match=r"segmenter was .*, is .*--overwrite"):
        predict_files(other, scans, out_dir=out, progress=False)
    again = PredictionOptions(overwrite=True)
    assert len(predict_files(other, scans, out_dir=out, options=again, progress=False).written) == 2
    assert len(predict_files(other, scans, out_dir=out, progress=False).kept) == 2
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        predict_files(other, scans[:1], out_dir=scans[1], progress=False)
    (out / PREDICTIONS_FILE).write_text("[]")
    with pytest.raises(ConfigError, match="is not the note of a prediction"):
        predict_files(other, scans, out_dir=out, progress=False)
    (out / PREDICTIONS_FILE).write_text("[")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        predict_files(other, scans, out_dir=out, progress=False)


def test_scores_are_of_the_structures_that_were_predicted(tmp_path: Path) -> None:
    scan, references = write_scan(tmp_path / "a.nii.gz"), tmp_path / "references"
    predict_files(segmenter(), [scan], out_dir=tmp_path / "out", progress=False)
    references.mkdir()
    # Half of the structure bears the second of its label ids.
    labels = np.where(scene()[1], 7, 0).astype(np.uint8)
    labels[:6][labels[:6] > 0] = 8
    image = nib.Nifti1Image(labels, np.eye(4))
    image.set_sform(np.eye(4), 1)
    nib.save(image, references / "a.nii.gz")
    found = evaluate(tmp_path / "out", references)
    assert list(found.scores["structure"]) == ["bright"]
    assert found.scores["dice"].item() > 0.9
    (tmp_path / "out" / PREDICTIONS_FILE).write_text(
        '{"structures": {"bright": []}, "written_by": "shapeguide 0.1"}'
    )
    with pytest.raises(DataError, match="is damaged"):
        evaluate(tmp_path / "out", references)


def test_volumes_are_in_mm3_and_rows_of_earlier_calls_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = write_scan(tmp_path / "001.nii.gz")
    second = write_scan(tmp_path / "002.nii.gz", np.diag([2.0, 1.0, 1.0, 1.0]))
    for scan in (first, second):
        predict_files(segmenter(), [scan], out_dir=out, progress=False)
    table = pd.read_csv(out / VOLUMES_FILE, dtype={"case": str})
    assert table["case"].tolist() == ["001", "002"]
    voxels = read_label_map(out / "001.nii.gz", structures=STRUCTURES).mask("bright").sum()
    assert table["volume_mm3"][0] == voxels
    assert table["volume_mm3"][1] == pytest.approx(2 * 6 * 10 * 6, rel=0.2)


def test_probabilities_are_written_for_each_structure(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    options = PredictionOptions(probabilities=True)
    predict_files(segmenter(), [scan], out_dir=tmp_path / "out", options=options, progress=False)
    found = read_volume(tmp_path / "out" / "a_bright_probability.nii.gz").data
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[5, 9, 9] > 0.99


def test_analyze_scan_is_segmented_once_its_orientation_is_stated(tmp_path: Path) -> None:
    data, mask = scene()
    nib.AnalyzeImage(data, np.eye(4)).to_filename(tmp_path / "a.img")
    refused = predict_files(
        segmenter(), [tmp_path / "a.img"], out_dir=tmp_path / "out", progress=False
    )
    assert "orientation" in refused.failed[0].reason
    options = PredictionOptions(orientation="LAS")
    report = predict_files(
        segmenter(), [tmp_path / "a.img"], out_dir=tmp_path / "out", options=options, progress=False
    )
    assert report.complete
    found = read_label_map(report.written[0], structures=STRUCTURES)
    assert found.grid.affine[0, 0] < 0
    assert dice(found.mask("bright"), mask) > 0.85


def test_folder_of_scans_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    report = predict_files(
        segmenter(), [tmp_path / "scans"], out_dir=tmp_path / "out", progress=False
    )
    assert len(report.written) == 2


def test_scans_of_an_nnunet_folder_give_label_maps_named_like_its_own(tmp_path: Path) -> None:
    (images := tmp_path / "imagesTr").mkdir()
    for case_id in ("a", "b"):
        scan = write_scan(images / f"{case_id}_0000.nii.gz")
    out = tmp_path / "out"
    predict_files(segmenter(), [images], out_dir=out, progress=False)
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]
    assert predict_files(segmenter(), [scan], out_dir=out, progress=False).kept


def test_two_scans_for_one_output_and_a_scan_over_itself_are_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_scan(tmp_path / folder / "a.nii.gz")
    both = [tmp_path / "x" / "a.nii.gz", tmp_path / "y" / "a.nii.gz"]
    with pytest.raises(DataError, match="both be written"):
        predict_files(segmenter(), both, out_dir=tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="overwritten by its prediction"):
        predict_files(segmenter(), both[:1], out_dir=tmp_path / "x", progress=False)
    with pytest.raises(DataError, match="no scans"):
        predict_files(segmenter(), [], out_dir=tmp_path / "out", progress=False)

"""The finder stage: trained, resumed, refused; its finder tells where structures are, and sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.geometry.resample import resample_volume
from shapeguide.models import finder_model
from shapeguide.models.finder_model import Finder, load_finder
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.training.cohort import cohort_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages import finder as finder_stage
from shapeguide.training.stages import finder_step
from shapeguide.training.stages.finder import FinderStage, finder_space, train_finder
from shapeguide.training.stages.finder_step import finder_terms
from shapeguide.training.stages.finder_views import FinderBatches, FramedCases, draw_views, shown

SHAPE, SPACING_MM = (48, 56, 48), 2.0
CASES = 6


def head(number: int, *, both: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A ball with a bright front, a bright sheet in the middle, and a brighter ball beside it."""
    random = np.random.default_rng(number)
    i, j, k = (line - (n - 1) / 2 for line, n in zip(np.indices(SHAPE), SHAPE, strict=True))
    i, j, k = (line * SPACING_MM for line in (i, j, k))
    inside = (i / 44) ** 2 + (j / 52) ** 2 + (k / 44) ** 2 <= 1
    image = np.where(inside, 100 + 0.5 * j + 0.3 * k, 0)
    image[inside & (np.abs(i) <= 3)] = 170
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for label, side in ((1, -1), (2, 1)):
        middle = np.array([side * 20, -8, 5]) + random.uniform(-4, 4, 3)
        ball = sum((a - b) ** 2 for a, b in zip((i, j, k), middle, strict=True)) <= 9.0**2
        if both or label == 1:
            image[ball], labels[ball] = 220, label
    image[inside] += random.normal(0, 3, int(inside.sum()))
    return image.astype(np.float32), labels


AFFINE = np.diag([SPACING_MM] * 3 + [1.0])
AFFINE[:3, 3] = 7.0, -30.0, 11.0


@pytest.fixture(autouse=True)
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder_step, "MEASURED_VIEWS", 12)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Heads of two small balls; the last has but the left one."""
    folder = tmp_path_factory.mktemp("heads")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    rows = []
    for number in range(CASES):
        arrays = zip(("images", "labels"), head(number, both=number < CASES - 1), strict=True)
        for kind, data in arrays:
            nib.save(nib.Nifti1Image(data, AFFINE), folder / kind / f"{number}.nii.gz")
        rows.append({"image": f"images/{number}.nii.gz", "label": f"labels/{number}.nii.gz"})
    description = {
        "name": "heads",
        "labels": {"background": 0, "left": 1, "right": 2},
        "training": rows,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return sg.read_dataset(folder / "dataset.json").with_structures(left=(1,), right=(2,))


def tiny(**changes: Any) -> TrainSettings:
    quick = preset("quick")
    chosen = {"iterations": 4, "channels": (4, 8), "spacing_mm": 4.0, **changes}
    return quick.changed(
        finder=quick.finder.changed(**chosen),
        machine=quick.machine.changed(device="cpu", checkpoint_every=2),
    )


@pytest.fixture(scope="module")
def finder(heads: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Finder:
    folder = tmp_path_factory.mktemp("run") / "finder"
    settings = tiny(iterations=130, channels=(12, 24, 48))
    return train_finder(heads, run_dir=folder, settings=settings, progress=False)


def centres_mm(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: AFFINE[:3, :3] @ np.argwhere(labels == label).mean(axis=0) + AFFINE[:3, 3]
        for name, label in (("left", 1), ("right", 2))
        if (labels == label).any()
    }


def test_centres_are_found_in_a_head_that_was_not_trained_on(finder: Finder) -> None:
    image, labels = head(100)
    found = finder.find(sg.Volume(image, sg.Grid(SHAPE, AFFINE)))
    wanted = centres_mm(labels)
    assert found.keys() == wanted.keys()
    for name, centre_mm in wanted.items():
        assert np.abs(np.array(found[name].centre_mm) - centre_mm).max() < 4.0
        volume_mm3 = float((labels > 0).sum() / 2 * SPACING_MM**3)
        assert volume_mm3 / 2 < found[name].volume_mm3 < volume_mm3 * 2
    assert all(row.held_out is False and row.whole > 0 for row in finder.quality)
    assert [row.cases for row in finder.quality] == [CASES, CASES - 1]
    assert finder.error_mm == max(row.most_mm or 0.0 for row in finder.quality)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_world_decides_on_the_side_however_the_axes_of_a_file_run(
    finder: Finder, axes: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    image, labels = head(101)
    index = np.array(axes)
    turned = image.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
    affine = np.eye(4)
    affine[:3, :3] = AFFINE[:3, :3][:, index] * flips
    starts = np.where(np.array(flips) < 0, np.array(turned.shape) - 1, 0)
    affine[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, :3][:, index] @ starts
    found = finder.find(sg.Volume(np.ascontiguousarray(turned), sg.Grid(turned.shape, affine)))
    for name, centre_mm in centres_mm(labels).items():
        assert np.abs(np.array(found[name].centre_mm) - centre_mm).max() < 4.0


def test_what_is_cut_away_is_absent_and_what_is_left_is_found(finder: Finder) -> None:
    image, labels = head(102)
    volume = sg.Volume(image, sg.Grid(SHAPE, AFFINE))
    shift = AFFINE.copy()
    shift[0, 3] += 20 * SPACING_MM
    right = resample_volume(volume, sg.Grid((28, 56, 48), shift), outside=0.0)
    found = finder.find(right)
    assert found.keys() == {"right"}
    assert np.abs(np.array(found["right"].centre_mm) - centres_mm(labels)["right"]).max() < 4.0
    wide = AFFINE.copy()
    wide[:3, 3] -= 24 * SPACING_MM
    padded = resample_volume(volume, sg.Grid((96, 112, 96), wide), outside=0.0)
    for name, centre_mm in centres_mm(labels).items():
        assert np.abs(np.array(finder.find(padded)[name].centre_mm) - centre_mm).max() < 4.0


def test_of_two_heads_in_a_scan_one_is_taken_for_each_structure(finder: Finder) -> None:
    (first, labels), (second, others) = head(104), head(105)
    both = np.concatenate([first, np.zeros_like(first[:8]), second])
    found = finder.find(sg.Volume(both, sg.Grid(both.shape, AFFINE)))
    beside_mm = np.array([(SHAPE[0] + 8) * SPACING_MM, 0, 0])
    for name, centre_mm in centres_mm(labels).items():
        either = [centre_mm, centres_mm(others)[name] + beside_mm]
        assert min(np.abs(found[name].centre_mm - one).max() for one in either) < 6.0


def test_scan_far_larger_than_a_head_is_seen_in_blocks(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = head(106)
    monkeypatch.setattr(finder_model, "LARGEST_AT_ONCE", 24)
    found = finder.find(sg.Volume(image, sg.Grid(SHAPE, AFFINE)))
    for name, centre_mm in centres_mm(labels).items():
        assert np.abs(np.array(found[name].centre_mm) - centre_mm).max() < 6.0


def test_head_that_lacks_a_structure_has_none_of_it(finder: Finder) -> None:
    image, _ = head(103, both=False)
    assert finder.find(sg.Volume(image, sg.Grid(SHAPE, AFFINE))).keys() == {"left"}


def test_finder_has_a_coarse_space_of_its_own_and_the_cohort_keeps_its_own(heads: Dataset) -> None:
    settings = tiny(spacing_mm=4.0)
    cohort = cohort_of(heads, settings)
    space = finder_space(cohort, settings.finder)
    assert (space.spacing_mm, space.spatial_shape) == ((4.0, 4.0, 4.0), (24, 28, 24))
    assert cohort.space.spacing_mm == (2.0, 2.0, 2.0)
    fine = finder_space(cohort, tiny(spacing_mm=1.0).finder)
    assert fine.spacing_mm == (2.0, 2.0, 2.0)
    own = cohort.in_space(space, memory_limit_bytes=2**30)
    assert (own.train, own.validation) == (cohort.train, cohort.validation)
    stage = FinderStage(own, settings)
    counted = [(case.classes == 1).sum() * 64.0 for case in own.train_cases]
    assert stage.smallest_mm3[0] == min(counted)


def test_batches_depend_on_seed_and_iteration_alone_and_cuts_take_labels_along(
    heads: Dataset,
) -> None:
    settings = tiny()
    cohort = cohort_of(heads, settings)
    own = cohort.in_space(finder_space(cohort, settings.finder), memory_limit_bytes=2**30)
    framed = FramedCases(own.train_cases, divisor=4)
    batches, again = (FinderBatches(framed, settings) for _ in range(2))
    again[0]
    for first, second in zip(batches[3], again[3], strict=True):
        if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
            assert torch.equal(first, second)
    assert not torch.equal(batches[3].warps, batches[4].warps)
    views = draw_views(framed, [0], generator=torch.Generator().manual_seed(0))
    still = torch.eye(3, 4, dtype=torch.float64)[None]
    lost = torch.tensor([[[[0.5, 1.0], [0.0, 1.0], [0.0, 1.0]]]])
    images, classes = shown(views._replace(warps=still, lost=lost), spacing_mm=(4.0,) * 3)
    half = classes.shape[1] // 2
    assert (images[0, 0, half:] == images.min()).all()
    assert classes[0].unique().tolist() == [0, 1]
    assert (classes[0, half:] == 0).all()


def test_absent_structure_that_is_predicted_costs() -> None:
    classes = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    sure, wrong = (torch.zeros(1, 2, 8, 8, 8) for _ in range(2))
    sure[:, 0] = 15
    wrong[:, 0] = 15
    wrong[:, :, 2:5, 2:5, 2:5] = torch.tensor([0.0, 15.0])[None, :, None, None, None]
    assert float(finder_terms(sure, classes).dice) < 0.05
    assert float(finder_terms(wrong, classes).dice) > 0.9


class KilledError(Exception):
    pass


def test_killed_and_resumed_stage_ends_with_the_same_bits(heads: Dataset, tmp_path: Path) -> None:
    train_finder(heads, run_dir=tmp_path / "whole", settings=tiny(), progress=False)
    calls: list[int] = []

    def killing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KilledError
        return finder_terms(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder_stage, "finder_terms", killing)
        with pytest.raises(KilledError):
            train_finder(heads, run_dir=tmp_path / "killed", settings=tiny(), progress=False)
    assert not (tmp_path / "killed" / MODEL_FILE).exists()
    train_finder(heads, run_dir=tmp_path / "killed", settings=tiny(), progress=False)
    names = ("model.safetensors", MODEL_FILE)
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_damaged_or_foreign_model_is_refused_and_settings_without_iterations_too(
    heads: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"finder\.iterations is 0"):
        train_finder(heads, run_dir=tmp_path, settings=tiny(iterations=0), progress=False)
    train_finder(heads, run_dir=tmp_path, settings=tiny(iterations=1), progress=False)
    described = json.loads((tmp_path / MODEL_FILE).read_text())
    weights = tmp_path / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256"):
        load_finder(tmp_path)
    weights.write_bytes(kept)
    (tmp_path / MODEL_FILE).write_text(json.dumps({**described, "smallest_mm3": [1.0]}))
    with pytest.raises(CheckpointError, match="expected 2"):
        load_finder(tmp_path)
    (tmp_path / MODEL_FILE).write_text(json.dumps({**described, "kind": "restorer"}))
    with pytest.raises(CheckpointError, match="is not a FinderDescription"):
        load_finder(tmp_path)

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.errors import ConfigError
from shapeguide.training.cohort import Cohort, cohort_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape.mask_bank import mask_bank
from shapeguide.training.stages.segmentation_batches import SegmentationBatches
from shapeguide.training.stages.segmentation_step import SegmentationStep, shown_whole
from shapeguide.vocabulary import RegionChoice
from shapeguide.workflows.train import train

SHAPE = (80, 72, 64)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Heads of noise with two small structures, whose brightness says where they are."""
    folder = tmp_path_factory.mktemp("heads")
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for n in range(4):
        labels = np.zeros(SHAPE, np.uint8)
        i, j, k = 18 + n, 30 - n, 28
        labels[i : i + 10, j : j + 12, k : k + 8] = 1
        labels[i + 24 : i + 34, j : j + 12, k : k + 8] = 2
        image = random.normal(0, 1, SHAPE) + 100 * labels + np.arange(SHAPE[0])[:, None, None]
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"images/c{n}.nii")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / f"labels/c{n}.nii")
    return read_dataset(folder).with_structures(left=1, right=2)


def settings(region: RegionChoice = "auto", warped_share: float = 0.0) -> TrainSettings:
    plain = TrainSettings(guidance="none")
    return plain.changed(
        data=plain.data.changed(region=region, region_margin_mm=3.0),
        segmentation=plain.segmentation.changed(
            channels=(4, 8, 8),
            batch_size=2,
            warped_share=warped_share,
            elastic_mm=0.0,
            intensity_augmentation=False,
            scanner_faults=0.0,
        ),
    )


def batches_of(
    cohort: Cohort, chosen: TrainSettings
) -> tuple[SegmentationBatches, SegmentationStep]:
    batches = SegmentationBatches(cohort.train_cases, chosen)
    step = SegmentationStep(
        torch.nn.Identity(), cohort.space.spacing_mm, chosen, context=batches.context
    )
    return batches, step


@pytest.mark.parametrize("region", ["all", "structure"])
def test_batches_are_regions_laid_off_by_the_margin_at_most(
    dataset: Dataset, region: RegionChoice
) -> None:
    cohort = cohort_of(dataset, settings(region))
    assert cohort.regions is not None
    regions = len(cohort.regions.each)
    assert len(cohort.train_cases) == 4 * regions
    batches, step = batches_of(cohort, settings(region))
    seen = set()
    for iteration in range(6):
        images, classes = step.varied(batches[iteration])
        assert images.shape[2:] == classes.shape[1:] == cohort.space.spatial_shape
        for place, image, labels in zip(batches.order.of(iteration), images, classes, strict=True):
            item = cohort.train_cases[place]
            own = 1 + place % regions
            asked = [own] if region == "structure" else [1, 2]
            for index in asked:
                at = (labels == index).nonzero().float().mean(0).numpy()
                off = at - np.argwhere(item.classes == index).mean(axis=0)
                assert np.abs(off).max() <= 3
                assert int((labels == index).sum()) == 10 * 12 * 8  # whole
                seen.add(tuple(off.round().tolist()))
            # The image goes along.
            means = [float(image[0][labels == index].mean()) for index in (0, *asked)]
            assert means == sorted(means)
    assert len(seen) > 6


def test_a_batch_depends_on_seed_and_iteration_alone(dataset: Dataset) -> None:
    chosen = settings("all", warped_share=1.0)
    first, step = batches_of(cohort_of(dataset, chosen), chosen)
    second, _ = batches_of(cohort_of(dataset, chosen), chosen)
    _ = second[0]
    for one, other in zip(step.varied(first[3]), step.varied(second[3]), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[3].images, first[4].images)


def test_warps_bring_in_what_lies_around_the_region(dataset: Dataset) -> None:
    chosen = settings("all", warped_share=1.0)
    batches, step = batches_of(cohort_of(dataset, chosen), chosen)
    assert min(batches.context) >= 3
    batch = batches[1]
    images, _ = step.varied(batch)
    # The ramp along the first axis goes on to the border: nothing is repeated there.
    slope = images[:, 0, 1:, 4:-4, 4:-4].mean((2, 3)) - images[:, 0, :-1, 4:-4, 4:-4].mean((2, 3))
    assert (slope[:, :3] > 0).all()


def test_mirrored_regions_show_each_structure_on_its_side(dataset: Dataset) -> None:
    chosen = settings("all")
    mirrored = chosen.changed(segmentation=chosen.segmentation.changed(mirrored=True))
    cohort = cohort_of(dataset, chosen)
    plain, _ = batches_of(cohort, chosen)
    batches, step = batches_of(cohort, mirrored)
    turned = []
    for iteration in range(8):
        images, classes = step.varied(batches[iteration])
        for image, labels in zip(images, classes, strict=True):
            left, right = ((labels == index).nonzero().float().mean(0)[0] for index in (1, 2))
            assert left < right, "left lies where the first axis begins"
            assert int((labels == 1).sum()) == int((labels == 2).sum()) == 10 * 12 * 8
            # In these heads the right one is the brighter, and mirrored ones show that.
            turned.append(bool(image[0][labels == 1].mean() > image[0][labels == 2].mean()))
    assert 0 < sum(turned) < len(turned)
    assert plain.mirrored is None


def test_a_single_side_is_refused_before_anything_is_trained(
    dataset: Dataset, tmp_path: Path
) -> None:
    chosen = settings("all")
    chosen = chosen.changed(segmentation=chosen.segmentation.changed(mirrored=True))
    with pytest.raises(ConfigError, match="left as right, which is not among"):
        train(dataset.with_structures(left=1), out=tmp_path, settings=chosen, progress=False)
    assert not list(tmp_path.rglob("model.json"))


def test_the_shape_stage_sees_each_structure_whole(dataset: Dataset) -> None:
    for region in ("all", "structure"):
        chosen = settings(region)
        bank = mask_bank(cohort_of(dataset, chosen).train_cases, chosen)
        assert bank.masks.shape[:2] == (4, 2)
        assert bank.masks.flatten(2).sum(-1).unique().tolist() == [10 * 12 * 8]


def test_what_reaches_a_border_is_not_whole() -> None:
    classes = torch.zeros((2, 6, 6, 6), dtype=torch.uint8)
    classes[0, 2:4, 2:4, 2:4] = 1
    classes[0, 4:, 2:4, 2:4] = 2
    classes[1, 2:4, 2:4, :2] = 1
    assert shown_whole(classes, 3)[:, 1:].tolist() == [[True, False], [False, True]]


def test_scans_about_as_large_as_their_regions_are_worked_on_whole(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    wide = settings().changed(data=settings().data.changed(region="auto", region_margin_mm=20.0))
    with caplog.at_level("INFO"):
        cohort = cohort_of(dataset, wide)
    assert cohort.regions is None
    assert "so no finder is trained" in caplog.text
    stated = settings().changed(data=settings().data.changed(spatial_shape=(80, 72, 64)))
    assert cohort_of(dataset, stated).regions is None
    assert cohort_of(dataset, settings("none")).regions is None
    with pytest.raises(ConfigError, match="nothing is found"):
        cohort.found_by(None)  # type: ignore[arg-type]

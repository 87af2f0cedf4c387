"""The masks that the shape stage draws from: where they lie, and what they may take."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from shapeguide.data.case import Case
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import mask_bank
from shapeguide.training.shape.mask_bank import CROP_MARGIN_VOXELS
from shapeguide.vocabulary import Maps, Pose, WarpCentre

STRUCTURES = (Structure("a", (1,)), Structure("b", (2, 3)))
SHAPE = (24, 24, 24)


def prepared(folder: Path) -> PreparedCases:
    """Two cases: a box of 4 x 6 x 8 voxels, which the first one alone has, and one of 2 x 2 x 2."""
    cases = []
    for name in ("p", "q"):
        labels = np.zeros(SHAPE, np.uint8)
        if name == "p":
            labels[2:6, 3:9, 4:12] = 1
        labels[15:17, 15:17, 15:16] = 2
        labels[15:17, 15:17, 16:17] = 3
        for kind, data in (("image", labels.astype(np.float32)), ("label", labels)):
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{name}_{kind}.nii.gz")
        image, label_map = (folder / f"{name}_{kind}.nii.gz" for kind in ("image", "label"))
        cases.append(Case(name, image, label_map, structures=STRUCTURES))
    return PreparedCases(cases, WorkingSpace((1.0, 1.0, 1.0), (32, 32, 32)))


def settings(pose: Pose, limit_bytes: int = 2**30) -> TrainSettings:
    plain = TrainSettings()
    return plain.changed(
        shape=plain.shape.changed(pose=pose),
        data=plain.data.changed(memory_limit_gb=limit_bytes / 2**30),
    )


def test_masks_of_a_pose_lie_in_the_middle_of_a_common_box(tmp_path: Path) -> None:
    bank = mask_bank(prepared(tmp_path), settings("aligned"))
    # 4, 6 and 8 voxels times 1.35, rounded up, and the margin on either side.
    shape = tuple(length + 2 * CROP_MARGIN_VOXELS for length in (6, 9, 11))
    assert bank.masks.shape == (2, 2, *shape)
    assert bank.present().tolist() == [[True, True], [False, True]]
    found = np.argwhere(bank.masks[0, 0].numpy())
    assert found.min(0).tolist() == [7, 7, 7]
    assert found.max(0).tolist() == [10, 12, 14]
    assert len(found) == 4 * 6 * 8
    assert np.argwhere(bank.masks[1, 1].numpy()).min(0).tolist() == [8, 9, 10]
    assert bank.masks[1, 1].sum() == 8
    assert bank.limits.translation_mm == 0


def test_masks_of_the_grid_stay_where_they_are(tmp_path: Path) -> None:
    cases = prepared(tmp_path)
    bank = mask_bank(cases, settings("grid"))
    assert bank.limits.translation_mm > 0
    for n, case in enumerate(cases.label_maps()):
        for s in range(2):
            assert np.array_equal(bank.masks[n, s].numpy(), case.classes == s + 1)


@pytest.mark.parametrize("maps", ["clean", "binary"])
def test_structures_are_warped_about_themselves_where_the_settings_say_so(
    tmp_path: Path, maps: Maps
) -> None:
    """Both lie far from the middle of the grid, and from each other."""
    centres = {}
    both: tuple[WarpCentre, ...] = ("grid", "object")
    for centre in both:
        chosen = settings("grid")
        limits = WarpLimits(rotation_deg=30, scale=(1, 1), translation_mm=0, centre=centre)
        bank = mask_bank(prepared(tmp_path), chosen.changed(warp=limits))
        generator = torch.Generator().manual_seed(0)
        masks = bank.masks[:1].expand(8, -1, -1, -1, -1)
        seen = bank.seen(masks, maps=maps, generator=generator)
        assert seen.shape == masks.shape
        centres[centre] = (middles_of(masks) - middles_of(seen)).norm(dim=-1)
    assert float(centres["object"].max()) < 0.75
    assert float(centres["grid"].max(0).values.min()) > 3


def middles_of(masks: torch.Tensor) -> torch.Tensor:
    """Centres of mass of each mask, in voxels, shape (B, S, 3)."""
    axes = [torch.arange(length, dtype=torch.float32) for length in masks.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    weighted = masks[..., None].float() * places
    return weighted.sum((2, 3, 4)) / masks.float().sum((2, 3, 4))[..., None]


@pytest.mark.parametrize(
    ("pose", "needed"), [("grid", 2 * 2 * 32**3), ("aligned", 2 * 2 * 18 * 21 * 23)]
)
def test_masks_that_take_more_than_the_limit_are_refused_before_they_do(
    tmp_path: Path, pose: Pose, needed: int
) -> None:
    cases = prepared(tmp_path)
    assert mask_bank(cases, settings(pose, needed)).masks.numel() == needed
    with pytest.raises(ConfigError, match=r"2 cases and 2 structures.*raise data\.memory_limit_gb"):
        mask_bank(cases, settings(pose, needed - 1))

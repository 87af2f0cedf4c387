"""The masks that the shape stage draws from: where they lie, and what they may take."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shapeguide.data.case import Case
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import mask_bank
from shapeguide.training.shape.mask_bank import CROP_MARGIN_VOXELS
from shapeguide.vocabulary import Pose

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

"""Grown ventricles push aside what lies beside them, in image and label map, and are dark."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from aged_heads import LATERAL, aged

CAUDATE = 36
DARK, GREY, BRIGHT = 10.0, 60.0, 100.0


def head_with_a_slit() -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """A ventricle three voxels wide, and a block of grey on one side of it."""
    ids = np.zeros((40, 40, 40), np.uint8)
    ids[19:22, 10:30, 10:30] = LATERAL[0]
    ids[22:28, 14:26, 14:26] = CAUDATE
    image = np.full(ids.shape, BRIGHT, np.float32)
    image[ids == LATERAL[0]] = DARK
    image[ids == CAUDATE] = GREY
    return nib.Nifti1Image(image, np.eye(4)), nib.Nifti1Image(ids, np.eye(4))


def test_the_ventricle_grows_to_both_sides_and_its_neighbour_moves_away() -> None:
    image, labels = head_with_a_slit()
    seen, found = (
        np.asarray(volume.dataobj) for volume in aged(image, labels, amount_mm=4.0, kept=(CAUDATE,))
    )
    line = slice(None), 20, 20
    dark = np.flatnonzero(seen[line] < (DARK + GREY) / 2)
    assert 13 <= dark[0] <= 17
    assert 23 <= dark[-1] <= 27
    # It is as dark as it was, all through.
    np.testing.assert_allclose(seen[line][dark[1:-1]], DARK, atol=2)
    block = np.flatnonzero(found[line] == CAUDATE)
    assert block[0] == dark[-1] + 1
    assert block[-1] > 28
    assert set(np.unique(found)) == {0, CAUDATE}
    np.testing.assert_allclose(seen[found == CAUDATE].mean(), GREY, atol=6)


def test_a_head_that_does_not_age_stays() -> None:
    image, labels = head_with_a_slit()
    seen, found = aged(image, labels, amount_mm=0.0, kept=(CAUDATE, *LATERAL))
    np.testing.assert_array_equal(seen.get_fdata(), image.get_fdata())
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(labels.dataobj))

"""Heads with skull and all, made of label maps: scans that are not skull-stripped, with labels.

    python benchmarks/synthetic_heads.py LABEL_MAPS OUT

LABEL_MAPS is a folder of label maps of whole heads in which the skull and what is around it have
label ids too. Each becomes one scan: every label id has a brightness of its own, those of the brain
in the order of a T1 image, all others drawn at random; then come a coil's uneven gain, blur and
noise. OUT is a dataset with a split, for `shapeguide train OUT --split OUT/split.json` and for
`benchmarks/finder.py OUT ... --split OUT/split.json`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import ndimage

import shapeguide as sg
from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.storage.whole import write_json

T1_BRIGHTNESS = {
    **dict.fromkeys((2, 41, 7, 46, 16, 28, 60), 1.0),  # white matter, brain stem
    **dict.fromkeys((3, 42, 8, 47, 17, 53, 18, 54, 11, 50, 26, 58), 0.68),  # cortex, deep grey
    **dict.fromkeys((10, 49, 12, 51), 0.78),
    **dict.fromkeys((13, 52), 0.9),
    **dict.fromkeys((4, 43, 5, 44, 14, 15, 24), 0.2),  # ventricles and fluid
}
"""How bright a T1 image shows what FreeSurfer gives these label ids, white matter being 1."""
SPREAD = 0.04
OTHERS = (0.05, 1.3)
"""Least and greatest brightness of everything else, which lies outside the brain."""
GAIN_SD = 0.15
BLUR_VOXELS = (0.4, 0.9)
NOISE = (0.02, 0.05)
SCALE = 1000.0


def main(
    label_maps: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    test_count: int = 5,
    seed: int = 0,
) -> None:
    """Write a dataset of scans that are made of label maps.

    Args:
        label_maps: Folder of label maps.
        out: Folder to write.
        test_count: How many of them, the last by name, are the test side of the split.
        seed: Of all that is drawn.
    """
    files = list_scans(label_maps)
    ids = [case_id_of(path) for path in files]
    for number, (case, path) in enumerate(zip(ids, files, strict=True)):
        labels = sg.read_label_map(path)
        image = head_of(labels.data, np.random.default_rng([seed, number]))
        sg.write_volume(sg.Volume(image, labels.grid), out / "images" / f"{case}.nii.gz")
        sg.write_label_map(labels, out / "labels" / f"{case}.nii.gz")
    write_json(out / "split.json", {"train": ids[:-test_count], "test": ids[-test_count:]})


def head_of(labels: NDArray[np.integer], drawn: np.random.Generator) -> NDArray[np.float32]:
    """A scan of label ids (I, J, K); 0 is air."""
    ids, places = np.unique(labels, return_inverse=True)
    brightness = [
        0.0 if label_id == 0 else T1_BRIGHTNESS.get(int(label_id), drawn.uniform(*OTHERS))
        for label_id in ids
    ]
    means = np.array(brightness) + drawn.normal(0, SPREAD, len(ids)) * (ids > 0)
    image = means[places].reshape(labels.shape)
    image += image * drawn.normal(0, SPREAD, labels.shape)
    coarse = drawn.normal(0, GAIN_SD, (4, 4, 4))
    zoom = [length / 4 for length in labels.shape]
    gain = np.exp(ndimage.zoom(coarse, zoom, order=3))
    image = ndimage.gaussian_filter(image * gain, drawn.uniform(*BLUR_VOXELS))
    # Noise of a magnitude image: air is never below 0.
    level = drawn.uniform(*NOISE)
    real, imaginary = (drawn.normal(0, level, labels.shape) for _ in range(2))
    noisy = np.hypot(image + real, imaginary)
    return np.asarray(SCALE * noisy, dtype=np.float32)


if __name__ == "__main__":
    tyro.cli(main)

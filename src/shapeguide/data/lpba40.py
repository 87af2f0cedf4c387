"""The LPBA40 folder as LONI hands it out: 40 persons, 56 structures, Analyze files.

Analyze states no orientation. In all 40 label maps of the delineation space the odd codes, which
stand for the left side, lie at the lower first index, so the first index grows to the right; that
is what the "R" of the stated orientation rests on. That the other two axes grow to anterior and
superior is the convention of the software that wrote the files. Another orientation can be stated
when the dataset is read, also for NIfTI copies whose headers claim the opposite.

The scans are stacks of 120 or 124 coronal slices of 256 by 256 voxels, so what papers call a crop
of 256 x 256 x 128 has its 128 voxels along the second axis: 256 x 128 x 256 along R, A, S.

Label maps are of the delineation space only. The skull-stripped scans of that space lie on them
voxel by voxel; how the native scans lie is in `transforms/*.delineation.to.native.air` beside each.
No copy of the download was at hand to try these files on: their meaning is taken from the
documentation of the program that writes them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from shapeguide.data.air_transforms import read_air
from shapeguide.data.description import described_as
from shapeguide.data.nifti import read_grid
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import PAIR_HEADERS, list_scans, stated_path
from shapeguide.errors import DataError

logger = logging.getLogger(__name__)

ORIENTATION = "RAS"
DELINEATION, NATIVE = "delineation_space", "native_space"
LABELS = "delineation.structure.label"
TRANSFORM = "delineation.to.native.air"
BOTH_SIDES = {
    21: "superior frontal gyrus",
    23: "middle frontal gyrus",
    25: "inferior frontal gyrus",
    27: "precentral gyrus",
    29: "middle orbitofrontal gyrus",
    31: "lateral orbitofrontal gyrus",
    33: "gyrus rectus",
    41: "postcentral gyrus",
    43: "superior parietal gyrus",
    45: "supramarginal gyrus",
    47: "angular gyrus",
    49: "precuneus",
    61: "superior occipital gyrus",
    63: "middle occipital gyrus",
    65: "inferior occipital gyrus",
    67: "cuneus",
    81: "superior temporal gyrus",
    83: "middle temporal gyrus",
    85: "inferior temporal gyrus",
    87: "parahippocampal gyrus",
    89: "lingual gyrus",
    91: "fusiform gyrus",
    101: "insular cortex",
    121: "cingulate gyrus",
    161: "caudate",
    163: "putamen",
    165: "hippocampus",
}
"""The odd code is the left side, the next even one the right."""
MIDLINE = {181: "cerebellum", 182: "brainstem"}


def label_names() -> dict[str, str]:
    """Label id to name of the 56 structures."""
    names = {str(code): f"left {name}" for code, name in BOTH_SIDES.items()}
    names |= {str(code + 1): f"right {name}" for code, name in BOTH_SIDES.items()}
    return names | {str(code): name for code, name in MIDLINE.items()}


def describe_lpba40(reach: Reach) -> dict[str, Any] | None:
    """Description of an LPBA40 folder, or None if it is not one.

    For training are the skull-stripped scans of the delineation space; the native scans are then
    without label maps. Where the folder of the native space is given itself, or the delineation
    space holds label maps only, the native scans are for training, with those label maps.

    Args:
        reach: Its folder holds `delineation_space` and `native_space`, or is one of the two.

    Raises:
        DataError: If a person has only one of image and label map, or a transform is unusable.
    """
    folder = reach.folder
    chosen = folder.resolve().name
    inside = chosen in (DELINEATION, NATIVE) and bool(_people(folder))
    root = folder / ".." if inside else folder
    delineated, native = _people(root / DELINEATION), _people(root / NATIVE)
    if not delineated and not native:
        return None
    stripped = any(_scan(person, "delineation.skullstripped") for person in delineated)
    if native and (chosen == NATIVE or (delineated and not stripped)):
        training, test = _native_cases(Reach(root, reach.allow_outside), native, delineated)
    else:
        training = [_delineated_case(root, person) for person in delineated]
        test = [] if chosen == DELINEATION else _unlabelled(root, native)
    described = described_as("LPBA40", label_names(), training, test)
    return {**described, "root": ".."} if inside else described


def _delineated_case(root: Path, person: Path) -> dict[str, Any]:
    image = _scan(person, "delineation.skullstripped")
    label_map = _scan(person, LABELS)
    if image is None or label_map is None:
        raise DataError(
            f"{person}: expected {person.name}.delineation.skullstripped and "
            f"{person.name}.{LABELS}, each as .hdr and .img or .img.gz"
        )
    return {**_entry(root, person.name, image), "label": stated_path(root, label_map)}


def _unlabelled(root: Path, native: list[Path]) -> list[dict[str, Any]]:
    scans = [(person.name, _scan(person, "native.mri")) for person in native]
    return [
        {**_entry(root, name, image), "id": f"{name}_native"}
        for name, image in scans
        if image is not None
    ]


def _native_cases(
    reach: Reach, native: list[Path], delineated: list[Path]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Native scans with label maps of the delineation space, and those without."""
    root = reach.folder
    label_maps = {person.name: _scan(person, LABELS) for person in delineated}
    lone = sorted({name for name, found in label_maps.items() if found} - {p.name for p in native})
    if lone:
        raise DataError(
            f"{root / NATIVE}: expected {lone[0]}/{lone[0]}.native.mri beside its label map, found "
            "none; copy it from the download"
        )
    training = []
    for person in native:
        image, label_map = _scan(person, "native.mri"), label_maps.get(person.name)
        if label_map is None:
            continue
        if image is None:
            raise DataError(
                f"{person}: expected {person.name}.native.mri as .hdr and .img or .img.gz"
            )
        training.append(
            {
                **_entry(root, person.name, image),
                "label": stated_path(root, label_map),
                "label_to_image": _label_to_image(reach, person, image, label_map),
            }
        )
    labelled = {entry["group"] for entry in training}
    return training, _unlabelled(root, [person for person in native if person.name not in labelled])


def _label_to_image(reach: Reach, person: Path, image: Path, label_map: Path) -> list[list[float]]:
    """Voxel index of the label map to voxel index of the native scan, (4, 4)."""
    reach.check(image, label_map)
    shapes = tuple(
        read_grid(path, orientation=ORIENTATION).spatial_shape for path in (image, label_map)
    )
    names = (f"transforms/{person.name}.{TRANSFORM}", f"{person.name}.{TRANSFORM}")
    path = next((person / name for name in names if (person / name).is_file()), None)
    if path is None:
        if shapes[0] != shapes[1]:
            raise DataError(
                f"{person}: the native scan has shape {shapes[0]}, its label map {shapes[1]}, and "
                f"{names[0]} is not there to say how they lie; copy it from the download"
            )
        logger.warning(
            "%s: %s is not there; the label map is taken to lie on the native scan voxel by voxel",
            *(person, names[0]),
        )
        return [[float(value) for value in row] for row in np.eye(4)]
    # Applied to scans of the delineation space, it gives scans of the native space.
    reach.check(path)
    transform = read_air(path)
    stated = (transform.standard_shape, transform.reslice_shape)
    if stated != shapes:
        raise DataError(
            f"{path}: this transform is of scans of shapes {stated[0]} and {stated[1]}; the "
            f"scan and the label map beside it have {shapes[0]} and {shapes[1]}; copy them again"
        )
    return [[float(value) for value in row] for row in np.linalg.inv(transform.to_reslice)]


def _people(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("S*") if path.is_dir())


def _scan(person: Path, kind: str) -> Path | None:
    stem = f"{person.name}.{kind}."
    found = [path for path in list_scans(person) if path.name.startswith(stem)]
    return found[0] if found else None


def _entry(root: Path, person: str, image: Path) -> dict[str, Any]:
    entry = {"id": person, "image": stated_path(root, image), "group": person}
    if image.name.lower().endswith(PAIR_HEADERS):
        entry["orientation"] = ORIENTATION
    return entry

"""The LPBA40 folder as LONI hands it out: 40 persons, 56 structures, Analyze files.

Analyze states no orientation. In all 40 label maps of the delineation space the odd codes, which
stand for the left side, lie at the lower first index, so the first index grows to the right; that
is what the "R" of the stated orientation rests on. That the other two axes grow to anterior and
superior is the convention of the software that wrote the files. Another orientation can be stated
when the dataset is read, also for NIfTI copies whose headers claim the opposite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shapeguide.data.description import described_as
from shapeguide.data.headers import PAIR_HEADERS, list_scans
from shapeguide.errors import DataError

ORIENTATION = "RAS"
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


def describe_lpba40(folder: Path) -> dict[str, Any] | None:
    """Description of an LPBA40 folder, or None if it is not one.

    Scans of the delineation space are for training, those of the native space have no label maps.

    Raises:
        DataError: If a person has only one of image and label map.
    """
    delineated = folder / "delineation_space"
    native = folder / "native_space"
    if not delineated.is_dir() and not native.is_dir():
        return None
    training = []
    for person in _people(delineated):
        image = _scan(person, "delineation.skullstripped")
        label_map = _scan(person, "delineation.structure.label")
        if image is None or label_map is None:
            raise DataError(
                f"{person}: expected {person.name}.delineation.skullstripped and "
                f"{person.name}.delineation.structure.label, each as .hdr and .img or .img.gz"
            )
        training.append(
            {**_entry(folder, person, person.name, image), "label": _relative(folder, label_map)}
        )
    scans = [(person, _scan(person, "native.mri")) for person in _people(native)]
    test = [
        _entry(folder, person, f"{person.name}_native", image)
        for person, image in scans
        if image is not None
    ]
    return described_as("LPBA40", label_names(), training, test)


def _people(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("S*") if path.is_dir())


def _scan(person: Path, kind: str) -> Path | None:
    stem = f"{person.name}.{kind}."
    found = [path for path in list_scans(person) if path.name.startswith(stem)]
    return found[0] if found else None


def _entry(folder: Path, person: Path, case_id: str, image: Path) -> dict[str, str]:
    entry = {"id": case_id, "image": _relative(folder, image), "group": person.name}
    if image.name.lower().endswith(PAIR_HEADERS):
        entry["orientation"] = ORIENTATION
    return entry


def _relative(folder: Path, path: Path) -> str:
    return f"./{path.relative_to(folder).as_posix()}"

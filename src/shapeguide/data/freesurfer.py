"""Subjects of FreeSurfer: `*/mri/T1.mgz` with `*/mri/aseg.mgz`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shapeguide.data.description import OTHER_LABELS, described_as
from shapeguide.data.file_choice import FileChoice
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import has_scan_name, stated_image, stated_path
from shapeguide.errors import DataError
from shapeguide.storage.names import few

logger = logging.getLogger(__name__)

IMAGE, LABEL_MAP = "T1.mgz", "aseg.mgz"
AVERAGES = "fsaverage"
"""How the subjects begin that are nobody, but come with the program."""
LONGITUDINAL = re.compile(r"(?P<scan>.+)\.long\.(?P<person>.+)")
"""A scan that was processed again from the template of its person."""
BIDS_PERSON = re.compile(r"sub-[A-Za-z0-9]+")

BOTH_SIDES = {
    (2, 41): "Cerebral-White-Matter",
    (3, 42): "Cerebral-Cortex",
    (4, 43): "Lateral-Ventricle",
    (5, 44): "Inf-Lat-Vent",
    (7, 46): "Cerebellum-White-Matter",
    (8, 47): "Cerebellum-Cortex",
    (10, 49): "Thalamus",
    (11, 50): "Caudate",
    (12, 51): "Putamen",
    (13, 52): "Pallidum",
    (17, 53): "Hippocampus",
    (18, 54): "Amygdala",
    (26, 58): "Accumbens-area",
    (28, 60): "VentralDC",
    (30, 62): "vessel",
    (31, 63): "choroid-plexus",
    (78, 79): "WM-hypointensities",
    (81, 82): "non-WM-hypointensities",
}
"""Label ids of the left and the right side."""
MIDLINE = {
    14: "3rd-Ventricle",
    15: "4th-Ventricle",
    16: "Brain-Stem",
    24: "CSF",
    72: "5th-Ventricle",
    77: "WM-hypointensities",
    80: "non-WM-hypointensities",
    85: "Optic-Chiasm",
    251: "CC_Posterior",
    252: "CC_Mid_Posterior",
    253: "CC_Central",
    254: "CC_Mid_Anterior",
    255: "CC_Anterior",
}
CORTEX = (
    *("unknown", "bankssts", "caudalanteriorcingulate", "caudalmiddlefrontal", "corpuscallosum"),
    *("cuneus", "entorhinal", "fusiform", "inferiorparietal", "inferiortemporal"),
    *("isthmuscingulate", "lateraloccipital", "lateralorbitofrontal", "lingual"),
    *("medialorbitofrontal", "middletemporal", "parahippocampal", "paracentral"),
    *("parsopercularis", "parsorbitalis", "parstriangularis", "pericalcarine", "postcentral"),
    *("posteriorcingulate", "precentral", "precuneus", "rostralanteriorcingulate"),
    *("rostralmiddlefrontal", "superiorfrontal", "superiorparietal", "superiortemporal"),
    *("supramarginal", "frontalpole", "temporalpole", "transversetemporal", "insula"),
)
"""Parts of the cortex in `aparc+aseg.mgz`: from 1000 on the left, from 2000 on the right."""


def label_names() -> dict[str, str]:
    """Label id to name of the common labels, as the colour table of FreeSurfer spells them.

    Files of FreeSurfer may hold many more, which the description lets them.
    """
    names = {
        label_id: f"{side}-{name}"
        for ids, name in BOTH_SIDES.items()
        for label_id, side in zip(ids, ("Left", "Right"), strict=True)
    }
    for first, side in ((1000, "lh"), (2000, "rh")):
        names |= {first + place: f"ctx-{side}-{name}" for place, name in enumerate(CORTEX)}
    return {str(label_id): name for label_id, name in sorted({**names, **MIDLINE}.items())}


def describe_freesurfer(reach: Reach, choice: FileChoice) -> dict[str, Any] | None:
    """Description of a folder of subjects of FreeSurfer, or None if it is not one.

    Of a person that was processed longitudinally, the `.long.` scans are taken and neither the
    template nor the first processing of the same scans. Scans of `sub-01_...` are of one person.

    Args:
        reach: Its folder holds the subjects.
        choice: May name other files of `mri/`, such as `norm.mgz` and `aparc+aseg.mgz`.

    Raises:
        DataError: If no subject has all files, or one has some of them and not all images.
    """
    folder = reach.folder
    subjects = sorted(path.parent for path in folder.glob("*/mri") if path.is_dir())
    subjects = [path for path in subjects if not path.name.startswith((AVERAGES, "."))]
    if not any(next(subject.glob("mri/*.mg[zh]"), None) for subject in subjects):
        return None
    channels = choice.channels or {"": IMAGE}
    images, label_map = (
        [_file(word) for word in channels.values()],
        _file(choice.labels or LABEL_MAP),
    )
    people = _people([subject.name for subject in subjects])
    training, test = [], []
    for subject in subjects:
        mri = subject / "mri"
        present = [name for name in images if (mri / name).is_file()]
        labelled = (mri / label_map).is_file()
        if subject.name not in people or not (present or labelled):
            continue
        if len(present) < len(images):
            lacking = next(name for name in images if name not in present)
            raise DataError(
                f"{subject}: expected mri/{lacking} beside mri/{(present or [label_map])[0]}, "
                "found none; finish its processing, or choose other images, such as --images "
                "norm.mgz"
            )
        image = stated_image(folder, [mri / name for name in images])
        entry = {"id": subject.name, "image": image, "group": people[subject.name]}
        if labelled:
            training.append({**entry, "label": stated_path(folder, mri / label_map)})
        else:
            test.append(entry)
    if not training:
        raise DataError(
            f"{folder}: none of the {len(subjects)} subjects of FreeSurfer has mri/{images[0]} and "
            f"mri/{label_map}; there are {_present(subjects[0])}; choose by --images and --labels"
        )
    names = channels if choice.images else ()
    content = described_as(folder.resolve().name, label_names(), training, test, channels=names)
    return {**content, OTHER_LABELS: True}


def _file(name: str) -> str:
    return name if has_scan_name(Path(name)) else f"{name}.mgz"


def _people(subjects: Iterable[str]) -> dict[str, str]:
    """Subject to person, without those that are there once more as a longitudinal scan."""
    again = [found for name in subjects if (found := LONGITUDINAL.fullmatch(name))]
    left_out = {found[part] for found in again for part in ("scan", "person")}
    left_out &= {*subjects}
    if left_out:
        logger.info(
            "left out are templates and scans that were processed again longitudinally: %s",
            few(sorted(left_out)),
        )
    persons = {found.group(): found["person"] for found in again}
    people = {name: persons.get(name, name) for name in subjects if name not in left_out}
    for name, person in people.items():
        stated = BIDS_PERSON.match(person)
        people[name] = stated.group() if stated else person
    return people


def _present(subject: Path) -> str:
    return few(sorted(path.name for path in subject.glob("mri/*.mg[zh]"))) + f" in {subject.name}"

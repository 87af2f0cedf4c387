"""Case ids of the scans in a folder: their names, without the channel number of nnU-Net."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.errors import DataError
from shapeguide.storage.names import shown
from shapeguide.storage.whole import read_json

FIRST_CHANNEL = "_0000"
CHANNEL = re.compile(r"(.+)_(\d{4})")
NNUNET_FOLDER = re.compile(r"images(Tr|Ts|Val)?")


def scans_by_case(folder: Path, *, ending: str = "") -> dict[str, Path]:
    """Case id to scan for the scans in a folder, by name.

    In a folder of images in the layout of nnU-Net the names end in the number of the channel, and
    its label maps go without: `case_0000.nii.gz` is the case `case` there. A folder has that layout
    if all of its scans end in `_0000`, or if a `dataset.json` beside it has "channel_names".

    Args:
        folder: A folder of scans.
        ending: What the names must end in, such as `.nii.gz`.

    Raises:
        DataError: If cases have several channels, two scans one case id, or another ending.
    """
    scans = list_scans(folder)
    stems = [case_id_of(scan) for scan in scans]
    layout = _is_beside_channel_names(folder)
    _refuse_channels(folder, stems, known=layout)
    odd = [scan for scan, stem in zip(scans, stems, strict=True) if not _is_first(stem)]
    if scans and not odd:
        return by_id(scans, lambda scan: case_id_of(scan)[: -len(FIRST_CHANNEL)], ending=ending)
    if layout and odd:
        raise DataError(
            f"{odd[0]}: beside an nnU-Net dataset.json, expected names that end in "
            f"{FIRST_CHANNEL}; rename the scan, or move it elsewhere"
        )
    return by_id(scans, case_id_of, ending=ending)


def case_id_in_folder(scan: Path) -> str:
    """Case id of one scan, by the layout of the folder that it lies in.

    Raises:
        DataError: If the folder cannot be told apart into cases, see `scans_by_case`.
    """
    if scan.is_file():
        for case_id, path in scans_by_case(scan.parent).items():
            if path.name == scan.name:
                return case_id
    return case_id_of(scan)


def by_id(
    scans: Iterable[Path], id_of: Callable[[Path], str], *, ending: str = ""
) -> dict[str, Path]:
    """Case id to scan.

    Raises:
        DataError: If two scans have one case id, or a name has another ending.
    """
    found: dict[str, Path] = {}
    for scan in scans:
        if not scan.name.endswith(ending):
            raise DataError(
                f"{scan}: expected names that end in {shown(ending)}; convert or rename it"
            )
        case_id = id_of(scan)
        if case_id in found:
            raise DataError(f"case ids must differ: {found[case_id]} and {scan}; remove one")
        found[case_id] = scan
    return found


def _is_first(stem: str) -> bool:
    return stem.endswith(FIRST_CHANNEL) and stem != FIRST_CHANNEL


def _refuse_channels(folder: Path, stems: list[str], *, known: bool) -> None:
    """Refuse cases of several channels; numbered scans of one name are none unless it is known."""
    matches = [match for stem in stems if (match := CHANNEL.fullmatch(stem))]
    channels = Counter(match.group(1) for match in matches)
    several = sorted(name for name, count in channels.items() if count > 1)
    first = {match.group(1) for match in matches if match.group(2) == FIRST_CHANNEL[1:]}
    alike = len(matches) == len(stems) and len(channels) > 1 and first == set(channels)
    if several and (known or alike):
        raise DataError(
            f"{folder}: {several[0]} has {channels[several[0]]} channels, and only one channel can "
            f"be read; keep the scans that end in {FIRST_CHANNEL}, or those of another channel "
            "under that name, in a folder of their own"
        )


def _is_beside_channel_names(folder: Path) -> bool:
    """Whether the folder is one of images of an nnU-Net dataset."""
    path = folder.resolve().parent / "dataset.json"
    if not NNUNET_FOLDER.fullmatch(folder.resolve().name) or not path.is_file():
        return False
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and "channel_names" in content

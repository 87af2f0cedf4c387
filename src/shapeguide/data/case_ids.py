"""Cases of the scans in a folder: their names, without the channel number of nnU-Net."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.errors import DataError
from shapeguide.storage.names import few, shown
from shapeguide.storage.whole import read_json

FIRST_CHANNEL = "_0000"
CHANNEL = re.compile(r"(.+)_(\d{4})")
NNUNET_FOLDER = re.compile(r"images(Tr|Ts|Val)?")


def scans_by_case(
    folder: Path, *, ending: str = "", count: int | None = None
) -> dict[str, tuple[Path, ...]]:
    """Case id to its scans in a folder, by name: one, or one for each channel in their order.

    In a folder of images in the layout of nnU-Net the names end in the number of the channel, and
    its label maps go without: `case_0000.nii.gz` is the first channel of the case `case` there. A
    folder has that layout if a `dataset.json` beside it has "channel_names"; if all of its scans
    end in `_0000`; or if all of several cases have that one and more.

    Args:
        folder: A folder of scans.
        ending: What the names must end in, such as `.nii.gz`.
        count: How many channels the cases are known to have; several are then found of one case
            too.

    Raises:
        DataError: If a case lacks a channel or has too many, two scans have one case id, or a name
            has another ending.
    """
    scans = list_scans(folder)
    numbered = {scan: match for scan in scans if (match := CHANNEL.fullmatch(case_id_of(scan)))}
    names = _channel_names_beside(folder)
    odd = [scan for scan in scans if scan not in numbered]
    if names and odd:
        raise DataError(
            f"{odd[0]}: beside an nnU-Net dataset.json, expected names that end in "
            f"{FIRST_CHANNEL}; rename the scan, or move it elsewhere"
        )
    found = {scan.name: (match[1], int(match[2])) for scan, match in numbered.items()}
    if not scans or (not names and (odd or not _are_channels([*found.values()], count))):
        return {
            case_id: (scan,) for case_id, scan in by_id(scans, case_id_of, ending=ending).items()
        }
    names = names or [f"{n:04}" for n in range(1 + max(n for _, n in found.values()))]
    by_channel = [
        by_id([scan for scan in scans if found[scan.name][1] == n], _id_of_channel, ending=ending)
        for n in range(len(names))
    ]
    _check_channels(folder, [*found.values()], names)
    return {case_id: tuple(part[case_id] for part in by_channel) for case_id in by_channel[0]}


def case_in_folder(scan: Path, *, count: int | None = None) -> tuple[str, tuple[Path, ...]]:
    """Case id and scans of the case of one scan, by the layout of the folder that it lies in.

    Args:
        scan: One of its scans.
        count: How many channels the case is known to have.

    Raises:
        DataError: If the folder cannot be told apart into cases, see `scans_by_case`.
    """
    if scan.is_file():
        for case_id, paths in scans_by_case(scan.parent, count=count).items():
            if scan.name in [path.name for path in paths]:
                return case_id, paths
    return case_id_of(scan), (scan,)


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


def _id_of_channel(scan: Path) -> str:
    return case_id_of(scan)[: -len(FIRST_CHANNEL)]


def _are_channels(found: Sequence[tuple[str, int]], count: int | None) -> bool:
    """Whether names and numbers are those of cases and channels, of which no description tells."""
    cases = {name for name, _ in found}
    if cases != {name for name, number in found if number == 0}:
        return False
    several = len(found) > len(cases)
    return not several or len(cases) > 1 or len(found) == count


def _check_channels(folder: Path, found: Sequence[tuple[str, int]], names: Sequence[str]) -> None:
    """Refuse cases that have not exactly these channels."""
    for case_id in sorted({name for name, _ in found}):
        numbers = {number for name, number in found if name == case_id}
        lacking = sorted({*range(len(names))} - numbers)
        if lacking:
            raise DataError(
                f"{folder}: {case_id} has no channel {names[lacking[0]]}; expected a scan named "
                f"{case_id}_{lacking[0]:04} beside its others"
            )
        if max(numbers) >= len(names):
            raise DataError(
                f"{folder}: {case_id} has {len(numbers)} channels, and its dataset.json names "
                f"{len(names)}: {few(list(names))}; name the others there or move them elsewhere"
            )


def _channel_names_beside(folder: Path) -> list[str]:
    """Channels of the nnU-Net dataset of whose images the folder holds some; else nothing."""
    path = folder.resolve().parent / "dataset.json"
    if not NNUNET_FOLDER.fullmatch(folder.resolve().name) or not path.is_file():
        return []
    try:
        content = read_json(path)
    except DataError:
        return []
    names = content.get("channel_names") if isinstance(content, dict) else None
    return list(map(str, names.values())) if isinstance(names, dict) else []

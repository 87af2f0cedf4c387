"""The files of a scan: their names, and their bytes whether gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from shapeguide.errors import DataError, reason
from shapeguide.storage.names import shown_path

PAIR_HEADERS = (".hdr", ".hdr.gz")
PAIR_VOXELS = (".img", ".img.gz")
SUFFIXES = (".nii", ".nii.gz", *PAIR_HEADERS, *PAIR_VOXELS, ".mgz", ".mgh", ".mgh.gz")


def case_id_of(path: Path) -> str:
    """File name without the suffix of a scan: `case_1.nii.gz` gives `case_1`.

    Raises:
        DataError: If the name is not that of a scan.
    """
    return path.name[: len(path.name) - len(scan_suffix(path))]


def list_scans(folder: Path) -> list[Path]:
    """Scans in a folder by name, a pair of files once; the hidden `._` files of macOS are none."""
    return scans_among(path for path in folder.iterdir() if path.is_file())


def scans_among(paths: Iterable[Path]) -> list[Path]:
    """The paths that are named like scans, in order, a pair of files once by its header."""
    scans = sorted(path for path in paths if has_scan_name(path))
    pairs = {stem_of(path) for path in scans if path.name.lower().endswith(PAIR_HEADERS)}
    return [
        path
        for path in scans
        if not (path.name.lower().endswith(PAIR_VOXELS) and stem_of(path) in pairs)
    ]


def has_scan_name(path: Path) -> bool:
    """Whether a file is named like a scan, and not hidden."""
    return path.name.lower().endswith(SUFFIXES) and path.name[0] != "."


def stem_of(path: Path) -> Path:
    """The path of a scan without its suffix."""
    return path.with_name(case_id_of(path))


def stored_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the scan: one, or the header and the voxels of a pair.

    Raises:
        DataError: If one is missing, or the name is not that of a scan.
    """
    suffix = scan_suffix(path)
    if suffix not in PAIR_HEADERS + PAIR_VOXELS:
        if not path.is_file():
            raise DataError(f"{shown_path(path)}: there is no such file")
        return (path,)
    base = path.name[: len(path.name) - len(suffix)]
    return _half(path, base, PAIR_HEADERS), _half(path, base, PAIR_VOXELS)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """The bytes of a file, unpacked if it is gzipped whatever its name says.

    Raises:
        DataError: If it cannot be read, or the block meets damaged or missing bytes.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read, it is damaged or cut short ({reason(error)}); copy or export "
            "it again"
        ) from error


def scan_suffix(path: Path) -> str:
    """Suffix of a scan's name in lower case, such as `.nii.gz`.

    Raises:
        DataError: If the name is not that of a scan.
    """
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise DataError(f"{shown_path(path)}: not the name of a scan; known are {', '.join(SUFFIXES)}")


def _half(path: Path, base: str, suffixes: tuple[str, ...]) -> Path:
    for suffix in suffixes:
        candidate = path.with_name(base + suffix)
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{path}: a scan in two files needs {base}{suffixes[0]} or {base}{suffixes[1]} "
        "in the same folder; there is none"
    )


def stated_image(folder: Path, channels: Sequence[Path]) -> str | list[str]:
    """How a description in a folder names an image: by its path, or by those of its channels."""
    paths = [stated_path(folder, path) for path in channels]
    return paths[0] if len(paths) == 1 else paths


def stated_path(folder: Path, path: Path) -> str:
    """How a description in a folder names a path inside."""
    return f"./{path.relative_to(folder).as_posix()}"

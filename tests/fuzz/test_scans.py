"""Damaged scans are read as something sane or refused: no other error, no warning, little memory.

Every mutant is drawn from its own number, so that one that fails can be made again alone. The
environment variable SHAPEGUIDE_FUZZ_COUNT raises their number for long campaigns.
"""

from __future__ import annotations

import gzip
import os
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHImage
from numpy.random import Generator
from numpy.typing import NDArray

from shapeguide.data.nifti import read_label_map, read_volume, write_label_map
from shapeguide.data.prepare import prepare_volume
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ShapeguideError
from shapeguide.geometry import resample
from shapeguide.geometry.volume import Volume

SEED = 20240
COUNT = int(os.environ.get("SHAPEGUIDE_FUZZ_COUNT", "1000"))
LARGEST_PEAK_BYTES = 64 * 2**20
"""No file here is larger than 20 kB; what is packed in one is at most a thousand times that."""
SPACE = WorkingSpace((1.0, 1.0, 1.0), (8, 8, 8))
MOST_WORKING_VOXELS = 48**3
"""In place of 512^3, which would be allowed half a GiB."""
new_header1: Any = nib.Nifti1Header  # nibabel's classes carry no types
new_nifti1: Any = nib.Nifti1Image
new_nifti1_pair: Any = nib.Nifti1Pair
new_nifti2: Any = nib.Nifti2Image
new_analyze: Any = nib.AnalyzeImage
new_mgh: Any = MGHImage

AFFINE = np.array([[-1.5, 0, 0, 10], [0, 1, 0.1, -5], [0, -0.1, 2, 7], [0, 0, 0, 1]])
SHAPE = (7, 6, 5)
WORDS = (
    *(b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7, b"n+1\0", b"n+2\0"),
    *(
        np.array([value], kind).tobytes()
        for kind in ("<f4", ">f4", "<f8")
        for value in (np.nan, np.inf, -np.inf, 1e25, -1e25, 1e-45, 3e38, 0.0, -1.0, 30.0, 1e9)
    ),
    *(
        np.array([value], kind).tobytes()
        for kind in ("<i2", ">i2", "<i4", "<i8")
        for value in (0, 1, -1, 2, 4, 7, 16, 64, 512, 1536, 2048, 32767, -32768)
    ),
)
"""Bytes that a field of a header may hold at its worst."""
Files = dict[str, bytes]
Mutation = Callable[[bytes, Generator], bytes]


def valid_scans(folder: Path) -> dict[str, Files]:
    """Small scans of every format, each a name and the bytes of its files."""
    voxels = np.random.default_rng(SEED).integers(0, 9, SHAPE).astype(np.int16)
    swapped = new_nifti1(voxels.astype(">i2"), AFFINE, new_header1(endianness=">"))
    made = {
        "scan.nii": new_nifti1(voxels, AFFINE),
        "double.nii.gz": new_nifti1(voxels.astype(np.float64), AFFINE),
        "two.nii.gz": new_nifti2(voxels.astype(np.uint8), AFFINE),
        "swapped.nii": swapped,
        "pair.img": new_nifti1_pair(voxels.astype(np.float32), AFFINE),
        "analyze.img": new_analyze(voxels, None),
        "scan.mgz": new_mgh(voxels.astype(np.int32), AFFINE),
        "scan.mgh": new_mgh(voxels.astype(np.float32), AFFINE),
    }
    scans: dict[str, Files] = {}
    for name, image in made.items():
        image.set_qform(AFFINE, 1) if name == "scan.nii" else None
        image.to_filename(folder / name)
        names = [name, name.replace(".img", ".hdr")] if name.endswith(".img") else [name]
        scans[name] = {one: (folder / one).read_bytes() for one in names}
        for one in names:
            (folder / one).unlink()
    return scans


def flip_bits(content: bytes, rng: Generator) -> bytes:
    changed = bytearray(content)
    end = len(changed) if rng.random() < 0.5 else min(len(changed), 348)
    for _ in range(int(rng.integers(1, 9)) if end else 0):
        changed[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def set_a_field(content: bytes, rng: Generator) -> bytes:
    """One to three fields of the header at an extreme; fields lie at even bytes."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        word = WORDS[int(rng.integers(len(WORDS)))]
        start = 2 * int(rng.integers(174 if rng.random() < 0.8 else 270))
        changed[start : start + len(word)] = word[: max(0, len(changed) - start)]
    return bytes(changed)


def cut(content: bytes, rng: Generator) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def grow(content: bytes, rng: Generator) -> bytes:
    count = int(rng.choice([1, 100, 5000]))
    return content + (rng.bytes(count) if rng.random() < 0.5 else bytes(count))


def swap_pieces(content: bytes, rng: Generator) -> bytes:
    first, second = sorted(rng.integers(len(content) + 1, size=2).tolist())
    return content[second:] + content[first:second] + content[:first]


def pack(content: bytes, rng: Generator) -> bytes:
    """Gzipped, whatever the name says; every fifth with zeros that fill a hundred times as much."""
    packed = gzip.compress(content, compresslevel=int(rng.integers(10)), mtime=0)
    if rng.random() < 0.2:
        packed += gzip.compress(bytes(int(rng.integers(1, 2**22))), mtime=0)
    return packed


def unpack(content: bytes, _: Generator) -> bytes:
    try:
        return gzip.decompress(content)[:20_000] if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error):
        return content


def inside(mutation: Mutation) -> Mutation:
    """The mutation of what a gzipped file holds, which is packed again; of others as they are."""

    def mutated(content: bytes, rng: Generator) -> bytes:
        if content[:2] != b"\x1f\x8b":
            return mutation(content, rng)
        return gzip.compress(mutation(unpack(content, rng), rng), 1, mtime=0)

    return mutated


MUTATIONS: tuple[Mutation, ...] = (
    *(inside(set_a_field),) * 5,
    *(inside(flip_bits), flip_bits, inside(cut), cut, inside(grow), grow, swap_pieces),
    *(pack, unpack),
)


def mutant(scans: dict[str, Files], number: int) -> tuple[str, Files, str | None]:
    """Name, files and stated orientation of one damaged scan."""
    rng = np.random.default_rng([SEED, number])
    name = list(scans)[number % len(scans)]
    files = dict(scans[name])
    for _ in range(int(rng.integers(1, 4))):
        one = list(files)[int(rng.integers(len(files)))]
        files[one] = MUTATIONS[int(rng.integers(len(MUTATIONS)))](files[one], rng)
    orientation = "RAS" if name == "analyze.img" or rng.random() < 0.1 else None
    return name, files, orientation


def check_sane(data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    assert np.isfinite(data).all()
    assert np.isfinite(affine).all()
    assert np.abs(affine).max() <= 1e6


def read_both(path: Path, orientation: str | None) -> list[str]:
    """Read as a scan and as a label map, prepare and write it; what refused either."""
    refused: list[str] = []
    try:
        volume = read_volume(path, orientation=orientation)
    except ShapeguideError as error:
        refused.append(str(error))
    else:
        check_sane(volume.data, volume.grid.affine)
        prepare(volume)
    try:
        label_map = read_label_map(path, orientation=orientation)
    except ShapeguideError as error:
        refused.append(str(error))
    else:
        check_sane(label_map.data, label_map.grid.affine)
        written = path.with_name("written.nii")
        write_label_map(label_map, written)
        again = read_label_map(written)
        assert np.array_equal(again.data, label_map.data)
        spacing_mm = min(label_map.grid.spacing_mm)
        assert again.grid.matches(label_map.grid, tolerance_mm=1e-2 * spacing_mm)
    return refused


def prepare(volume: Volume) -> None:
    try:
        prepared = prepare_volume(volume, SPACE)
    except ShapeguideError:
        return
    check_sane(prepared.data, prepared.grid.affine)


@contextmanager
def watched_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def test_every_valid_scan_is_read(tmp_path: Path) -> None:
    for name, files in valid_scans(tmp_path).items():
        for one, content in files.items():
            (tmp_path / one).write_bytes(content)
        assert read_both(tmp_path / name, "RAS" if name == "analyze.img" else None) == []


def test_damaged_scans_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "LARGEST_WORKING_VOXELS", MOST_WORKING_VOXELS)
    scans = valid_scans(tmp_path)
    refused = 0
    with watched_memory(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(COUNT):
            name, files, orientation = mutant(scans, number)
            for one, content in files.items():
                (tmp_path / one).write_bytes(content)
            tracemalloc.reset_peak()
            try:
                said = read_both(tmp_path / name, orientation)
            except Exception as error:
                raise AssertionError(f"mutant {number} of {name}: {error!r}") from error
            peak = tracemalloc.get_traced_memory()[1]
            assert peak < LARGEST_PEAK_BYTES, f"mutant {number} of {name} took {peak} bytes"
            assert all(str(tmp_path) in text for text in said)  # each names the file
            refused += bool(said)
            for one in files:
                (tmp_path / one).unlink()
    assert COUNT / 4 < refused < COUNT

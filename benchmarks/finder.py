"""How well a finder finds structures in heads that lie, end and are sampled otherwise.

    python benchmarks/finder.py DATASET OUT --structure caudate_left=37 ... --split split.json
    python benchmarks/finder.py DATASET OUT --structure ... --split split.json --run RUN

Of the training side of the split some heads are held out, no person on both sides; a finder is
trained on the others and shown each held-out head many times: turned, shifted, cut to half,
padded, on other voxels, with axes in another order, and with what holds the structures of
`--removed` cut out. Printed are, for each way and over all: the largest error of a centre along
each axis of the world and along any axis of the scan, how often the structure lies in a box around
the found centre and by how many mm that is too short at most (half its edge is how far the
structure reaches in the upright training heads, and the finder's own error), how often a structure
is missed when it is there and reported when it is gone. Structures that a scan shows in part count
nowhere.

With a finished RUN of the training side its own finder is shown the test side instead, and the box
is the region that its segmenter works on, after the one move that it may make.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.spatial.transform import Rotation

import shapeguide as sg
from shapeguide.commands.arguments import Structures, parse_structures
from shapeguide.data.case import Case
from shapeguide.errors import ConfigError
from shapeguide.geometry.resample import ras_grid, resample_volume
from shapeguide.inference.shown import seen_in, shown_to
from shapeguide.models.finder_model import FINDER_FOLDER, Finder
from shapeguide.models.segmenter import Segmenter
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.finder import train_finder

WHOLE, GONE = 0.999, 0.01
"""Shares of a structure in the scan that count as whole and as gone."""
ROOM_MM = 3.0
"""Between a structure that a cut keeps or removes and the cut."""


@dataclass(frozen=True)
class Options:
    """How much is tried."""

    held_out: int = 4
    """Training heads that the finder is not trained on."""
    trials: int = 16
    """How often each held-out head is shown in each way."""
    rotation_deg: float = 20.0
    shift_mm: float = 40.0
    margin_mm: float = 0.0
    """Added to half the edge of the box, beside the finder's own error."""
    ways: tuple[str, ...] = (
        "as it is", "turned", "shifted", "half", "padded", "0.7 mm", "2 mm", "reoriented", "all",
        "removed by a plane", "removed in blocks",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Head:
    """A scan and where its structures are."""

    case: str
    volume: sg.Volume
    points_mm: dict[str, NDArray[np.float64]]
    """Voxel centres of each structure in the world, shape (N, 3)."""

    @property
    def middle_mm(self) -> NDArray[np.float64]:
        """Middle of the scan."""
        return self.volume.grid.centre_mm


def main(
    dataset: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    structure: Structures,
    *,
    split: str,
    removed: tuple[str, ...] = (),
    run: Path | None = None,
    preset_name: str = "default",
    iterations: int | None = None,
    seed: int = 0,
    options: Options = Options(),
) -> None:
    """Train a finder and show it heads in many ways.

    Args:
        dataset: Any dataset that `shapeguide train` takes.
        out: Folder for the run and the table of trials.
        structure: Structures and their label ids, as of `shapeguide train`.
        split: Split file; the held-out heads are of its training side.
        removed: Structures that are cut out in two of the ways; the others stay.
        run: Show the test side to the finder of this finished training instead.
        preset_name: Settings to start from.
        iterations: Of the finder.
        seed: Of the split, the training and the trials.
        options: How much is tried.
    """
    cases = sg.read_dataset(dataset).with_structures(**parse_structures(structure))
    train, shown = cases.split(split)
    out.mkdir(parents=True, exist_ok=True)
    segmenter = None
    if run is not None:
        segmenter = sg.load_segmenter(run)
        if segmenter.finder is None:
            raise ConfigError(f"{run} works on whole scans: it has no finder")
        finder = segmenter.finder
    else:
        train, shown = train.split_at_random(test_count=options.held_out, seed=seed)
        settings = preset(preset_name).changed(seed=seed)
        if iterations is not None:
            settings = settings.changed(finder=settings.finder.changed(iterations=iterations))
        start = time.monotonic()
        finder = train_finder(train, run_dir=out / FINDER_FOLDER, settings=settings)
        print(f"trained on {len(train)} heads in {time.monotonic() - start:.0f} s")
    for row in finder.quality:
        print(row)
    reach_mm = reaches_mm([read_head(case) for case in train])
    rows = [
        row
        for case in track(list(shown), "looking")
        for row in trials_of(finder, segmenter, read_head(case), reach_mm, removed, seed, options)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(out / "trials.csv", index=False)
    show(table, finder, out)


def read_head(case: Case) -> Head:
    """A case with the places of its structures."""
    label_map = case.read_label_map()
    points_mm = {
        item.name: label_map.grid.to_world(np.argwhere(label_map.mask(item)).astype(np.float64))
        for item in label_map.structures
    }
    return Head(case.id, case.read_volume(), points_mm)


def reaches_mm(heads: list[Head]) -> dict[str, float]:
    """How far each structure reaches from its centre of mass along any axis, at most."""
    names = heads[0].points_mm
    return {
        name: max(
            float(np.abs(points - points.mean(axis=0)).max())
            for head in heads
            if len(points := head.points_mm[name])
        )
        for name in names
    }


def trials_of(
    finder: Finder,
    segmenter: Segmenter | None,
    head: Head,
    reach_mm: dict[str, float],
    removed: tuple[str, ...],
    seed: int,
    options: Options,
) -> Iterator[dict[str, object]]:
    """One row for each way, trial and structure."""
    for number, way in enumerate(options.ways):
        for trial in range(options.trials if way not in ("as it is", "0.7 mm", "2 mm") else 4):
            numbers = [seed, number, trial, *head.case.encode()]
            random = np.random.default_rng(numbers)
            volume, gone = scan(head, way, removed, random, options)
            start = time.monotonic()
            found = finder.find(volume)
            seconds = time.monotonic() - start
            places = {} if segmenter is None else laid(segmenter, volume, head.points_mm)
            for name, points in head.points_mm.items():
                share = 0.0 if name in gone else share_inside(points, volume.grid)
                row = {"case": head.case, "way": way, "trial": trial, "structure": name}
                row |= {"share": share, "found": name in found, "seconds": seconds}
                if name in found and share >= WHOLE:
                    turn = np.linalg.inv(
                        volume.grid.affine[:3, :3] / np.array(volume.grid.spacing_mm)
                    ).T
                    away = (points - np.array(found[name].centre_mm)) @ turn.T
                    half_mm = reach_mm[name] + finder.error_mm + options.margin_mm
                    error = np.abs(points.mean(axis=0) - np.array(found[name].centre_mm))
                    row["error_mm"] = float(np.abs(away.mean(axis=0)).max())
                    row |= {f"error_{a}": e for a, e in zip("RAS", error, strict=True)}
                    row["held"] = bool((np.abs(away) <= half_mm).all())
                    row["short_mm"] = max(0.0, float(np.abs(away).max()) - half_mm)
                    if segmenter is not None:
                        row |= places[name]
                    row["volume_ratio"] = found[name].volume_mm3 / (
                        len(points) * head.volume.grid.voxel_volume_mm3
                    )
                yield row


def laid(
    segmenter: Segmenter, volume: sg.Volume, points_mm: dict[str, NDArray[np.float64]]
) -> dict[str, dict[str, object]]:
    """Whether the region of each structure that was found holds all of it, and by how many mm not.

    A region that does not is looked at by the segmenter, which may move it once.
    """
    places: dict[str, dict[str, object]] = {}
    for shown in shown_to(segmenter, [volume]):
        grid, wanted = shown.grid, [points_mm[name] for name in shown.structures]
        first = [share_inside(points, grid) for points in wanted]
        if min(first) < 1:
            grid = seen_in(segmenter, shown, [volume]).grid
        for name, share, points in zip(shown.structures, first, wanted, strict=True):
            indices = grid.to_index(points)
            beyond = np.maximum(-0.5 - indices, indices - np.array(grid.spatial_shape) + 0.5)
            short_mm = (np.maximum(beyond, 0) * grid.spacing_mm).max()
            places[name] = {
                "held": share_inside(points, grid) == 1,
                "short_mm": float(short_mm),
                "held_before_move": share == 1,
            }
    return places


def scan(
    head: Head,
    way: str,
    removed: tuple[str, ...],
    random: np.random.Generator,
    options: Options,
) -> tuple[sg.Volume, tuple[str, ...]]:
    """The head as another scan would show it, and which structures were cut out of it."""
    whole = ras_grid(head.volume.grid)
    spacing_mm = np.array(whole.spacing_mm)
    extent_mm = spacing_mm * whole.spatial_shape
    directions = np.eye(3)
    shift_mm = np.zeros(3)
    low_mm, high_mm = -extent_mm / 2, extent_mm / 2
    if way == "as it is":
        return head.volume, ()
    if way in ("turned", "all", "removed by a plane", "removed in blocks"):
        angles = random.uniform(-options.rotation_deg, options.rotation_deg, 3)
        directions = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if way in ("shifted", "all"):
        shift_mm = random.uniform(-options.shift_mm, options.shift_mm, 3)
        low_mm, high_mm = low_mm + shift_mm, high_mm + shift_mm
    if way in ("padded", "all"):
        low_mm = low_mm - random.uniform(0, 0.5, 3) * extent_mm
        high_mm = high_mm + random.uniform(0, 0.5, 3) * extent_mm
    if way == "half":
        low_mm, high_mm = cut_to_half(head, low_mm, high_mm, random)
    if way in ("0.7 mm", "2 mm"):
        spacing_mm = np.full(3, float(way.split()[0]))
    elif way == "all":
        spacing_mm = random.uniform(1.0, 2.0, 3)
    volume, gone = head.volume, tuple[str, ...]()
    if way.startswith("removed"):
        volume, gone = without(head, removed, by_plane="plane" in way), removed
    shape = np.maximum(np.round((high_mm - low_mm) / spacing_mm), 1).astype(int)
    columns = directions * spacing_mm
    first = head.middle_mm + directions @ (low_mm + spacing_mm / 2)
    if way in ("reoriented", "all"):
        order = random.permutation(3)
        flips = random.random(3) < 0.5
        columns, shape = columns[:, order], shape[order]
        first = first + columns @ np.where(flips, shape - 1, 0)
        columns = columns * np.where(flips, -1, 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, first
    i, j, k = shape.tolist()
    return resample_volume(volume, sg.Grid((i, j, k), affine), outside=0.0), gone


def cut_to_half(
    head: Head,
    low_mm: NDArray[np.float64],
    high_mm: NDArray[np.float64],
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A field of view of half the head along one axis, around all structures if they fit."""
    axis = int(random.integers(3))
    points = np.concatenate(list(head.points_mm.values()))[:, axis] - head.middle_mm[axis]
    length = (high_mm - low_mm)[axis] / 2
    first, last = points.max() + ROOM_MM - length, points.min() - ROOM_MM
    start = random.uniform(min(first, last), max(first, last))
    start = float(np.clip(start, low_mm[axis], high_mm[axis] - length))
    low_mm, high_mm = low_mm.copy(), high_mm.copy()
    low_mm[axis], high_mm[axis] = start, start + length
    return low_mm, high_mm


def without(head: Head, names: tuple[str, ...], *, by_plane: bool) -> sg.Volume:
    """The head without the tissue around some structures; all others keep theirs.

    Args:
        head: The whole head.
        names: What is removed.
        by_plane: All on the far side of one plane between these structures and the others, or of
            each side of the head all that lies below and outside of where the structure begins.
    """
    grid, data = head.volume.grid, head.volume.data.copy()
    positions = grid.to_world(np.indices(data.shape).reshape(3, -1).T.astype(np.float64))
    lost = np.concatenate([head.points_mm[name] for name in names])
    kept = np.concatenate([head.points_mm[n] for n in head.points_mm if n not in names])
    gone = np.zeros(len(positions), dtype=np.bool_)
    if by_plane:
        direction = kept.mean(axis=0) - lost.mean(axis=0)
        direction[0] = 0  # alike on both sides
        gone = positions @ direction < (lost @ direction).max() + ROOM_MM * np.linalg.norm(
            direction
        )
    else:
        for name in names:
            points = head.points_mm[name]
            side = np.sign(points[:, 0].mean() - kept[:, 0].mean())
            beyond = side * positions[:, 0] > (side * points[:, 0]).min() - ROOM_MM
            gone |= beyond & (positions[:, 2] < points[:, 2].max() + ROOM_MM)
    data[gone.reshape(data.shape)] = 0
    return sg.Volume(data, grid)


def share_inside(points_mm: NDArray[np.float64], grid: sg.Grid) -> float:
    """How much of a structure lies in the field of view of a grid."""
    indices = grid.to_index(points_mm)
    inside = (indices >= -0.5) & (indices <= np.array(grid.spatial_shape) - 0.5)
    return float(inside.all(axis=1).mean())


def show(table: pd.DataFrame, finder: Finder, out: Path) -> None:
    """Each way, and all together."""
    heads = ("scans", "whole", "missed", "median mm", "R", "A", "S", "any axis", "held", "short")
    shown = Table("way", *heads, "gone", "reported", "s a scan")
    for way, rows in [*table.groupby("way", sort=False), ("all of them", table)]:
        whole, gone = rows[rows["share"] >= WHOLE], rows[rows["share"] <= GONE]
        found = whole[whole["found"]]
        largest = [found[f"error_{axis}"].max() for axis in "RAS"] + [found["error_mm"].max()]
        scans = rows.drop_duplicates(["case", "way", "trial"])
        shown.add_row(
            str(way),
            str(len(scans)),
            str(len(whole)),
            str(len(whole) - len(found)),
            f"{found['error_mm'].median():.1f}",
            *(f"{value:.1f}" for value in largest),
            f"{found['held'].mean():.2%}",
            f"{found['short_mm'].max():.1f}",
            str(len(gone)),
            f"{gone['found'].sum()}",
            f"{scans['seconds'].mean():.2f}",
        )
    console = Console(width=150)
    console.print(shown)
    console.print(
        f"the finder's own error_mm is {finder.error_mm:.1f}; trials: {out / 'trials.csv'}"
    )


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    tyro.cli(main)

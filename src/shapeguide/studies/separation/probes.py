"""What a shape distance does: under warps beyond the training range, and under errors that rise.

Distances are those between a mask and its changed copy, in units of the mean distance between two
held-out cases, so that 1 means "as far as two people are apart", whatever the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from shapeguide.disturbing.graded import graded_errors, room_for_errors, shape_of
from shapeguide.geometry.warp import warp_one_hot
from shapeguide.metrics.statistics import bootstrap_interval
from shapeguide.metrics.surface import assd_mm, surface_distances
from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.training.shape import MaskBank

ROTATIONS_DEG = (0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0)
SCALES = (0.6, 0.7, 0.8, 0.85, 0.9, 1.0, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.6)
AXES = "RAS"
MOST_CASES = 16
"""Probes change so many held-out cases at most; they are taken at equal steps of the list."""
AT_ONCE = 8
SMALLEST_UNIT = 1e-12


@dataclass(frozen=True, eq=False)
class ProbeWarp:
    """One warp that differs from none in a single respect."""

    variation: str
    """`rotation R`, `rotation A`, `rotation S` or `scale`."""
    size: float
    """Degrees, or the scale."""
    linear: NDArray[np.float64]
    """Shape (3, 3), about the middle of the grid."""


def probe_warps() -> Iterator[ProbeWarp]:
    """Rotations about each axis and isotropic scales, to far beyond the training range."""
    for axis, name in enumerate(AXES):
        for degrees in ROTATIONS_DEG:
            yield ProbeWarp(f"rotation {name}", degrees, _rotation(axis, degrees))
    for scale in SCALES:
        yield ProbeWarp("scale", scale, np.eye(3) * scale)


@torch.no_grad()
def warp_probe(network: ShapeNetwork, bank: MaskBank, *, unit: float) -> pd.DataFrame:
    """Distance between each mask and its warped copy.

    Args:
        network: A trained network of one structure.
        bank: Masks of held-out cases that have it.
        unit: Raw distance that counts as 1.

    Returns:
        One row per warp: variation, size, distance (mean over cases), low, high (95 % bootstrap
        interval), cases.
    """
    warps, spacing_mm = list(probe_warps()), bank.spacing_mm
    masks = _with_room(_some(bank.masks), warps, spacing_mm, network)
    rows: list[dict[str, str | float | int]] = []
    right = _signatures(network, _warped(masks, np.eye(3), spacing_mm), spacing_mm)
    for warp in warps:
        warped = _warped(masks, warp.linear, spacing_mm)
        found = signature_distance(_signatures(network, warped, spacing_mm), right)[:, 0]
        distances = _in_units(found.cpu().double().numpy(), unit)
        rows.append({"variation": warp.variation, "size": warp.size, **_mean_of(distances)})
    return pd.DataFrame(rows)


@torch.no_grad()
def error_probe(
    network: ShapeNetwork, bank: MaskBank, *, unit: float, seed: int = 0
) -> pd.DataFrame:
    """Distance between each mask and copies with errors of rising size, beside the true error.

    Args:
        network: A trained network of one structure.
        bank: Masks of held-out cases that have it.
        unit: Raw distance that counts as 1.
        seed: Seed of the errors; the same gives every network the same errors.

    Returns:
        One row per kind and grade: error, grade, distance (mean over cases), low, high (95 %
        bootstrap interval), cases, assd_mm (mean surface distance to the unchanged mask), spearman
        (rank correlation of the two over all cases and grades of the kind) and monotone (whether
        the mean distance rises at each grade).
    """
    found = [
        row
        for case, masks in enumerate(_some(bank.masks))
        for row in _errors_of_case(network, masks[0], bank.spacing_mm, (seed, case))
    ]
    table = pd.DataFrame(found, columns=["error", "grade", "distance", "assd_mm"])
    table["distance"] = _in_units(table["distance"].to_numpy(np.float64), unit)
    rows: list[dict[str, str | float | int | bool]] = []
    for name, kind in table.groupby("error", sort=False):
        grades = [(grade, group) for grade, group in kind.groupby("grade", sort=True)]
        means = [float(group["distance"].mean()) for _, group in grades]
        verdict = {
            "spearman": _rank_correlation(kind["distance"], kind["assd_mm"]),
            "monotone": bool(np.all(np.diff([0.0, *means]) > 0)),
        }
        for grade, group in grades:
            mean = _mean_of(group["distance"].to_numpy(np.float64))
            true = float(group["assd_mm"].mean())
            rows.append(
                {"error": str(name), "grade": float(str(grade)), **mean, "assd_mm": true, **verdict}
            )
    return pd.DataFrame(rows)


def _signatures(
    network: ShapeNetwork, masks: Tensor, spacing_mm: tuple[float, float, float]
) -> Tensor:
    parts = [network(part, spacing_mm=spacing_mm) for part in masks.split(AT_ONCE)]
    return torch.cat(parts)


def _errors_of_case(
    network: ShapeNetwork,
    mask: Tensor,
    spacing_mm: tuple[float, float, float],
    seed: tuple[int, int],
) -> list[tuple[str, float, float, float]]:
    """Kind, grade, raw distance and true error in mm of every error of a mask (I, J, K)."""
    found = mask.cpu().numpy() > 0
    low, high = room_for_errors(found, spacing_mm=spacing_mm)
    padding = _padding(low, high, found.shape, network)
    padded = np.pad(found, [(n, n) for n in padding])
    window = tuple(slice(a + n, b + n + 1) for a, b, n in zip(low, high, padding, strict=True))
    shape = shape_of(padded[window], spacing_mm=spacing_mm)
    right = torch.from_numpy(padded)[None, None].to(mask.device, torch.float32)
    reference = network(right, spacing_mm=spacing_mm)
    rows = []
    for _, grades in groupby(graded_errors(shape, seed=seed), key=lambda error: error[0]):
        errors = list(grades)
        wrong = right.repeat(len(errors), 1, 1, 1, 1)
        for item, (_, _, made) in zip(wrong, errors, strict=True):
            item[0][window] = torch.from_numpy(made).to(wrong)
        distances = signature_distance(network(wrong, spacing_mm=spacing_mm), reference)[:, 0]
        for (name, grade, made), distance in zip(errors, distances.tolist(), strict=True):
            true = assd_mm(surface_distances(made, shape.mask, spacing_mm=spacing_mm))
            rows.append((name, grade, float(distance), true))
    return rows


def _with_room(
    masks: Tensor,
    warps: list[ProbeWarp],
    spacing_mm: tuple[float, float, float],
    network: ShapeNetwork,
) -> Tensor:
    """Masks (N, 1, I, J, K), float, padded until no warp about the middle moves one out."""
    occupied = masks.amax((0, 1)).nonzero().cpu().double().numpy()
    spacing, last = np.asarray(spacing_mm), np.array(masks.shape[2:]) - 1
    # One voxel for the interpolated edge, one for the move by half a voxel.
    ends = np.stack([occupied.min(0) - 2, occupied.max(0) + 2])
    corners = np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)])
    corners_mm = (corners - last / 2) * spacing
    moved = np.concatenate([corners_mm @ warp.linear.T for warp in warps]) / spacing + last / 2
    low, high = np.floor(moved.min(0)).astype(int), np.ceil(moved.max(0)).astype(int)
    i, j, k = _padding(low, high, masks.shape[2:], network)
    return functional.pad(masks.float(), (k, k, j, j, i, i))


def _padding(
    low: NDArray[np.int64], high: NDArray[np.int64], shape: Sequence[int], network: ShapeNetwork
) -> list[int]:
    """Voxels to add at both ends of each axis so that a grid holds `low` to `high`.

    A multiple of the network's stride, so that its grid of features stays where it was.
    """
    stride = 2 ** len(network.channels)
    beyond = np.maximum(np.maximum(-low, high - (np.asarray(shape) - 1)), 0)
    return [ceil(n / stride) * stride for n in beyond.tolist()]


def _warped(
    masks: Tensor, linear: NDArray[np.float64], spacing_mm: tuple[float, float, float]
) -> Tensor:
    """Masks (N, 1, I, J, K) under one linear map about the middle of the grid.

    All are moved by half a voxel too: otherwise only an unwarped mask would keep its sharp edge,
    and the edge would count as a difference in shape.
    """
    warp = torch.zeros((1, 3, 4), dtype=torch.float64)
    warp[0, :, :3] = torch.from_numpy(linear)
    warp[0, :, 3] = torch.tensor(spacing_mm, dtype=torch.float64) / 2
    return warp_one_hot(masks, warp.expand(len(masks), 3, 4), spacing_mm=spacing_mm)


def _some(masks: Tensor) -> Tensor:
    """At most `MOST_CASES` of masks (N, 1, I, J, K), at equal steps."""
    chosen = np.unique(np.linspace(0, len(masks) - 1, MOST_CASES).round().astype(int))
    return masks[torch.from_numpy(chosen)]


def _rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    """Rotation about one axis of the grid, shape (3, 3)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = cosine
    rotation[first, second], rotation[second, first] = -sine, sine
    return rotation


def _in_units(distances: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """Distances over the unit; nan for a network to which all people look alike."""
    return distances / unit if unit > SMALLEST_UNIT else np.full_like(distances, np.nan)


def _mean_of(distances: NDArray[np.float64]) -> dict[str, float | int]:
    low, high = bootstrap_interval(distances, seed=0)
    return {
        "distance": float(distances.mean()),
        "low": low,
        "high": high,
        "cases": len(distances),
    }


def _rank_correlation(first: pd.Series[float], second: pd.Series[float]) -> float:
    """Spearman's; nan where one of the two never changes."""
    if first.nunique() < 2 or second.nunique() < 2:
        return float("nan")
    return float(spearmanr(first, second).statistic)

"""Damaged models and scans, seeded: an error of ours at loading, and never the end of a cohort."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import shapeguide as sg
from shapeguide.errors import ShapeguideError
from shapeguide.models.model_files import MODEL_FILE, WEIGHTS_FILES
from shapeguide.storage.digest import digest_now

Run = Callable[..., Path]
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 10**400, 1e308, -0.5, "", "x/../../../evil", "ho\0rn", "\ud800",
    [], {}, [[1]], [3, 5, 7], [2048] * 3, [1024] * 8, {"last": "0" * 64}, "nan", "srn", [0.0] * 3,
)  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON content."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for name, value in inner:
        found.append((*path, name))
        if isinstance(value, dict | list):
            found += places(value, (*path, name))
    return found


def spoil_json(path: Path, generator: random.Random) -> None:
    """Replace, remove or add values, or damage the text itself."""
    content = json.loads(path.read_text())
    for _ in range(generator.randint(1, 2)):
        place = generator.choice(places(content))
        around = content
        for name in place[:-1]:
            around = around[name]
        if generator.random() < 0.2:
            del around[place[-1]]
        else:
            around[place[-1]] = deepcopy(generator.choice(VALUES))
        if not places(content):
            break
    path.write_text(json.dumps(content))
    if generator.random() < 0.2:
        spoil_bytes(path, generator)


def spoil_bytes(path: Path, generator: random.Random) -> None:
    """Change some bytes, most of them near the start, and perhaps cut the rest."""
    data = bytearray(path.read_bytes())
    for _ in range(generator.choice([1, 2, 8])):
        reach = len(data) if generator.random() < 0.5 else min(len(data), 352)
        data[generator.randrange(reach)] = generator.randrange(256)
    if generator.random() < 0.2:
        del data[generator.randrange(len(data)) :]
    path.write_bytes(data)


def spoil_weights(folder: Path, generator: random.Random) -> None:
    """Damage the weights, and name the digest that fits them."""
    path = folder / WEIGHTS_FILES["last"]
    spoil_bytes(path, generator)
    model = folder / MODEL_FILE
    content = json.loads(model.read_text())
    content["weights"]["last"] = digest_now(path)
    model.write_text(json.dumps(content))


def volume() -> sg.Volume:
    data = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    return sg.Volume(data, sg.Grid((16, 16, 16), np.eye(4)))


def test_a_damaged_model_predicts_or_is_an_error_of_ours(run_by_hand: Run, tmp_path: Path) -> None:
    whole, generator, refused = run_by_hand(), random.Random(0), 0
    for trial in range(120):
        run = tmp_path / "spoilt"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        inner = run / generator.choice([".", "shape", "restorer", "autoencoder"])
        spoilt = generator.choice(["model", "model", "usual", "weights"])
        if spoilt == "usual":
            spoil_json(run / "restorer" / "usual.json", generator)
        elif spoilt == "model":
            spoil_json(inner / MODEL_FILE, generator)
        else:
            spoil_weights(inner, generator)
        for use in (
            lambda run: sg.predict(sg.load_run(run, device="cpu"), volume()),
            lambda run: sg.predict(sg.load_run(run, restorer="srn", device="cpu"), volume()),
            lambda run: sg.load_shape_network(run).collapsed,
        ):
            try:
                use(run)
            except ShapeguideError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"trial {trial}: {spoilt} of {inner.name}") from error
    assert refused > 60


def cohort_of_spoilt_scans(folder: Path, count: int) -> list[Path]:
    """Scans, each damaged in its own way, with a whole one at either end."""
    generator, scans = random.Random(1), []
    folder.mkdir()
    for index in range(count):
        packed = generator.random() < 0.3
        path = folder / f"scan{index:03}.nii{'.gz' if packed else ''}"
        data = volume().data.astype(generator.choice([np.float32, np.int16, np.float64]))
        image = nib.Nifti1Image(data, np.diag([1.0, 1.0, 1.5, 1.0]))
        image.set_sform(image.affine, 1)
        nib.save(image, path)
        if 0 < index < count - 1:
            spoil_bytes(path, generator)
        scans.append(path)
    return scans


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_no_damaged_scan_ends_a_cohort(run_by_hand: Run, tmp_path: Path, count: int) -> None:
    scans = cohort_of_spoilt_scans(tmp_path / "scans", count)
    run = sg.load_run(run_by_hand(), device="cpu")
    report = sg.predict_files(run, scans, out_dir=tmp_path / "out", progress=False)
    assert len(report.written) + len(report.failed) == count
    whole = {path.name.partition(".")[0] for path in (scans[0], scans[-1])}
    assert whole <= {path.name.partition(".")[0] for path in report.written}
    assert all(failure.reason for failure in report.failed)
    assert {path.parent for path in report.written} == {tmp_path / "out"}

"""Whole scans from training to prediction: found first, then segmented in regions."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Volume
from shapeguide.metrics.overlap import dice
from shapeguide.models.finder_model import FINDER_FOLDER
from shapeguide.models.model_files import MODEL_FILE, WEIGHTS_FILES
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages import segmentation_step
from shapeguide.training.stages.classes import one_hot

SHAPE, SPACING_MM = (72, 80, 72), 2.0
MOST_STARTS = 60


def head(number: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A ball with a gradient, and in it on either side an ellipsoid of its own brightness."""
    random = np.random.default_rng(number)
    i, j, k = (
        (line - (n - 1) / 2) * SPACING_MM for line, n in zip(np.indices(SHAPE), SHAPE, strict=True)
    )
    inside = (i / 64) ** 2 + (j / 74) ** 2 + (k / 64) ** 2 <= 1
    image = np.where(inside, 100 + 0.4 * j + 0.3 * k, 0)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for label, side in ((3, -1), (4, 1)):
        p, q, r = np.array([side * 18, -8, 5]) + random.uniform(-4, 4, 3)
        ball = ((i - p) / 9) ** 2 + ((j - q) / 14) ** 2 + ((k - r) / 10) ** 2 <= 1
        image[ball], labels[ball] = 80 * label, label
    image[inside] += random.normal(0, 3, int(inside.sum()))
    return image.astype(np.float32), labels


def write_heads(folder: Path) -> None:
    """Five heads, in a plain layout."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(5):
        for kind, data in zip(("images", "labels"), head(number), strict=True):
            nib.save(
                nib.Nifti1Image(data, np.diag([SPACING_MM] * 3 + [1.0])),
                folder / kind / f"h{number}.nii.gz",
            )


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("heads")
    write_heads(folder)
    return sg.read_dataset(folder).with_structures(left=3)


def settings(**changes: Any) -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        guidance="none",
        finder=quick.finder.changed(iterations=120, channels=(16, 32), spacing_mm=6.0),
        segmentation=quick.segmentation.changed(
            channels=(8, 16), batch_size=2, dice_iterations=60, guided_iterations=0,
            validation_cases=1, validate_every=60,
        ),
        machine=quick.machine.changed(device="cpu", checkpoint_every=30),
        **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(heads: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    sg.train(heads, out=folder, settings=settings(), progress=False)
    return folder


def test_a_run_states_its_regions_and_how_well_they_are_found(run: Path) -> None:
    described = json.loads((run / MODEL_FILE).read_text())
    regions = described["regions"]
    assert [region["structures"] for region in regions["each"]] == [["left"]]
    assert described["space"]["spatial_shape"] == regions["spatial_shape"]
    assert np.prod(regions["spatial_shape"]) < np.prod(SHAPE) / 2
    found = json.loads((run / FINDER_FOLDER / MODEL_FILE).read_text())
    assert [row["structure"] for row in found["quality"]] == ["left"]


def test_predictions_find_first_on_any_grid(run: Path, tmp_path: Path) -> None:
    image, labels = head(77)
    trained = sg.load_run(run)
    affine = np.diag([-SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    shifted = np.zeros((90, 80, 72), dtype=np.float32)
    shifted[18:] = image
    volume = Volume(np.ascontiguousarray(shifted[::-1]), Grid(shifted.shape, affine))
    found = sg.predict(trained, volume)
    wanted = np.zeros(shifted.shape, dtype=np.uint8)
    wanted[18:] = labels
    wanted = wanted[::-1]
    assert dice(found.data == 3, wanted == 3) > 0.75
    # Nothing is segmented where nothing is found, and that is said.
    nib.save(nib.Nifti1Image(image[:, :, :20], np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "n.nii")
    report = sg.predict_files(run, tmp_path / "n.nii", out_dir=tmp_path / "out", progress=False)
    assert report.complete
    assert report.volumes["volume_mm3"].tolist() == [0.0]
    assert report.volumes["found"].tolist() == [False]


def test_a_plan_of_whole_scans_times_the_finder_and_regions(heads: Dataset) -> None:
    made = sg.plan(heads, settings())
    assert [steps.title for steps in made.steps] == ["finder", "segmenter"]
    assert all(steps.step_seconds > 0 for steps in made.steps)
    assert "mm around left, found first" in made.region
    assert np.prod(made.space.spatial_shape) < np.prod(SHAPE) / 2
    assert made.preparing_seconds > 0


class KilledError(Exception):
    pass


def test_a_killed_training_of_regions_ends_with_the_same_bits(
    run: Path, heads: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def killing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 35:
            raise KilledError
        return one_hot(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(segmentation_step, "one_hot", killing)
        with pytest.raises(KilledError):
            sg.train(heads, out=tmp_path / "run", settings=settings(), progress=False)
    sg.train(heads, out=tmp_path / "run", settings=settings(), progress=False)
    for name in ("model.safetensors", MODEL_FILE, f"{FINDER_FOLDER}/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_a_finder_that_finds_nothing_ends_the_training_with_a_word(
    heads: Dataset, tmp_path: Path
) -> None:
    lost = settings()
    lost = lost.changed(finder=lost.finder.changed(iterations=1))
    with pytest.raises(ConfigError, match=r"train it longer \(finder.iterations\)"):
        sg.train(heads, out=tmp_path / "run", settings=lost, progress=False)


def start(heads: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command line on five heads, small enough to end within a minute."""
    words = ["train", str(heads), "--out", str(out), "--structure", "left=3", "--preset", "quick"]
    sizes = {
        "finder.iterations": "120", "finder.channels": "16 32", "finder.spacing-mm": "6",
        "shape.iterations": "20", "restorer.iterations": "20", "channels": "4 8",
        "dice-iterations": "20", "guided-iterations": "10", "checkpoint-every": "4",
    }  # fmt: skip
    options = [word for name, value in sizes.items() for word in (f"--{name}", *value.split())]
    options.append("--accept-collapsed")
    program = [sys.executable, "-m", "shapeguide", *words, *options, "--device", "cpu"]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def files_of(run: Path) -> set[Path]:
    """All but what each start adds for TensorBoard."""
    found = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    return {path for path in found if "tensorboard" not in path.parts}


@pytest.mark.slow
def test_every_stage_resumes_to_the_bit_wherever_it_is_killed(tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    write_heads(heads)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    told, _ = start(heads, unbroken).communicate()
    moments, kills = random.Random(0), 0
    for _ in range(MOST_STARTS):
        process = start(heads, broken)
        try:
            process.communicate(timeout=moments.uniform(3, 12))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        else:
            break
    assert process.returncode == 0, told.decode()
    assert kills >= 3
    files = files_of(unbroken)
    assert files_of(broken) == files
    weights = [file for file in files if file.name in WEIGHTS_FILES.values()]
    assert {file.parent.name for file in weights} == {"", "finder", "shape", "restorer"}
    for file in weights:
        one, other = load_file(unbroken / file), load_file(broken / file)
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() for name in one), file
    assert sg.load_run(broken).segmenter.finder is not None

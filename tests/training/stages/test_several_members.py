"""Several members of one run: each in its folder, loaded and resumed together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.segmenter import Segmenter, load_member
from shapeguide.training.engine.run_folder import clear_run_folder
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort")
    description = sg.write_cohort(
        folder / "c", count=3, seed=1, spatial_shape=(16, 20, 16), spacing_mm=(3.0, 3.0, 3.0)
    )
    return sg.read_dataset(description)


def tiny(members: int, *, seed: int = 4) -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        seed=seed,
        members=members,
        guidance="none",
        segmentation=quick.segmentation.changed(
            channels=(4, 8), dice_iterations=2, guided_iterations=0
        ),
        machine=quick.machine.changed(device="cpu"),
    )


def trained(cohort: Dataset, folder: Path, settings: TrainSettings) -> Segmenter:
    return sg.train_segmenter(cohort, run_dir=folder, settings=settings, progress=False)


def stamp(folder: Path) -> int:
    return (folder / MODEL_FILE).stat().st_mtime_ns


@pytest.fixture(scope="module")
def pair(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pair"
    trained(cohort, folder, tiny(2))
    return folder


def test_members_are_the_trainings_of_this_seed_and_the_next_and_answer_together(
    cohort: Dataset, pair: Path, tmp_path: Path
) -> None:
    images = torch.randn(1, 1, 16, 20, 16)
    alone = [
        trained(cohort, tmp_path / str(seed), tiny(1, seed=seed)).network(images).softmax(1)
        for seed in (4, 5)
    ]
    assert not torch.equal(*alone)
    for weights in ("last", "average"):
        parts = [load_member(path, weights=weights) for path in (pair, pair / "member2")]
        together = sg.load_segmenter(pair, weights=weights, device="cpu").network
        expected = torch.stack([part(images).softmax(1) for part in parts]).mean(0)
        torch.testing.assert_close(together(images).softmax(1), expected)
        if weights == "last":
            torch.testing.assert_close(expected, torch.stack(alone).mean(0))


def test_a_run_whose_last_member_is_missing_is_not_finished_until_the_same_call_ends_it(
    cohort: Dataset, pair: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trained(cohort, folder, tiny(2))
    before = stamp(folder)
    (folder / "member2" / MODEL_FILE).unlink()
    with pytest.raises(CheckpointError, match="number 2 is not finished; run the same training"):
        sg.load_run(folder)
    again = trained(cohort, folder, tiny(2)).network.state_dict()
    assert stamp(folder) == before
    whole = sg.load_segmenter(pair, device="cpu").network.state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_members_may_be_added_to_a_finished_run_and_are_cleared_with_it(
    cohort: Dataset, pair: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trained(cohort, folder, tiny(1))
    first = (folder / "model.safetensors").stat().st_mtime_ns
    more = trained(cohort, folder, tiny(2)).network.state_dict()
    assert (folder / "model.safetensors").stat().st_mtime_ns == first
    whole = sg.load_segmenter(pair, device="cpu").network.state_dict()
    assert all(torch.equal(more[name], whole[name]) for name in whole)
    clear_run_folder(folder)
    assert not folder.exists() or not any(path.is_file() for path in folder.rglob("*"))


def test_a_member_of_another_training_is_refused(
    cohort: Dataset, pair: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trained(cohort, folder, tiny(2))
    other = tiny(1)
    other = other.changed(segmentation=other.segmentation.changed(channels=(4, 6)))
    trained(cohort, tmp_path / "other", other)
    (folder / "member2" / MODEL_FILE).write_bytes((tmp_path / "other" / MODEL_FILE).read_bytes())
    with pytest.raises(CheckpointError, match="not of the same training"):
        sg.load_segmenter(folder)

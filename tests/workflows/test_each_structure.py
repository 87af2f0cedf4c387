"""One training per structure, as the paper trains: folders, prediction, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shapeguide as sg
from shapeguide.cli import main
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError, ConfigError, DataError
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.one_per_structure import OnePerStructure
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.workflows.train import read_outcome


@pytest.fixture(scope="module")
def cohort(
    write_halves: Callable[..., Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    return write_halves(
        tmp_path_factory.mktemp("cohort") / "c",
        count=3,
        seed=1,
        spatial_shape=(16, 20, 16),
        spacing_mm=(3.0, 3.0, 3.0),
    )


def tiny() -> TrainSettings:
    paper = preset("paper")
    return paper.changed(
        shape=paper.shape.changed(iterations=2, channels=(2, 4), quality_pairs=4),
        segmentation=paper.segmentation.changed(
            channels=(2, 4), dice_iterations=2, guided_iterations=2
        ),
        machine=paper.machine.changed(device="cpu"),
    )


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("model*")}


@pytest.fixture(scope="module")
def run(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "paper"
    sg.train(cohort, out=folder, settings=tiny(), progress=False)
    return folder


class Says(nn.Module):
    """A segmenter of one structure whose probability is the same everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logits = torch.tensor([0.3, 0.3 + float(np.log(probability / (1 - probability)))])

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.view(1, 2, 1, 1, 1).expand(1, 2, *images.shape[2:])


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [((0.4, 0.4), 0), ((0.6, 0.4), 1), ((0.6, 0.9), 2), ((0.1, 0.51), 2)],
)
def test_a_voxel_is_background_unless_one_wants_it_and_then_of_the_surest(
    probabilities: tuple[float, ...], expected: int
) -> None:
    together = OnePerStructure(Says(one) for one in probabilities)
    logits = together(torch.zeros(1, 1, 1, 1, 1))
    assert logits.shape == (1, 3, 1, 1, 1)
    assert int(logits.argmax(dim=1)) == expected


def test_one_segmenter_alone_says_what_it_says_by_itself() -> None:
    found = OnePerStructure([Says(0.7)])(torch.zeros(1, 1, 1, 1, 1)).softmax(dim=1)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.3, 0.7]))


def test_each_structure_has_a_run_and_a_shape_network_of_its_own(
    cohort: Dataset, run: Path
) -> None:
    names = [one.name for one in cohort.structures]
    assert len(names) > 1
    assert sorted(path.name for path in (run / "structures").iterdir()) == sorted(names)
    for name in names:
        own = sg.load_segmenter(run / "structures" / name, device="cpu")
        assert [one.name for one in own.structures] == [name]
        guide = sg.load_shape_network(run / "structures" / name / "shape")
        assert [one.name for one in guide.structures] == [name]


def test_the_run_predicts_all_structures_as_each_alone_does(cohort: Dataset, run: Path) -> None:
    volume = cohort[0].read_volume()
    together = sg.predict(sg.load_run(run, device="cpu"), volume)
    assert [one.name for one in together.structures] == [one.name for one in cohort.structures]
    alone = [
        sg.predict(sg.load_run(run / "structures" / one.name, device="cpu"), volume)
        for one in cohort.structures
    ]
    wanted = np.stack([label_map.data > 0 for label_map in alone])
    found = np.stack([together.mask(one) for one in cohort.structures])
    one_wants_it = wanted.sum(axis=0) <= 1
    np.testing.assert_array_equal(found[:, one_wants_it], wanted[:, one_wants_it])
    assert (found.sum(axis=0) == (wanted.sum(axis=0) > 0)).all()


def test_no_case_is_held_out_and_the_outcome_says_so(cohort: Dataset, run: Path) -> None:
    assert read_outcome(run).training_cases == len(cohort)
    assert read_outcome(run).validation_dice is None


def test_the_same_call_ends_a_run_that_was_stopped_between_two_structures(
    cohort: Dataset, run: Path, tmp_path: Path
) -> None:
    first, *others = [one.name for one in cohort.structures]
    folder = tmp_path / "stopped"
    shutil.copytree(run, folder)
    (folder / MODEL_FILE).unlink()
    for name in others:
        shutil.rmtree(folder / "structures" / name)
    with pytest.raises(CheckpointError, match="run the training again"):
        sg.load_segmenter(folder)
    before = stamps(folder / "structures" / first)
    sg.train(cohort, out=folder, settings=tiny(), progress=False)
    assert stamps(folder / "structures" / first) == before
    whole = sg.load_segmenter(run, device="cpu").network.state_dict()
    again = sg.load_segmenter(folder, device="cpu").network.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_other_settings_are_refused_and_overwrite_deletes_what_the_run_wrote(
    cohort: Dataset, run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    with pytest.raises(ConfigError, match=r"seed was 0, is 1"):
        sg.train(cohort, out=folder, settings=tiny().changed(seed=1), progress=False)
    other = tiny().changed(
        seed=1, segmentation=tiny().segmentation.changed(one_per_structure=False)
    )
    with pytest.raises(ConfigError, match="holds another run"):
        sg.train(cohort, out=folder, settings=other, progress=False)
    (folder / "structures" / "notes.txt").write_text("mine")
    sg.train(cohort, out=folder, settings=other, overwrite=True, progress=False)
    assert [path.name for path in (folder / "structures").iterdir()] == ["notes.txt"]


def test_a_case_without_a_structure_is_left_out_of_its_training_alone(
    cohort: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = cohort.structures[:2]
    label_map = cohort[0].read_label_map()
    lacking = tmp_path / "lacking.nii.gz"
    data = np.where(label_map.mask(first), 0, label_map.data)
    sg.write_label_map(replace(label_map, data=data), lacking)
    cases = (replace(cohort[0], label_map=lacking), *cohort.cases[1:])
    folder = tmp_path / "run"
    sg.train(replace(cohort, cases=cases), out=folder, settings=tiny(), progress=False)
    trained = {
        one.name: read_outcome(folder / "structures" / one.name).training_cases
        for one in (first, second)
    }
    assert trained == {first.name: len(cohort) - 1, second.name: len(cohort)}
    assert f"{first.name}: 1 cases without it are left out" in caplog.text
    assert cohort[0].id in caplog.text


def test_a_structure_that_nobody_has_is_refused_before_anything_is_trained(
    cohort: Dataset, tmp_path: Path
) -> None:
    named = {one.name: one.label_ids for one in cohort.structures}
    absent = replace(cohort, labels={}).with_structures(**named, nowhere=99)
    with pytest.raises(ConfigError, match="nowhere"):
        sg.train(absent, out=tmp_path / "run", settings=tiny(), progress=False)
    assert not (tmp_path / "run" / "structures").exists()


def test_regions_are_refused(cohort: Dataset, tmp_path: Path) -> None:
    settings = tiny()
    with pytest.raises(ConfigError, match="region none"):
        sg.train(
            cohort,
            out=tmp_path / "run",
            settings=settings.changed(data=settings.data.changed(region="all")),
            progress=False,
        )


def test_one_shape_network_for_all_is_refused(cohort: Dataset, run: Path, tmp_path: Path) -> None:
    name = cohort.structures[0].name
    with pytest.raises(ConfigError, match="each with its own"):
        sg.train(
            cohort,
            out=tmp_path / "run",
            settings=tiny(),
            shape_network=run / "structures" / name / "shape",
            progress=False,
        )


def test_a_run_of_another_structure_in_its_place_is_found(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    first, second = sorted((folder / "structures").iterdir())[:2]
    shutil.rmtree(first)
    shutil.copytree(second, first)
    with pytest.raises(CheckpointError, match="not of the same training"):
        sg.load_segmenter(folder)


def test_a_plan_is_that_of_all_trainings(cohort: Dataset) -> None:
    one = sg.plan(cohort.with_one_structure(cohort.structures[0].name), tiny())
    made = sg.plan(cohort, tiny())
    count = len(cohort.structures)
    assert made.trainings == count
    assert [row.name for row in made.structures] == [one.name for one in cohort.structures]
    assert made.seconds > made.steps[0].seconds * count
    assert f"{count} trainings, one for each structure" in str(made)
    assert "one for each structure" not in str(one)


def test_a_crop_keeps_the_middle_and_refuses_to_cut_a_structure(
    cohort: Dataset, tmp_path: Path
) -> None:
    settings = tiny()
    cropped = settings.changed(data=settings.data.changed(largest_shape=(256, 128, 256)))
    assert sg.plan(cohort, cropped).space.spatial_shape == (16, 20, 16)
    cropped = settings.changed(data=settings.data.changed(largest_shape=(16, 2, 16)))
    with pytest.raises(DataError, match="raise the spatial shape"):
        sg.train(cohort, out=tmp_path / "run", settings=cropped, progress=False)
    cropped = settings.changed(data=settings.data.changed(largest_shape=(16, 3, 16)))
    with pytest.raises(ConfigError, match="multiple of 2"):
        sg.train(cohort, out=tmp_path / "run", settings=cropped, progress=False)


def test_the_commands_train_and_predict_as_published(
    cohort: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "predictions"
    folder = str(cohort.path if cohort.path.is_dir() else cohort.path.parent)
    few = ["--dice-iterations", "1", "--guided-iterations", "1", "--shape.iterations", "1"]
    small = ["--channels", "2", "4", "--shape.channels", "2", "4", "--device", "cpu"]
    chosen = ["--test-count", "1", "--preset", "paper", "--out", run, *few, *small]
    assert main(["train", folder, *chosen]) == 0
    assert "upper, lower: model in" in capsys.readouterr().out
    assert main(["predict", run, folder, "--out", str(out)]) == 0
    (written,) = out.glob("*.nii.gz")
    assert set(np.unique(sg.read_label_map(written).data)) <= {0, 1, 2}
    assert "upper" in (out / "volumes.csv").read_text()


def test_a_run_that_holds_itself_is_refused(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    first = min((folder / "structures").iterdir())
    shutil.rmtree(first)
    first.symlink_to(folder, target_is_directory=True)
    with pytest.raises(CheckpointError, match="SegmenterDescription"):
        sg.load_segmenter(folder)

"""A plan before a training, and a training that fits in a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shapeguide as sg
from shapeguide import commands
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.training.cohort import cohort_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages import segmentation
from shapeguide.training.stages.segmentation import SegmentationStage
from shapeguide.training.stages.timing import StageTiming, time_stage
from shapeguide.workflows import planning

GIB = 2**30


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned") / "cohort"
    sg.write_cohort(folder, count=4, spatial_shape=(16, 16, 16), spacing_mm=(4.0, 4.0, 4.0))
    return folder


@pytest.fixture(scope="module")
def dataset(cohort_folder: Path) -> Dataset:
    return sg.read_dataset(cohort_folder).with_structures(horn=(1,))


def settings(**changes: Any) -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        shape=quick.shape.changed(iterations=10, channels=(4, 8), canonical_shape=8, batch_size=2),
        restorer=quick.restorer.changed(iterations=20, channels=(4, 8)),
        segmentation=quick.segmentation.changed(
            channels=(8, 16), dice_iterations=200, guided_iterations=100, validation_cases=1,
            validate_every=100,
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32"),
        **changes,
    )  # fmt: skip


class FakeTiming:
    """A second for each channel of the first level of a segmenter, half more when it is guided."""

    def __init__(self, others: float = 1.0, peak: int = GIB) -> None:
        self.others, self.peak = others, peak
        self.stages: list[str] = []

    def __call__(self, stage: Any, *, iterations: Sequence[int] = (0,)) -> StageTiming:
        self.stages.append(stage.name)
        if stage.name != "segmentation":
            return StageTiming(0.0, (self.others,) * len(iterations), self.peak)
        each = float(stage.course.channels[0])
        later = [each * (1.5 if first else 1.0) for first in iterations]
        return StageTiming(10.0, tuple(later), self.peak)


def faked(monkeypatch: pytest.MonkeyPatch, **values: Any) -> FakeTiming:
    timing = FakeTiming(**values)
    monkeypatch.setattr(planning, "time_stage", timing)
    return timing


def test_a_plan_states_what_is_looked_at_and_what_it_takes(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = faked(monkeypatch)
    made = sg.plan(dataset, settings())
    assert timing.stages == ["shape", "restorer", "segmentation"]
    assert made.space.spatial_shape == (16, 16, 16)
    assert [(one.iterations, one.step_seconds) for one in made.steps] == [
        (10, 1.0), (20, 1.0), (200, 8.0), (100, 12.0),
    ]  # fmt: skip
    # A validation predicts one case, where a step learns from two: a third of half the time.
    assert made.seconds == pytest.approx(30 + 1600 + 1200 + 10 + 3 * 8 / 6)
    cases = [case.read_label_map() for case in cohort_of(dataset, settings()).train]
    volumes = [np.count_nonzero(case.data == 1) * 64.0 for case in cases]
    (horn,) = made.structures
    assert (horn.name, horn.cases) == ("horn", 3)
    assert horn.mean_mm3 == pytest.approx(np.mean(volumes), rel=1e-6)
    told = str(made)
    for words in ("16 x 16 x 16 voxels of 4 x 4 x 4 mm", "region: none: the scans are about as",
                  "segmenter, guided (shape)", "about 47 min", "memory 1.0 GiB of"):  # fmt: skip
        assert words in told
    assert made.warnings == ()


def test_a_stage_is_timed_by_its_own_steps_and_forgotten(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(guidance="none")
    stage = SegmentationStage(cohort_of(dataset, chosen), chosen)
    found = time_stage(stage, iterations=(0, 200))
    assert len(found.step_seconds) == 2
    assert all(0 < seconds < 60 for seconds in found.step_seconds)
    assert found.preparing_seconds > 0
    assert found.peak_bytes is None or found.peak_bytes > 10**7


def test_a_plan_times_every_kind_of_guidance(dataset: Dataset) -> None:
    for guidance in ("shape", "srn", "boundary"):
        made = sg.plan(dataset, settings(guidance=guidance))
        assert made.guided.title == f"segmenter, guided ({guidance})"
        assert made.guided.step_seconds > 0
        assert len(made.before) == {"shape": 2, "srn": 1, "boundary": 0}[guidance]


@pytest.mark.parametrize(("small", "expected"), [(10**6, (800, 400)), (8, (1600, 800))])
def test_iterations_that_are_not_given_suit_the_size_of_what_is_seen_at_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, small: int, expected: tuple[int, int]
) -> None:
    faked(monkeypatch)
    monkeypatch.setattr("shapeguide.training.settings.groups.SMALL_WINDOW_VOXELS", small)
    free = settings().segmentation.changed(dice_iterations=None, guided_iterations=None)
    chosen = settings().changed(segmentation=free)
    made = sg.plan(dataset, chosen)
    assert (made.plain.iterations, made.guided.iterations) == expected
    assert SegmentationStage(cohort_of(dataset, chosen), chosen).course.iterations == sum(expected)
    kept = sg.plan(dataset, chosen.changed(segmentation=free.changed(dice_iterations=30)))
    assert (kept.plain.iterations, kept.guided.iterations) == (30, expected[1])


def test_long_or_large_trainings_are_warned_of_with_the_ways_out(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, others=3000.0, peak=10 * GIB)
    monkeypatch.setattr(planning, "memory_bytes", lambda _: 11 * GIB)
    hours, memory = sg.plan(dataset, settings()).warnings
    assert "--time-budget" in hours
    assert "data.spacing_mm" in hours
    assert "10.0 GiB of 11.0 GiB" in memory


def test_what_cannot_be_held_in_memory_is_refused_before_it_is_tried(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = faked(monkeypatch)
    monkeypatch.setattr(planning, "memory_bytes", lambda _: 2**20)
    with pytest.raises(ConfigError, match=r"takes at least .* GiB of memory.*data\.spacing_mm"):
        sg.plan(dataset, settings())
    assert timing.stages == []


def test_a_budget_decides_how_many_iterations_there_are(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch)
    made = sg.plan(dataset, settings(), time_budget="1h")
    course = made.settings.segmentation
    # Nine tenths of an hour, less 40 s for all else, at 9.33 s and 1/75 s of validation each.
    assert course.iterations == int((3240 - 40) / (28 / 3 + 8 / 6 / 100)) == 342
    assert (course.dice_iterations, course.guided_iterations) == (228, 114)
    assert course.channels == (8, 16)
    assert made.seconds < 3240
    assert made.with_iterations(course.iterations + 1).seconds > 3240


def test_members_share_the_time(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch)
    one = sg.plan(dataset, settings(), time_budget="2h")
    two = sg.plan(dataset, settings(members=2), time_budget="2h")
    alone, both = (each.settings.segmentation.iterations for each in (one, two))
    assert both == pytest.approx(alone / 2, abs=1)
    assert two.seconds == pytest.approx(one.seconds, rel=0.01)
    assert f"2 x {two.plain.iterations}" in str(two)


def test_a_short_budget_halves_the_channels_and_then_says_what_would_fit(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = faked(monkeypatch)
    course = sg.plan(dataset, settings(), time_budget="10m").settings.segmentation
    assert course.channels == (4, 8)
    assert 100 <= course.iterations < 120
    assert timing.stages.count("shape") == 1  # what does not change is not timed again
    with pytest.raises(ConfigError, match=r"2 min are too short.*--time-budget 6m or more"):
        sg.plan(dataset, settings(), time_budget="2m")
    assert sg.plan(dataset, settings(), time_budget="6m").settings.segmentation.channels == (2, 4)


def test_a_dry_run_writes_nothing(
    cohort_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        str(cohort_folder), "--structure", "horn=1", "--out", str(tmp_path / "run"),
        "--preset", "quick", "--guidance", "none", "--device", "cpu", "--dry-run",
    ]  # fmt: skip
    before = sorted(cohort_folder.rglob("*"))
    assert commands.parse("train", words).run() == 0
    assert "seen at once: 16 x 16 x 16 voxels" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == []
    assert sorted(cohort_folder.rglob("*")) == before
    with pytest.raises(ConfigError, match="'soon' is no duration"):
        commands.parse("train", [*words, "--time-budget", "soon"]).run()


class KilledError(Exception):
    pass


def test_a_run_keeps_what_its_budget_chose(
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = settings()
    small = chosen.changed(restorer=chosen.restorer.changed(iterations=0))
    timing = faked(monkeypatch)
    with monkeypatch.context() as patch:
        # Killed after its first stage: the run folder itself states nothing yet.
        patch.setattr("shapeguide.workflows.train.train_segmenter", _killed)
        with pytest.raises(KilledError):
            sg.train(dataset, out=tmp_path, settings=small, time_budget="10m", progress=False)
    stated = json.loads((tmp_path / "shape" / "run.json").read_text())["settings"]["segmentation"]
    assert stated["channels"] == [4, 8]
    assert not (tmp_path / "run.json").exists()
    timing.stages.clear()
    seen: list[TrainSettings] = []
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "shapeguide"):
        patch.setattr(
            "shapeguide.workflows.train.train_segmenter",
            lambda *_, settings, **__: seen.append(settings),
        )
        sg.train(dataset, out=tmp_path, settings=small, time_budget="3h", progress=False)
    assert timing.stages == []
    assert "keeps them, whatever the time budget" in caplog.text
    assert seen[0].segmentation.model_dump(mode="json") == stated


def _killed(*_: Any, **__: Any) -> None:
    raise KilledError


def test_only_a_long_training_is_told_of_before_it_starts(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timing = faked(monkeypatch)
    cohort = cohort_of(dataset, settings())
    with caplog.at_level(logging.INFO, "shapeguide"):
        planning.tell_if_long(cohort, settings())
    assert timing.stages == []  # too little to be worth timing
    monkeypatch.setattr(planning, "UNTIMED_WORK", 1)
    with caplog.at_level(logging.INFO, "shapeguide"):
        planning.tell_if_long(cohort, settings())
    assert "300 iterations of about 8 s, together 40 min at least; memory 1.0 GiB" in caplog.text


def test_a_budget_on_a_damaged_run_is_a_clear_error(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = faked(monkeypatch)
    note = {"stage": "segmentation", "settings": {"segmentation": 3}, "dataset": {}}
    (tmp_path / "run.json").write_text(json.dumps(note | {"written_by": "shapeguide 0"}))
    with pytest.raises(ConfigError, match="segmentation: Input should be a valid dictionary"):
        sg.train(dataset, out=tmp_path, settings=settings(), time_budget="1h", progress=False)
    assert timing.stages == []


def test_activations_are_computed_again_where_a_step_might_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = (64, 64, 64)
    least = segmentation.least_step_bytes(settings(), shape)
    for there, again in ((None, False), (100 * least, False), (2 * least, True)):
        monkeypatch.setattr(segmentation, "memory_bytes", lambda _, there=there: there)
        assert segmentation.recomputes(settings(), shape) is again
    monkeypatch.setattr(segmentation, "memory_bytes", lambda _: None)
    machine = settings().machine.changed(activation_checkpoints=True)
    assert segmentation.recomputes(settings().changed(machine=machine), shape)

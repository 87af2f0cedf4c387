"""The paper's own systems in a study: each structure by itself, in its schedule and forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shapeguide.data.dataset import Dataset
from shapeguide.studies.systems.compare import pairs_to_compare
from shapeguide.studies.systems.design import SystemsDesign
from shapeguide.studies.systems.study import study_systems
from shapeguide.studies.systems.systems import AS_PUBLISHED, OTHERS, systems_named
from shapeguide.training.engine.log import read_log
from shapeguide.training.engine.run_folder import BRANCH_FILE
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import PRESETS, preset

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def halves(write_halves: Callable[..., Dataset], tmp_path: Path) -> Dataset:
    grid = {"spatial_shape": (24, 24, 24), "spacing_mm": (2.0, 2.0, 2.0)}
    return write_halves(tmp_path / "halves", count=4, **grid)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published systems with small networks and few iterations."""
    for name, system in AS_PUBLISHED.items():
        shape = {**system.changes["shape"], "iterations": 2, "channels": [2, 4], "quality_pairs": 4}
        few = {"channels": [4, 8], "dice_iterations": 3, "guided_iterations": 2}
        segmentation = {**system.changes["segmentation"], **few}
        changes = {**system.changes, "shape": shape, "segmentation": segmentation}
        monkeypatch.setitem(OTHERS, name, replace(system, changes=changes))


@pytest.mark.parametrize("base", ["default", "quick"])
def test_the_published_systems_train_as_the_preset_whatever_the_settings(base: str) -> None:
    paper = PRESETS["paper"]
    plain, guided = (
        AS_PUBLISHED[name].settings(preset(base), 3) for name in ("published_plain", "published")
    )
    assert (plain.guidance, guided.guidance) == ("none", "shape")
    for settings in (plain, guided):
        assert settings.seed == 3
        assert (settings.shape, settings.shape_loss) == (paper.shape, paper.shape_loss)
        assert settings.warp == paper.warp
        decay = {"average_decay": paper.segmentation.average_decay}
        assert settings.segmentation.changed(**decay) == paper.segmentation
        assert settings.data.normalisation == "volume"
        assert settings.machine.precision == "fp32"


def test_the_published_system_is_compared_with_its_own_baseline() -> None:
    pairs = pairs_to_compare(["plain", "published_plain", "published"])
    assert ("published", "published_plain") in pairs
    assert all(first != second for first, second in pairs)


def test_each_structure_is_trained_by_itself_and_guided_from_the_iterations_of_its_baseline(
    halves: Dataset, small: TrainSettings, tmp_path: Path, short: None
) -> None:
    train, test = halves.split_at_random(test_count=1)
    design = SystemsDesign(
        systems=systems_named(["published_plain", "published"]),
        seeds=(0,),
        regimes=("all",),
        corruptions=(),
        weights=("last",),
    )
    result = study_systems(
        train,
        test,
        out=tmp_path / "out",
        settings=small,
        design=design,
        keep_predictions=True,
        progress=False,
    )
    assert result.complete
    pictures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert pictures == {
        f"{kind}_{name}.jpg" for kind in ("cases", "surfaces") for name in ("upper", "lower")
    }
    assert set(result.scores["structure"]) == {"upper", "lower"}
    assert set(result.scores["postprocess"]) == {"none", "largest"}
    cells = tmp_path / "out" / "cells" / "all" / "seed0"
    for name in ("upper", "lower"):
        plain, guided = (
            cells / system / "run" / "structures" / name
            for system in ("published_plain", "published")
        )
        assert (plain / BRANCH_FILE).is_file()
        assert not (guided / BRANCH_FILE).exists(), "its Dice iterations are those of the baseline"
        assert "guide" not in read_log(plain / "log.jsonl")[-1]
        assert "guide" in read_log(guided / "log.jsonl")[-1]

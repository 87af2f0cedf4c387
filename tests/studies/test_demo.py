from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.studies.case_pictures import choose_cases
from shapeguide.studies.demo import DEMO_SETTINGS, demo
from shapeguide.studies.demo_files import DemoCohort, DemoFiles
from shapeguide.training.settings.groups import TrainSettings

FIGURES = {
    "training.png",
    "training-dark.png",
    "scores.png",
    "scores-dark.png",
    "shape_distances.png",
    "shape_distances-dark.png",
    "slices.jpg",
    "surfaces.jpg",
    "composite.png",
}
COHORT = DemoCohort(training_cases=2, test_cases=2)


@pytest.fixture(scope="module")
def tiny() -> TrainSettings:
    """So little training that only the machinery is tested."""
    return DEMO_SETTINGS.changed(
        data=DEMO_SETTINGS.data.changed(spacing_mm=(3.0, 3.0, 3.0)),
        shape=DEMO_SETTINGS.shape.changed(iterations=4, batch_size=2, quality_pairs=4),
        shape_loss=DEMO_SETTINGS.shape_loss.changed(accept_collapsed=True),
        restorer=DEMO_SETTINGS.restorer.changed(iterations=3, channels=(4, 8), batch_size=2),
        segmentation=DEMO_SETTINGS.segmentation.changed(
            channels=(4, 8), dice_iterations=10, guided_iterations=4, batch_size=1
        ),
        machine=DEMO_SETTINGS.machine.changed(device="cpu"),
    )


@pytest.fixture(scope="module")
def finished(tiny: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    demo(folder, settings=tiny, cohort=COHORT, progress=False)
    return folder


def written(folder: Path) -> dict[str, int]:
    """Time of the last change of every file but the tables of scores, which are made each time."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv"]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_the_demo_leaves_runs_predictions_scores_figures_and_a_page(finished: Path) -> None:
    for run in ("shape", "plain", "guided"):
        assert (finished / run / "model.json").is_file()
    for method in ("plain", "guided", "plain_largest", "guided_largest"):
        assert len(list((finished / "predictions" / method).glob("*.nii.gz"))) == 2
        assert len(pd.read_csv(finished / "scores" / f"{method}.csv")) == 2
    assert set(pd.read_csv(finished / "scores" / "comparison.csv")["first"]) == {
        "guided",
        "guided largest",
    }
    figures = {path.name: path.stat().st_size for path in (finished / "figures").iterdir()}
    assert set(figures) == FIGURES
    assert min(figures.values()) > 5000
    html = (finished / "index.html").read_text(encoding="utf-8")
    assert "14 iterations each" in html
    assert "guided, largest component" in html


def test_both_segmenters_start_alike_and_train_for_equally_many_iterations(finished: Path) -> None:
    plain, guided = (
        pd.read_json(finished / method / "log.jsonl", lines=True) for method in ("plain", "guided")
    )
    assert plain["iteration"].max() == guided["iteration"].max() == 14
    assert plain["dice"].iloc[0] == guided["dice"].iloc[0]
    assert "guide" in guided
    assert "guide" not in plain


def test_a_finished_demo_is_read_and_not_done_again(finished: Path, tiny: TrainSettings) -> None:
    before = written(finished)
    result = demo(finished, settings=tiny, cohort=COHORT, progress=False)
    after = written(finished)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == set()
    assert result.page.is_file()
    assert [row[0] for row in result.table()][:3] == ["method", "plain", "guided"]
    assert "uided" in result.headline
    assert set(result.seconds) >= {"cohort", "shape network", "shape restorer", "report"}


def test_a_demo_goes_on_where_it_was_stopped(
    finished: Path, tiny: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(finished, stopped)
    files = DemoFiles(stopped)
    files.page.unlink()
    lost = sorted(files.predictions("guided").glob("*.nii.gz"))[0]
    wanted = lost.read_bytes()
    lost.unlink()
    before = written(stopped)

    def write_report(files: DemoFiles, *_: object) -> None:
        files.page.write_text("a page")

    monkeypatch.setattr("shapeguide.studies.demo.write_report", write_report)
    demo(stopped, settings=tiny, cohort=COHORT, progress=False)
    after = written(stopped)
    assert lost.read_bytes() == wanted
    assert files.page.read_text() == "a page"
    kept = [name for name in before if name.startswith(("cohort", "shape", "plain", "guided"))]
    assert kept
    assert all(before[name] == after[name] for name in kept)


def test_another_demo_in_the_folder_is_refused(finished: Path, tiny: TrainSettings) -> None:
    with pytest.raises(ConfigError, match="holds another demo"):
        demo(finished, seed=1, settings=tiny, cohort=COHORT, progress=False)


def test_a_folder_of_something_else_is_neither_used_nor_deleted(tmp_path: Path) -> None:
    precious = tmp_path / "notes.txt"
    precious.write_text("do not lose me")
    with pytest.raises(ConfigError, match="is no folder of a demo"):
        demo(tmp_path, progress=False)
    assert precious.read_text() == "do not lose me"


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"demo\.json cannot be read as JSON"):
        demo(tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


def test_shown_cases_are_chosen_by_both_methods_alike() -> None:
    cases = ["a", "b", "c"]
    tables = {
        "plain": pd.DataFrame({"case": cases, "hausdorff_mm": [9.0, 2.0, 3.0]}),
        "guided": pd.DataFrame({"case": cases, "hausdorff_mm": [1.0, np.inf, 3.0]}),
    }
    assert choose_cases(tables) == {"best": "c", "median": "a", "worst": "b"}

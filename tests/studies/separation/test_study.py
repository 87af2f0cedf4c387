from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import shapeguide as sg
from shapeguide.cli import main
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.studies.separation import measure
from shapeguide.studies.separation.design import AS_PRINTED, Condition, SeparationDesign
from shapeguide.studies.separation.measure import Measured
from shapeguide.studies.separation.study import SeparationResult, study_separation
from shapeguide.studies.separation.tables import published_of
from shapeguide.studies.text import separation_rows
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import PRESETS, preset

COLUMNS = [
    *("dataset", "structure", "objective", "pose"),
    *("same", "different", "ratio", "auc", "rank1", "signature_std", "seconds"),
]
ONE = SeparationDesign(objectives=("pairwise",), poses=("canonical",), pairs=8)
DESIGN = SeparationDesign(objectives=("pairwise", "surface"), poses=("canonical",), pairs=8)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    description = sg.write_cohort(
        folder, count=5, seed=1, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0)
    )
    return sg.read_dataset(description).split_at_random(test_count=2, seed=0)


def tiny(**changes: object) -> TrainSettings:
    quick = preset("quick")
    settings = quick.changed(
        shape=quick.shape.changed(
            iterations=2, channels=(4, 8), batch_size=2, canonical_shape=12, quality_pairs=4
        ),
        machine=quick.machine.changed(device="cpu"),
    )
    return settings.changed(**changes)


def run(cohort: tuple[Dataset, Dataset], out: Path, **changes: Any) -> SeparationResult:
    """Table 1 of the cohort, without its figures."""
    settings = changes.pop("settings", tiny())
    design = changes.pop("design", ONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shapeguide.studies.separation.study.draw_figures", lambda *_: None)
        return study_separation(*cohort, out=out, settings=settings, design=design, progress=False)


@pytest.fixture(scope="module")
def finished(cohort: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table1") / "out"
    study_separation(*cohort, out=folder, settings=tiny(), design=DESIGN, progress=False)
    return folder


def times(folder: Path) -> dict[str, int]:
    """Time of the last change of every file of the cells."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("cells/**/*.*")}


def test_the_table_has_the_agreed_columns_and_a_row_for_each_cell(finished: Path) -> None:
    table = pd.read_csv(finished / "table1.csv")
    assert list(table.columns) == COLUMNS
    assert list(table["objective"]) == ["pairwise", "surface"]
    assert set(table["pose"]) == {"canonical"}
    assert (table["seconds"] > 0).all()


def test_the_figures_of_the_table_follow_from_its_pairs(finished: Path) -> None:
    table = pd.read_csv(finished / "table1.csv").set_index("objective")
    pairs = pd.read_csv(finished / "cells" / "horn-surface-canonical-seed0" / "pairs.csv")
    assert len(pairs) == 8
    row = table.loc["surface"]
    assert row["same"] == pytest.approx(pairs["same"].mean(), rel=1e-4)
    assert row["ratio"] == pytest.approx(pairs["different"].mean() / pairs["same"].mean(), rel=1e-4)
    intervals = pd.read_csv(finished / "table1_intervals.csv").set_index("objective").loc["surface"]
    for name in ("ratio", "auc", "rank1"):
        assert intervals[f"{name}_low"] <= row[name] + 1e-4
        assert row[name] <= intervals[f"{name}_high"] + 1e-4
    closer = [s < d for s in pairs["same"] for d in pairs["different"]]
    assert row["auc"] == pytest.approx(np.mean(closer), abs=1e-4)


def test_probes_and_figures_lie_beside_the_table(finished: Path) -> None:
    warps, errors = (pd.read_csv(finished / f"{name}.csv") for name in ("warps", "errors"))
    assert set(warps["variation"]) == {"rotation R", "rotation A", "rotation S", "scale"}
    assert warps["size"].max() == 30
    assert errors.groupby(["objective", "error"]).size().eq(6).all()
    assert set(errors["objective"]) == {"pairwise", "surface"}
    for name in ("separation", "warps", "errors"):
        assert (finished / "figures" / f"{name}_horn.png").stat().st_size > 20_000


def test_finished_cells_are_never_computed_again(
    cohort: tuple[Dataset, Dataset], finished: Path
) -> None:
    before, table = times(finished), (finished / "table1.csv").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shapeguide.studies.separation.study.draw_figures", pytest.fail)
        study_separation(*cohort, out=finished, settings=tiny(), design=DESIGN, progress=False)
    assert times(finished) == before
    assert (finished / "table1.csv").read_bytes() == table


def test_a_killed_experiment_goes_on_and_gives_the_same_table(
    cohort: tuple[Dataset, Dataset],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measure, "error_probe", killed)
        with pytest.raises(KeyboardInterrupt):
            run(cohort, tmp_path)
    model = tmp_path / "cells" / "horn-pairwise-canonical-seed0" / "model.json"
    trained = model.stat().st_mtime_ns
    seconds = json.loads((model.parent / "seconds_train.json").read_text())["seconds"]
    found = run(cohort, tmp_path).table
    assert found["seconds"].iloc[0] >= seconds > 0
    assert model.stat().st_mtime_ns == trained
    wanted = pd.read_csv(finished / "table1.csv").iloc[:1]
    pd.testing.assert_frame_equal(
        found.drop(columns="seconds"), wanted.drop(columns="seconds"), rtol=1e-4
    )


def test_a_seed_added_later_keeps_the_cells_and_adds_a_last_column(
    cohort: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    run(cohort, tmp_path)
    before = times(tmp_path)
    more = SeparationDesign(objectives=("pairwise",), poses=("canonical",), seeds=(1,), pairs=8)
    run(cohort, tmp_path, design=more)
    assert {path: times(tmp_path)[path] for path in before} == before
    table = pd.read_csv(tmp_path / "table1.csv")
    assert list(table.columns) == [*COLUMNS, "seed"]
    assert list(table["seed"]) == [0, 1]


def test_a_folder_of_other_settings_is_refused_with_the_difference(
    cohort: tuple[Dataset, Dataset], finished: Path
) -> None:
    settings = tiny()
    other = settings.changed(shape=settings.shape.changed(iterations=3))
    with pytest.raises(ConfigError, match=r"settings\.shape\.iterations was 2, is 3"):
        run(cohort, finished, settings=other)
    with pytest.raises(ConfigError, match=r"pairs was 8, is 9"):
        run(cohort, finished, design=SeparationDesign(pairs=9))
    train, test = cohort
    with pytest.raises(ConfigError, match=r"dataset\.train was"):
        run((train.select([train[0].id, train[1].id]), test), finished)


def test_a_structure_of_other_label_ids_is_refused(
    cohort: tuple[Dataset, Dataset], finished: Path
) -> None:
    train, test = (replace(side, labels={}).with_structures(horn=(1, 2)) for side in cohort)
    with pytest.raises(ConfigError, match=r"structures\.horn was \[1\], is \[1, 2\]"):
        run((train, test), finished)


def test_a_folder_of_something_else_is_not_touched(
    cohort: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("kept")
    with pytest.raises(ConfigError, match="is no folder of a study of separation"):
        run(cohort, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_damaged_measurement_is_named(cohort: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    run(cohort, tmp_path)
    measured = tmp_path / "cells" / "horn-pairwise-canonical-seed0" / "measured.json"
    measured.write_text('{"cell": {}}')
    with pytest.raises(CheckpointError, match=r"measured\.json is damaged"):
        run(cohort, tmp_path)


@pytest.mark.parametrize(("side", "role"), [(0, "training"), (1, "held-out")])
def test_a_single_case_on_a_side_is_refused(
    cohort: tuple[Dataset, Dataset], tmp_path: Path, side: int, role: str
) -> None:
    sides = list(cohort)
    sides[side] = sides[side].select([sides[side][0].id])
    with pytest.raises(ConfigError, match=f"{role} cases of at least 2 with horn, found 1"):
        run((sides[0], sides[1]), tmp_path / "out")


def test_two_scans_of_one_person_are_not_two_people(
    cohort: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, test = cohort
    twice = test.with_same_person([case.id for case in test])
    with pytest.raises(ConfigError, match="held-out cases of at least 2 with horn, found 1"):
        run((train, twice), tmp_path / "out")


def test_a_case_on_both_sides_is_refused(cohort: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    train, _ = cohort
    with pytest.raises(ConfigError, match=f"trained on: {train[0].id}"):
        run((train, train), tmp_path / "out")


def test_cases_that_lack_a_structure_are_left_out_and_counted(tmp_path: Path) -> None:
    description = sg.write_cohort(
        tmp_path / "c", count=5, seed=1, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0)
    )
    content = json.loads(description.read_text())
    content["labels"]["2"] = "upper part"
    description.write_text(json.dumps(content))
    dataset = sg.read_dataset(description).with_structures(lower=(1,), upper=(2,))
    for case in list(dataset)[1:]:
        assert case.label_map is not None
        stored = sg.read_label_map(case.label_map, structures=dataset.structures)
        labels = stored.data.copy()
        labels[12:] *= 2
        sg.write_label_map(replace(stored, data=labels), case.label_map)
    ids = [case.id for case in dataset]
    found = run((dataset.select(ids[:3]), dataset.select(ids[3:])), tmp_path / "out")
    counts = {
        cell.structure: (one.train_cases, one.train_lacking, one.test_cases)
        for cell, one in found.measured.items()
    }
    assert counts == {"lower": (3, 0, 2), "upper": (2, 1, 2)}
    assert "2 (1 lack it)" in {row[-2] for row in separation_rows(found.measured)}


def test_the_printed_schedule_is_that_of_the_paper_whatever_the_settings() -> None:
    shape = Condition("horn", AS_PRINTED, "grid", 3).settings(tiny()).shape
    paper = PRESETS["paper"].shape
    assert (shape.objective, shape.pose) == ("pairwise", "grid")
    assert (shape.iterations, shape.batch_size, shape.maps) == (200, 1, "binary")
    assert (shape.learning_rate, shape.decay) == (paper.learning_rate, "none")
    assert shape.channels == tiny().shape.channels


def test_a_cell_trains_on_all_training_cases_unless_told_otherwise() -> None:
    cell = Condition("horn", "surface", "grid", 3)
    assert cell.settings(tiny()).segmentation.validation_cases == 0
    given = tiny(segmentation=tiny().segmentation.changed(validation_cases=2))
    assert cell.settings(given).segmentation.validation_cases == 2
    assert cell.settings(given).seed == 3


def test_a_design_names_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="objectives: expected some of"):
        SeparationDesign(objectives=("pairwisse",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="poses"):
        SeparationDesign(poses=())
    with pytest.raises(ConfigError, match="seeds"):
        SeparationDesign(seeds=(1, 1))
    with pytest.raises(ConfigError, match="grid pose only"):
        SeparationDesign(objectives=(AS_PRINTED,), poses=("canonical",))


def test_published_figures_need_the_organ_and_the_side() -> None:
    assert published_of("left_caudate") == (0.120, 0.316)
    assert published_of("Hippocampus-R") == (0.088, 0.277)
    assert published_of("hippocampus") is None
    assert published_of("left_putamen") is None
    assert published_of("left and right caudate") is None


def test_published_figures_stand_above_the_cells_of_their_structure() -> None:
    figures = dict.fromkeys(Measured.__dataclass_fields__, 0.5)
    counts = {"train_cases": 5, "test_cases": 4, "train_lacking": 0, "test_lacking": 1}
    measured = Measured(**{**figures, **counts})  # type: ignore[arg-type]
    rows = separation_rows({Condition("caudate left", "surface", "grid", 0): measured})
    assert rows[1] == ("caudate left", "published", "grid", "0.120", "0.316", "2.63", *[""] * 6)
    assert rows[2][5] == "0.50 [0.50, 0.50]"
    assert rows[2][-2:] == ("5", "4 (1 lack it)")
    assert len({len(row) for row in rows}) == 1


def test_the_command_trains_prints_and_refuses_without_held_out_cases(
    cohort: tuple[Dataset, Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "separation", str(cohort[0].path), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "--test-count" in capsys.readouterr().err
    options = "--objectives surface --poses canonical --pairs 4 --preset quick --device cpu"
    shape = "--shape.iterations 1 --shape.batch-size 2 --shape.channels 4 8"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shapeguide.studies.separation.study.draw_figures", lambda *_: None)
        assert main([*command, "--test-count", "2", *options.split(), *shape.split()]) == 0
    shown = capsys.readouterr().out
    assert "rank-1" in shown
    assert "surface" in shown
    assert len(pd.read_csv(tmp_path / "out" / "table1.csv")) == 1

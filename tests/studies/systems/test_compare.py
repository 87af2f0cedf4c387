from __future__ import annotations

import itertools
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.report.theme import LIGHT, as_png
from shapeguide.storage.whole import write_table
from shapeguide.studies.scores import COLUMNS
from shapeguide.studies.study import StudyFiles
from shapeguide.studies.systems.compare import comparisons, pairs_to_compare, summary
from shapeguide.studies.systems.factorial import main_effects
from shapeguide.studies.systems.figures import (
    effects_figure,
    severities_figure,
    shown_regimes,
    systems_figure,
    write_figures,
)
from shapeguide.studies.systems.scoring import read_scores
from shapeguide.studies.systems.systems import SYSTEMS, GuidanceFactors, System, systems_named
from shapeguide.studies.text import cell_rows, effect_rows, summary_rows
from shapeguide.training.settings.groups import SegmentationSettings, TrainSettings
from shapeguide.training.settings.presets import preset

Score = tuple[float, float]
"""Dice and Hausdorff distance."""


def rows_of(
    system: str, scores: dict[tuple[str, int], Score], *, regime: str = "all", severity: int = 0
) -> list[dict[str, object]]:
    """Rows of `table2.csv` from scores by case and seed."""
    return [
        {
            "dataset": "d",
            "structure": "s",
            "regime": regime,
            "severity": severity,
            "system": system,
            "guidance": "none",
            "seed": seed,
            "case": case,
            "postprocess": postprocess,
            "dice": dice,
            "hausdorff_mm": far,
            "hd95_mm": far / 2,
            "assd_mm": far / 4,
            "missed": bool(np.isinf(far)),
            "weights": "last",
        }
        for (case, seed), (dice, far) in scores.items()
        for postprocess in ("none", "largest")
    ]


def table_of(*parts: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part], columns=list(COLUMNS))


def grid_of(
    dice: float, far: float, cases: int = 8, seeds: int = 2
) -> dict[tuple[str, int], Score]:
    """Scores that differ between cases, and by little between seeds."""
    return {
        (f"c{case}", seed): (dice + case / 100 + seed / 1000, far + case + seed / 10)
        for case in range(cases)
        for seed in range(seeds)
    }


def chosen(table: pd.DataFrame, **wanted: object) -> pd.Series:
    """The one row with these values."""
    kept = table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]
    assert len(kept) == 1
    return kept.iloc[0]


def test_the_summary_counts_missed_structures_beside_the_means() -> None:
    scores = {
        ("a", 0): (0.8, 4.0),
        ("a", 1): (0.6, 6.0),
        ("b", 0): (0.0, inf),
        ("b", 1): (1.0, 2.0),
    }
    found = summary(table_of(rows_of("plain", scores)))
    dice = chosen(found, postprocess="none", metric="dice")
    far = chosen(found, postprocess="none", metric="hausdorff_mm")
    assert dice["mean"] == pytest.approx(0.6)
    assert far["mean"] == pytest.approx(4.0)
    assert (dice["count"], far["count"], far["missed"]) == (4, 3, 1)
    assert (far["cases"], far["seeds"]) == (2, 2)


def test_two_scans_of_a_person_are_one_value_of_the_test() -> None:
    table = table_of(
        rows_of("plain", grid_of(0.7, 9.0)),
        rows_of("shape", grid_of(0.8, 5.0)),
    )
    twice = table.assign(person=table["case"].replace({"c1": "c0", "c3": "c2"}))
    far = chosen(
        comparisons(twice),
        first="shape", second="plain", metric="hausdorff_mm", postprocess="none",
    )  # fmt: skip
    assert (far["cases"], far["people"], far["seeds"], far["pairs"]) == (8, 6, 2, 16)
    assert (far["wins"], far["mean_difference"]) == (6, pytest.approx(-4.0))
    assert far["p"] == pytest.approx(2 / 2**6)
    means = chosen(summary(twice), system="plain", metric="hausdorff_mm", postprocess="none")
    alone = chosen(summary(table), system="plain", metric="hausdorff_mm", postprocess="none")
    assert means["mean"] == alone["mean"]
    assert (means["cases"], means["people"]) == (8, 6)
    assert (alone["cases"], alone["people"]) == (8, 8)


def test_degraded_images_are_summed_up_over_severities_and_over_corruptions() -> None:
    parts = [rows_of("plain", {("a", 0): (0.9, 1.0)})]
    for regime, severity, dice in (
        ("all+noise", 1, 0.6),
        ("all+noise", 2, 0.4),
        ("all+blur", 1, 0.3),
    ):
        parts.append(rows_of("plain", {("a", 0): (dice, 1.0)}, regime=regime, severity=severity))
    found = summary(table_of(*parts))
    found = found[(found["metric"] == "dice") & (found["postprocess"] == "none")]
    means = {
        (row.regime, row.severity): row.mean
        for row in found[["regime", "severity", "mean"]].itertuples(index=False)
    }
    assert means == pytest.approx(
        {
            ("all", "0"): 0.9,
            ("all+noise", "1"): 0.6,
            ("all+noise", "2"): 0.4,
            ("all+blur", "1"): 0.3,
            ("all+noise", "all"): 0.5,
            ("all+blur", "all"): 0.3,
            ("all+corrupted", "all"): 1.3 / 3,
            ("all+corrupted", "1"): 0.45,
            ("all+corrupted", "2"): 0.4,
        }
    )


def test_systems_are_compared_with_the_plain_one_and_with_the_guided_one() -> None:
    table = table_of(
        rows_of("plain", grid_of(0.7, 9.0)),
        rows_of("shape", grid_of(0.8, 5.0)),
        rows_of("acnn", grid_of(0.75, 7.0)),
    )
    found = comparisons(table)
    pairs = set(zip(found["first"], found["second"], strict=True))
    assert pairs == {("shape", "plain"), ("acnn", "plain"), ("shape", "acnn")}
    far = chosen(found, first="shape", second="plain", metric="hausdorff_mm", postprocess="none")
    assert far["mean_difference"] == far["low"] == far["high"] == pytest.approx(-4.0)
    assert (far["wins"], far["losses"], far["ties"]) == (8, 0, 0)
    assert far["p"] == pytest.approx(2 / 2**8)
    assert far["p_pairs"] < far["p"]
    # 3 pairs x 4 metrics x 2 post-processings, all equally small; 3 pairs within one test.
    assert far["p_holm"] == pytest.approx(24 * 2 / 2**8)
    assert far["p_holm_test"] == pytest.approx(3 * 2 / 2**8)


def test_who_misses_a_structure_is_worse_and_two_misses_tie() -> None:
    table = table_of(
        rows_of("plain", {("a", 0): (0.0, inf), ("b", 0): (0.0, inf), ("c", 0): (0.9, 3.0)}),
        rows_of("shape", {("a", 0): (0.5, 8.0), ("b", 0): (0.0, inf), ("c", 0): (0.9, 2.0)}),
    )
    far = chosen(comparisons(table), metric="hausdorff_mm", postprocess="none")
    assert (far["wins"], far["losses"], far["ties"]) == (2, 0, 1)
    assert (far["mean_first"], far["mean_second"], far["mean_difference"]) == (2.0, 3.0, -1.0)
    assert (far["missed_first"], far["missed_second"], far["pairs"]) == (1, 2, 3)


def test_without_a_plain_system_there_is_nothing_to_compare() -> None:
    assert comparisons(table_of(rows_of("acnn", grid_of(0.7, 9.0)))).empty


def test_the_factors_are_crossed_and_become_settings() -> None:
    factors = GuidanceFactors(
        alphas=(0.1, 0.3), balances=("none",), ramps=(0.0, 0.5), starts=(1.0,)
    )
    course = SegmentationSettings(dice_iterations=800, guided_iterations=400)
    systems = factors.systems(course)
    assert [system.name for system in systems[:3]] == [
        "plain",
        "a0.1-hard-none-r0.0",
        "a0.1-hard-none-r0.5",
    ]
    assert len(systems) == 1 + 2 * 2 * 1 * 2
    ramped = systems[2].settings(TrainSettings(), 7)
    assert (ramped.shape_loss.alpha, ramped.shape_loss.cap_form) == (0.1, "hard")
    assert (ramped.shape_loss.ramp_iterations, ramped.seed, ramped.guidance) == (200, 7, "shape")
    assert all(system.branches and system.guide == "shape" for system in systems[1:])


def test_an_earlier_start_leaves_less_to_dice_alone_and_trains_equally_long() -> None:
    factors = GuidanceFactors(
        alphas=(0.3,), cap_forms=("smooth",), balances=("gradient",), ramps=(0.5,), starts=(0.25, 1)
    )
    course = SegmentationSettings(dice_iterations=800, guided_iterations=400)
    plain, early, as_set = factors.systems(course)
    name = "a0.3-smooth-gradient-r0.5"
    assert [early.name, as_set.name] == [f"{name}-s0.25", name]
    assert (early.branches, as_set.branches) == (False, True)
    found = early.settings(TrainSettings(segmentation=course), 0)
    assert (found.segmentation.dice_iterations, found.segmentation.guided_iterations) == (200, 1000)
    assert found.shape_loss.ramp_iterations == 500
    assert plain.settings(TrainSettings(segmentation=course), 0).segmentation == (
        course.changed(segmenter="unet3d")
    )


def test_levels_out_of_range_or_repeated_are_errors() -> None:
    with pytest.raises(ConfigError, match="starts are shares of the Dice iterations"):
        GuidanceFactors(starts=(240.0,))
    with pytest.raises(ConfigError, match="ramps are shares"):
        GuidanceFactors(ramps=(0.0, 100.0))
    with pytest.raises(ConfigError, match="alpha: give at least one level, each once"):
        GuidanceFactors(alphas=(0.1, 0.1))


def test_a_main_effect_is_the_mean_over_all_combinations_with_the_level() -> None:
    factors = GuidanceFactors(
        alphas=(0.1, 0.3),
        cap_forms=("hard", "smooth"),
        balances=("none",),
        ramps=(0.0,),
        starts=(1,),
    )
    gains = {"a0.1-hard": 0.0, "a0.1-smooth": 1.0, "a0.3-hard": 2.0, "a0.3-smooth": 5.0}
    parts = [rows_of("plain", grid_of(0.8, 10.0))]
    parts += [
        rows_of(f"{name}-none-r0.0", grid_of(0.8, 10.0 - gain)) for name, gain in gains.items()
    ]
    effects = main_effects(table_of(*parts), factors)
    found = effects[(effects["metric"] == "hausdorff_mm") & (effects["postprocess"] == "none")]
    by_level = {(row.factor, row.level): row for row in found.itertuples()}
    assert by_level["alpha", 0.1].mean_difference == pytest.approx(-0.5)
    assert by_level["alpha", 0.3].mean_difference == pytest.approx(-3.5)
    assert by_level["cap_form", "hard"].mean_difference == pytest.approx(-1.0)
    assert by_level["cap_form", "smooth"].mean_difference == pytest.approx(-3.0)
    assert by_level["balance", "none"].systems == 4
    counted = effects[["missed", "missed_plain"]]
    assert (counted == 0).to_numpy().all()
    assert by_level["alpha", 0.3].p == pytest.approx(2 / 2**8)
    figure = effects_figure(effects, LIGHT)
    assert len(figure.axes) == 3
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:3] == ["alpha 0.1", "alpha 0.3", "cap_form hard"]
    text = effect_rows(effects)
    assert len(text) == 1 + 7 * 3
    assert text[5][3:7] == ("alpha", "0.3", "hausdorff_mm", "-3.50 mm")


def test_systems_share_a_guide_unless_they_change_its_settings() -> None:
    names = ("plain", "shape", "shape_all_maps", "acnn")
    assert [system.guide for system in systems_named(names)] == [None, "shape", "shape", "acnn"]
    own = System("contrastive", guidance="shape", changes={"shape": {"objective": "contrastive"}})
    assert own.guide == "contrastive"
    assert own.branches
    assert own.guide_settings(preset("quick"), 3).shape.objective == "contrastive"
    assert not System("wide", changes={"segmentation": {"batch_size": 1}}).branches


def test_what_guides_branches_from_the_same_segmenter_without_guidance() -> None:
    branching = [name for name, system in SYSTEMS.items() if system.branches]
    assert branching == [
        "shape",
        "shape_all_maps",
        "acnn",
        "acnn_all_maps",
        "srn",
        "srn_all_maps",
        "boundary",
        "hausdorff",
    ]
    assert {SYSTEMS[name].unguided for name in branching} == {"plain"}
    guided, slices = systems_named(["vnet_shape", "unet2d_acnn"])
    assert (guided.segmenter, guided.guide, guided.unguided) == ("vnet", "shape", "vnet")
    assert (slices.segmenter, slices.guide, slices.unguided) == ("unet2d", "acnn", "unet2d")
    assert guided.branches
    assert slices.branches


def test_another_segmenter_that_is_guided_is_compared_with_itself_without_guidance() -> None:
    names = ("plain", "vnet", "vnet+restorer", "vnet_shape", "vnet_shape+restorer")
    assert set(pairs_to_compare(names)) == {
        *((name, "plain") for name in names[1:]),
        ("vnet+restorer", "vnet"),
        ("vnet_shape", "vnet"),
        ("vnet_shape+restorer", "vnet"),
        ("vnet_shape+restorer", "vnet_shape"),
    }


def test_a_rival_can_be_held_to_the_gradient_of_shape() -> None:
    (balanced,) = systems_named(["acnn_balanced"])
    assert (balanced.guidance, balanced.guide, balanced.branches) == ("acnn", "acnn", True)
    found = balanced.settings(preset("quick"), 0)
    assert found.is_balanced
    assert not systems_named(["acnn"])[0].settings(preset("quick"), 0).is_balanced


def test_unknown_systems_are_named_beside_the_known() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown systems: unet4d; choose from plain, .*, as in vnet_shape, .* acnn_balanced",
    ):
        systems_named(["plain", "unet4d"])
    with pytest.raises(ConfigError, match="given twice"):
        systems_named(["plain", "plain"])


def test_the_figure_has_a_column_for_clean_images_and_one_for_all_corruptions() -> None:
    table = table_of(
        rows_of("plain", grid_of(0.7, 9.0)),
        rows_of("shape", grid_of(0.8, 5.0)),
        rows_of("plain", grid_of(0.5, 12.0), regime="all+noise", severity=2),
        rows_of("shape", grid_of(0.6, 11.0), regime="all+noise", severity=2),
    )
    found = summary(table)
    assert shown_regimes(found) == [("all", "0"), ("all+corrupted", "all")]
    figure = systems_figure(found, LIGHT)
    assert len(figure.axes) == 2 * 3
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["plain", "shape"]
    assert len(as_png(figure, dots_per_inch=50)) > 5000
    text = summary_rows(found)
    assert [row[:4] for row in text[1:3]] == [
        ("s", "all", "last", "plain"),
        ("s", "all", "last", "shape"),
    ]
    # Dice 0.7 to 0.77 over eight cases, 0.001 apart between seeds.
    assert text[1][4].startswith("0.735 (0.7")
    assert " to " in text[1][4]


def test_with_several_severities_a_second_figure_has_a_line_for_each_system(
    tmp_path: Path,
) -> None:
    parts = [rows_of(name, grid_of(0.8, 5.0)) for name in ("plain", "shape", "acnn")]
    for severity, dice in ((1, 0.7), (3, 0.5)):
        parts += [
            rows_of(name, grid_of(dice, 9.0), regime="all+noise", severity=severity)
            for name in ("plain", "shape", "acnn")
        ]
    found = summary(table_of(*parts))
    figure = severities_figure(found, LIGHT)
    assert len(figure.axes) == 3
    lines = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    assert list(lines) == ["plain", "shape", "acnn"]
    assert list(np.asarray(lines["plain"].get_xdata())) == [0, 1, 3]
    assert np.asarray(lines["acnn"].get_ydata()) == pytest.approx([0.8355, 0.7355, 0.5355])
    write_figures(StudyFiles(tmp_path), found)
    one = found[found["severity"].isin(["0", "1"])]
    write_figures(StudyFiles(tmp_path / "one"), one)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert names == {
        *("figures/s.png", "figures/s-dark.png"),
        *("figures/s_severities.png", "figures/s_severities-dark.png"),
        *("one/figures/s.png", "one/figures/s-dark.png"),
    }


def test_seconds_of_cells_stand_beside_their_names() -> None:
    cells = pd.DataFrame(
        {
            "cell": ["all/0/shape"],
            "guide_seconds": [1.4],
            "train_seconds": [9.6],
            "score_seconds": [3.0],
        }
    )
    assert cell_rows(cells)[1] == ("all/0/shape", "1", "10", "3")


def test_numbers_along_narrow_panels_do_not_run_into_each_other() -> None:
    parts = []
    for regime in ("all", "few5", "few3"):
        parts.append(rows_of("plain", grid_of(0.7, 9.0), regime=regime))
        parts.append(rows_of("a0.1-hard-none-r0.0", grid_of(0.7123, 8.8877), regime=regime))
    factors = GuidanceFactors((0.1,), ("hard",), ("none",), (0.0,), (1.0,))
    figure = effects_figure(main_effects(table_of(*parts), factors), LIGHT)
    as_png(figure)
    for row in range(3):
        boxes = [
            label.get_window_extent()
            for axes in figure.axes[3 * row : 3 * row + 3]
            for label in axes.get_xticklabels()
            if label.get_text()
        ]
        inside = [box for box in boxes if box.width > 0]
        assert len(inside) > 3
        ordered = sorted(inside, key=lambda box: box.x0)
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(ordered))


def test_cases_called_na_nan_and_null_stay_cases(tmp_path: Path) -> None:
    names = ["NA", "nan", "null", "None", "007", "=1+1"]
    table = table_of(rows_of("plain", grid_of(0.7, 9.0)), rows_of("shape", grid_of(0.8, 5.0)))
    cases = sorted(table["case"].unique())
    table = table[table["case"].isin(cases[: len(names)])]
    table["case"] = table["case"].map(dict(zip(cases, names, strict=False)))
    write_table(tmp_path / "scores.csv", table[list(COLUMNS)])
    found = read_scores(tmp_path / "scores.csv")
    assert set(found["case"]) == set(names)
    assert set(summary(found)["cases"]) == {len(names)}
    assert set(comparisons(found)["people"]) == {len(names)}


@pytest.mark.parametrize("content", ["", "case\n1\n", "a,b\n1\n", "\x00\x01", '"'])
def test_damaged_scores_of_a_cell_are_an_error_that_names_the_file(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(CheckpointError, match=r"scores\.csv"):
        read_scores(tmp_path / "scores.csv")

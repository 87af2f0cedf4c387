from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from findings import main, renew_findings
from shapeguide.errors import ConfigError, DataError

Rows = Sequence[Mapping[str, object]]


def write(folder: Path, name: str, rows: Rows) -> Path:
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder


def page(tmp_path: Path, *blocks: str) -> Path:
    path = tmp_path / "findings.md"
    marked = "\n\nProse.\n\n".join(f"<!-- {block} -->\nold\n<!-- end -->" for block in blocks)
    path.write_text(f"# Findings\n\n{marked}\n\nThe end.\n")
    return path


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def summary_rows() -> Rows:
    shared = {"dataset": "D", "structure": "horn", "severity": "0", "postprocess": "largest"}
    figures = [
        ("few3", "none", "dice", 0.8004, 0.79, 0.81),
        ("few3", "none", "hausdorff_mm", 4.006, 3.5, 4.5),
        ("few3", "shape", "dice", 0.82, 0.81, 0.83),
        ("all", "none", "dice", 0.9, 0.89, 0.91),
    ]
    names = ("regime", "system", "metric", "mean", "low", "high")
    counts = {"median": 1.0, "count": 9, "missed": 2, "cases": 3, "seeds": 3}
    rows = [{**shared, **dict(zip(names, row, strict=True)), **counts} for row in figures]
    tests = ("dataset", "structure", "regime", "severity", "postprocess", "system")
    order = (*tests, "metric", "mean", "low", "high", *counts)
    return [{name: row[name] for name in order} for row in rows]


def test_a_block_is_replaced_and_the_prose_stays(tmp_path: Path) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    path = page(tmp_path, "table2:task04 regime=few3")
    assert renew_findings(path, [results]) == 1
    assert lines_of(path) == [
        "# Findings",
        "",
        "<!-- table2:task04 regime=few3 -->",
        "",
        "*Dataset D, structure horn, regime few3, severity 0, postprocess largest, cases 3, "
        "seeds 3; mean with 95 % interval.*",
        "",
        "| system | Dice | Hausdorff distance (mm) | missed |",
        "|---|---|---|---|",
        "| none | 0.800 [0.790, 0.810] | 4.01 [3.50, 4.50] | 2 |",
        "| shape | 0.820 [0.810, 0.830] | – | 2 |",  # noqa: RUF001
        "",
        "<!-- end -->",
        "",
        "The end.",
    ]


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    path = page(tmp_path, "table2:task04", "table2:task04 system=shape metric=dice")
    assert renew_findings(path, [results]) == 2
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    assert renew_findings(path, [results]) == 2
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)


def test_new_results_give_new_numbers(tmp_path: Path) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    path = page(tmp_path, "table2:task04 system=shape")
    renew_findings(path, [results])
    write(results, "table2_summary.csv", [{**row, "mean": 0.5} for row in summary_rows()])
    renew_findings(path, [results])
    assert "| shape | 0.500 [0.810, 0.830] | 2 |" in lines_of(path)


def test_a_summary_with_a_column_for_each_metric_reads_the_same(tmp_path: Path) -> None:
    wide = {
        "structure": "horn",
        "system": "none",
        "dice_mean": 0.8,
        "dice_low": 0.7,
        "dice_high": 0.9,
        "hd95_mm_mean": 2.0,
        "hd95_mm_low": 1.0,
        "hd95_mm_high": 3.0,
        "missed": 0,
    }
    path = page(tmp_path, "table2:r")
    renew_findings(path, [write(tmp_path / "r", "table2_summary.csv", [wide])])
    assert "| system | Dice | HD95 (mm) | missed |" in lines_of(path)
    assert "| none | 0.800 [0.700, 0.900] | 2.00 [1.00, 3.00] | 0 |" in lines_of(path)


def test_comparisons_show_difference_interval_and_corrected_p(tmp_path: Path) -> None:
    row = {
        "structure": "horn", "first": "shape", "second": "none", "metric": "hausdorff_mm",
        "mean_first": 3.0, "mean_second": 4.5, "mean_difference": -1.5, "low": -2.0, "high": -1.0,
        "p": 0.00001, "p_pairs": 0.0, "p_holm": 0.0004, "wins": 7, "losses": 1, "ties": 0,
        "cases": 8, "missed_first": 0, "missed_second": 1,
    }  # fmt: skip
    path = page(tmp_path, "comparisons:r")
    renew_findings(path, [write(tmp_path / "r", "table2_comparisons.csv", [row])])
    assert lines_of(path)[6:9] == [
        "| first | second | metric | difference | p | p, corrected (Holm, all) | "
        "wins / losses / ties | missed |",
        "|---|---|---|---|---|---|---|---|",
        "| shape | none | Hausdorff distance (mm) | -1.50 [-2.00, -1.00] | < 0.0001 | 0.0004 | "
        "7 / 1 / 0 | 0 / 1 |",
    ]


def test_main_effects_of_the_factorial_experiment_are_differences_too(tmp_path: Path) -> None:
    row = {"factor": "alpha", "level": 0.3, "metric": "dice", "systems": 4}
    row |= {"mean_difference": 0.0123, "low": 0.01, "high": 0.02, "p": 0.03, "cases": 8, "seeds": 2}
    other = {**row, "factor": "cap_form", "level": "hard"}
    path = page(tmp_path, "factorial:r factor=alpha")
    renew_findings(path, [write(tmp_path / "r", "factorial.csv", [row, other])])
    assert "| 0.3 | Dice | +0.012 [+0.010, +0.020] | 0.030 |" in lines_of(path)


def test_table_1_joins_its_intervals_and_the_published_figures(tmp_path: Path) -> None:
    cell = {"dataset": "D", "structure": "left_caudate", "objective": "surface", "pose": "grid"}
    figures = {"same": 0.1, "different": 0.5, "ratio": 5.0, "auc": 0.991, "rank1": 0.925}
    results = write(
        tmp_path / "r", "table1.csv", [{**cell, **figures, "signature_std": 0.02, "seconds": 61.7}]
    )
    path = page(tmp_path, "table1:r")
    renew_findings(path, [results])
    assert "| surface | grid | 0.1 | 0.5 | 5.00 | 0.991 | 0.93 | 0.02 | 62 |" in lines_of(path)
    ends = {"ratio_low": 4.0, "ratio_high": 6.0, "auc_low": 0.98, "auc_high": 1.0}
    ends |= {"rank1_low": 0.9, "rank1_high": 0.95}
    write(results, "table1_intervals.csv", [{**cell, "seed": 0, **ends}])
    write(
        results, "published.csv",
        [{"structure": "left_caudate", "same": 0.12, "different": 0.316, "ratio": 2.6333}],
    )  # fmt: skip
    renew_findings(path, [results])
    found = lines_of(path)
    assert "| published | grid | 0.120 | 0.316 | 2.63 | – | – | – | – |" in found  # noqa: RUF001
    assert (
        "| surface | grid | 0.1 | 0.5 | 5.00 [4.00, 6.00] | 0.991 [0.980, 1.000] | "
        "0.93 [0.90, 0.95] | 0.02 | 62 |"
    ) in found


def test_probes_have_a_column_for_each_size_and_each_kind_of_error(tmp_path: Path) -> None:
    cell = {"objective": "surface", "pose": "canonical", "seed": 0}
    warps = [
        {**cell, "variation": "scale", "size": size, "distance": d, "low": d - 0.1, "high": d + 0.1}
        for size, d in ((0.6, 0.5), (1.6, 0.75))
    ]
    errors = [
        {**cell, "error": kind, "grade": 0.1, "spearman": rho, "monotone": rises}
        for kind, rho, rises in (("hole", 0.951, True), ("erosion", 0.5, False))
    ]
    results = write(tmp_path / "r", "warps.csv", warps)
    write(results, "errors.csv", errors)
    path = page(tmp_path, "warps:r variation=scale", "errors:r")
    renew_findings(path, [results])
    found = lines_of(path)
    assert "| objective | pose | 0.6 | 1.6 |" in found
    assert "| surface | canonical | 0.50 [0.40, 0.60] | 0.75 [0.65, 0.85] |" in found
    assert "| objective | pose | hole | erosion |" in found
    assert "| surface | canonical | 0.95, rises | 0.50, does not always rise |" in found


def test_seconds_are_shown_as_they_are(tmp_path: Path) -> None:
    results = write(
        tmp_path / "r", "table2_cells.csv", [{"cell": "all/0/none", "train_seconds": 123.456}]
    )
    path = page(tmp_path, "seconds:r")
    renew_findings(path, [results])
    assert "| all/0/none | 123 |" in lines_of(path)


def test_marks_in_code_and_other_comments_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "findings.md"
    text = "```\n<!-- tabel2:x -->\n<!-- end -->\n```\n\n<!-- a note: to myself -->\n"
    path.write_text(text)
    assert renew_findings(path, []) == 0
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("tabel2:task04", r"line 3: unknown block 'tabel2'; known are table1, .*comparisons"),
        ("table2:task05", r"line 3: no results folder task05 was given; given are task04"),
        ("table2:task04 regime", r"line 3: 'regime' does not choose rows"),
    ],
)
def test_a_block_that_cannot_be_read_is_named(tmp_path: Path, block: str, message: str) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    path = page(tmp_path, block)
    before = path.read_text()
    with pytest.raises(ConfigError, match=message):
        renew_findings(path, [results])
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("table1:task04", r"line 3: .*table1\.csv is missing; finish the study first"),
        ("table2:task04 regim=few3", r"has no column regim; it has dataset, structure, regime"),
        ("table2:task04 regime=few5", r"has regime=few5; there: few3, all"),
    ],
)
def test_a_table_that_is_not_there_is_named(tmp_path: Path, block: str, message: str) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    with pytest.raises(DataError, match=message):
        renew_findings(page(tmp_path, block), [results])


def test_a_block_without_an_end_and_an_end_without_a_block_are_refused(tmp_path: Path) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    path = tmp_path / "findings.md"
    path.write_text("<!-- table2:task04 -->\n")
    with pytest.raises(ConfigError, match="line 1: the block is not closed; close it with"):
        renew_findings(path, [results])
    path.write_text("<!-- table2:task04 -->\n<!-- table2:task04 -->\n<!-- end -->\n")
    with pytest.raises(ConfigError, match="line 1: the block is not closed before the next"):
        renew_findings(path, [results])
    path.write_text("text\n<!-- end -->\n")
    with pytest.raises(ConfigError, match="line 2: an end without a block"):
        renew_findings(path, [results])


def test_results_folders_must_exist_and_have_different_names(tmp_path: Path) -> None:
    path = page(tmp_path, "table2:task04")
    with pytest.raises(DataError, match="there is no such results folder"):
        renew_findings(path, [tmp_path / "task04"])
    (tmp_path / "other").mkdir()
    folders = [write(tmp_path / part / "task04", "a.csv", []) for part in ("", "other")]
    with pytest.raises(ConfigError, match="have the same name"):
        renew_findings(path, folders)


def test_a_page_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"findings\.md: cannot be read"):
        renew_findings(tmp_path / "findings.md", [])


def test_a_system_named_none_is_no_missing_value(tmp_path: Path) -> None:
    rows = [{**row, "system": "None"} for row in summary_rows()]
    path = page(tmp_path, "table2:r system=None metric=dice regime=all")
    renew_findings(path, [write(tmp_path / "r", "table2_summary.csv", rows)])
    assert "| None | 0.900 [0.890, 0.910] | 2 |" in lines_of(path)


def test_the_command_renews_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write(tmp_path / "task04", "table2_summary.csv", summary_rows())
    path = page(tmp_path, "table2:task04")
    assert main([str(results), "--out", str(path)]) == 0
    assert "1 tables" in capsys.readouterr().out
    assert "old" not in lines_of(path)

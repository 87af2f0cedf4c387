"""Tables: every text and number comes back, formulas stay text, damage is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapeguide.errors import DataError
from shapeguide.storage.whole import read_table, write_table

NAMES = [
    *("NA", "nan", "null", "None", "", "007", "1e5", "-5", "+1", "=cmd|' /C calc'!A0", "@x", "-"),
    *("'=x", "''=x", "'x", "'", "''", "\t=1", "a,b", 'a "b"', "two\nlines", "\nfirst", "ä", "True"),
]


def test_every_text_comes_back_as_it_was(tmp_path: Path) -> None:
    table = pd.DataFrame({"case": NAMES, "dice": range(len(NAMES))})
    write_table(tmp_path / "a.csv", table)
    back = read_table(tmp_path / "a.csv", ["case", "dice"], text=["case"])
    assert back["case"].tolist() == NAMES
    assert back["dice"].tolist() == table["dice"].tolist()


def test_a_column_of_nothing_but_an_empty_text_comes_back(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", pd.DataFrame({"case": ["", "a", ""]}))
    assert read_table(tmp_path / "a.csv", ["case"], text=["case"])["case"].tolist() == ["", "a", ""]


def test_line_ends_in_text_become_plain(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", pd.DataFrame({"why": ["a\r\nb", "a\rb"], "n": [1, 2]}))
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()
    assert read_table(tmp_path / "a.csv", ["why"], text=["why"])["why"].tolist() == ["a\nb"] * 2


def test_no_cell_is_a_formula_to_a_spreadsheet_program(tmp_path: Path) -> None:
    dangerous = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1"]
    write_table(tmp_path / "a.csv", pd.DataFrame({"case": dangerous, "mm": -1.5}))
    with (tmp_path / "a.csv").open(newline="") as file:
        cells = [row[0] for row in csv.reader(file)]
    assert cells == ["case", *("'" + text for text in dangerous[:5]), "'\n=1", "''=1"]


def test_numbers_and_truth_values_come_back_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000) * 10.0 ** rng.integers(-30, 30, 2000)
    values[:3] = np.nan, np.inf, -np.inf
    table = pd.DataFrame({"mm": values, "n": np.arange(2000), "found": values > 0})
    write_table(tmp_path / "a.csv", table)
    back = read_table(tmp_path / "a.csv", ["mm", "n", "found"], text=[])
    pd.testing.assert_frame_equal(back, table, check_exact=True)


def test_missing_truth_values_and_texts_stay_missing(tmp_path: Path) -> None:
    table = pd.DataFrame({"found": [True, None, False], "why": ["=a", None, "no"], "none": np.nan})
    write_table(tmp_path / "a.csv", table)
    back = read_table(tmp_path / "a.csv", ["found", "why"], text=[])
    assert back["found"].tolist()[::2] == [True, False]
    assert back["why"].tolist()[::2] == ["=a", "no"]
    assert back.isna().to_numpy().tolist() == table.isna().to_numpy().tolist()


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", pd.DataFrame({"case": [], "dice": []}))
    back = read_table(tmp_path / "a.csv", ["case", "dice"], text=["case"])
    assert back.shape == (0, 2)
    assert list(back.columns) == ["case", "dice"]


def test_a_number_of_thousands_of_digits_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"case,dice\na,{'9' * 5000}\nb,{'9' * 30}\n")
    assert len(read_table(tmp_path / "a.csv", ["case"], text=["case"])) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_a_spreadsheet_program_saves_again_is_read(
    tmp_path: Path, encoding: str, line_end: str
) -> None:
    (tmp_path / "a.csv").write_bytes(f"case,dice{line_end}ä,0.5{line_end}".encode(encoding))
    back = read_table(tmp_path / "a.csv", ["case", "dice"], text=["case"])
    assert back.to_numpy().tolist() == [["ä", 0.5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column case, dice"),
        (b"case;dice\na;0,5\n", "separated by semicolons: save it with commas"),
        (b"Case,dice\na,1\n", "no column case, found Case, dice"),
        (b"case,dice\na,1,2\n", "row 1 has 3 cells, expected 2"),
        (b"case,dice\na\n", "row 1 has 1 cells, expected 2"),
        (b"case,dice,case\na,1,b\n", "two columns have one name"),
        (b'case,dice\n"a,1\n', "unexpected end of data"),
        ("case,dice\nMüller,1\n".encode("latin-1"), "utf-8"),
        (b"case,dice\n" + b"x" * 200_000 + b",1\n", "field larger than"),
    ],
)
def test_damage_is_refused_with_the_way_out(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / "a.csv", ["case", "dice"], text=["case"])
    assert str(caught.value).endswith("delete it, or restore it from a copy")


def test_a_table_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_table(tmp_path / "absent.csv", ["case"], text=["case"])

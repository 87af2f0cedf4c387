"""JSON files: what is written comes back, and what is no JSON is refused with its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shapeguide.errors import DataError
from shapeguide.storage.whole import parse_json, read_json, write_json


def test_json_is_readable_and_comes_back(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True], "ä": {"b": "x" * 100, "seed": 2**64 - 1}}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == content
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("content", [float("nan"), float("inf"), {"name": "\ud800"}])
def test_what_is_no_json_is_not_written(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match=r"b\.json cannot be written as JSON"):
        write_json(tmp_path / "b.json", content)
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"a": 1', "Expecting"),
        ("1" * 5000, "digits"),
        ("-" + "1" * 30, "more than 64 bits"),
        ("1e999", "larger than any float64"),
        ("[NaN]", "NaN is no number in JSON; write null"),
        ("-Infinity", "write null"),
        (r'"\ud800"', "surrogates not allowed"),
        (r'{"\udfff": 1}', "surrogates not allowed"),
        ("[" * 100_000, "recursion"),
        ('{"a": 1, "b": 2, "a": 3}', "the name 'a' stands twice"),
    ],
)
def test_damaged_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_json(text, "line 3 of log.jsonl")
    assert str(caught.value).startswith("line 3 of log.jsonl cannot be read as JSON: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_file_that_is_not_there_or_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes('"Müller"'.encode("latin-1"))
    for name in ("absent.json", "latin.json"):
        with pytest.raises(DataError, match=name):
            read_json(tmp_path / name)


def test_a_byte_order_mark_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]

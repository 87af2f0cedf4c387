from __future__ import annotations

from pathlib import Path

import pytest

from shapeguide.errors import DataError
from shapeguide.report.page import (
    Card,
    Page,
    Picture,
    Section,
    Table,
    render_page,
    with_units,
    write_page,
)
from shapeguide.report.theme import LIGHT, as_png, new_figure


def page_with(*pictures: Picture, name: str = "guided") -> Page:
    return Page(
        title="A comparison",
        headline="No clear difference.",
        lead="Few cases.",
        cards=(Card("Dice", ((name, "0.871"), ("plain", "0.870")), "no clear difference", "note"),),
        sections=(
            Section(
                "Scores",
                words=("Words.",),
                sentences=("One sentence.",),
                tables=(Table("Means", ("method", "Dice"), ((name, "0.871"),), "a note"),),
                pictures=pictures,
            ),
        ),
        files=(("scores/", "tables"),),
        footer="The end.",
    )


def test_the_page_shows_numbers_and_words() -> None:
    html = render_page(page_with())
    for text in ("0.871", "0.870", "No clear difference.", "One sentence.", "a note", "scores/"):
        assert text in html


def test_a_number_stays_on_the_line_of_its_unit() -> None:
    assert with_units("6.61 mm (95 % interval), 3 mmm") == "6.61\xa0mm (95\xa0% interval), 3 mmm"


def test_names_are_escaped_wherever_they_stand() -> None:
    html = render_page(page_with(name="<script>alert('x')</script>"))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 2


def test_the_page_holds_its_pictures_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    light, dark = tmp_path / "a.png", tmp_path / "a-dark.png"
    for path in (light, dark):
        path.write_bytes(as_png(new_figure(1, 1, LIGHT)))
    written = tmp_path / "page" / "index.html"
    write_page(page_with(Picture(light, 'an "alt" text', "caption", dark)), written)
    html = written.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 2
    assert "an &#34;alt&#34; text" in html
    assert "http" not in html
    assert "prefers-color-scheme: dark" in html


def test_a_missing_or_foreign_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        render_page(page_with(Picture(tmp_path / "gone.png", "", "")))
    with pytest.raises(DataError, match=r"notes\.txt"):
        render_page(page_with(Picture(tmp_path / "notes.txt", "", "")))

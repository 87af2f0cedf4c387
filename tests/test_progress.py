"""The progress bar where it cannot be redrawn."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace

import pytest
from rich.console import Console

from shapeguide.progress import Figures, ProgressBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its only item is the time in seconds."""
    now = [0.0]
    stub = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("shapeguide.progress.time", stub)
    return now


def test_without_a_terminal_a_line_is_written_now_and_then(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, logger="shapeguide"),
        ProgressBar("segmenter", total=100, done=10, shown=True) as bar,
    ):
        for second in range(1, 151):
            clock[0] = float(second)
            bar.update(10 + second // 2, {"dice": 0.25} if second == 50 else None)

    assert caplog.messages == [
        "segmenter 40/100  0.5 it/s  dice 0.25",
        "segmenter 70/100  0.5 it/s  dice 0.25",
    ]


def test_a_bar_that_is_not_shown_writes_no_line(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, logger="shapeguide"),
        ProgressBar("predict", total=10, done=0, shown=False) as bar,
    ):
        clock[0] = 1000.0
        bar.update(5)

    assert caplog.messages == []


@pytest.mark.parametrize("width", [80, 120])
def test_bar_count_rate_and_time_left_stay_on_one_line_whatever_the_figures(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    figures = dict.fromkeys(("dice", "cross_entropy", "shape", "shape_distance"), 0.123456)
    with ProgressBar("guided segmenter", total=1200, done=0, shown=True) as bar:
        now = [0.0]
        bar._progress.get_time = lambda: now[0]
        for done in range(800, 1000):
            now[0] += 0.5
            bar.update(done, figures)
        shown = Console(width=width, file=io.StringIO(), record=True)
        shown.print(bar._progress.get_renderable())
    lines = shown.export_text().splitlines()
    assert len(lines) == 1
    assert len(lines[0].rstrip()) <= width
    for part in ("guided segmenter", "━" * 10, "999/1200", "2.00 it/s", "0:01:41", "dice 0.123"):
        assert part in lines[0]
    assert ("cross_entropy 0.123" in lines[0]) == (width == 120)


def test_figures_that_do_not_fit_are_left_out_whole() -> None:
    figures = Figures(("dice 0.25", "shape 1.5"))
    assert [figures.fitting(n) for n in (8, 9, 19, 20)] == [
        "",
        "dice 0.25",
        "dice 0.25",
        "dice 0.25  shape 1.5",
    ]


def test_what_is_said_without_a_bar_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with ProgressBar("predict", total=10, done=0, shown=False) as bar:
        bar.say("stopping soon")
    assert caplog.messages == ["stopping soon"]

"""The progress bar where it cannot be redrawn."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from shapeguide.progress import ProgressBar


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

"""Durations as people write and read them."""

from __future__ import annotations

import pytest

from shapeguide.errors import ConfigError
from shapeguide.training.durations import in_words, seconds_of, written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m 15s", 5415),
        ("1.5H", 5400),
        ("90m", 5400),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "m", "-5m", "30m1h", "half an hour", "1:30", "0m", "1d", "99999h", "1e3s"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.349, "0.35 s"),
        (45.2, "45 s"),
        (719, "12 min"),
        (3900, "1 h 05 min"),
        (3599, "1 h 00 min"),
    ],
)
def test_durations_are_told_to_two_digits(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize("seconds", [0.2, 119.5, 120, 601, 3600, 5430])
def test_a_written_duration_is_read_as_no_less(seconds: float) -> None:
    assert seconds <= seconds_of(written(seconds)) < seconds + 60

"""Durations as people write them: `30m`, `1h30m`; nothing here loads torch."""

from __future__ import annotations

import re
from math import inf

from shapeguide.errors import ConfigError

SECONDS = {"h": 3600, "m": 60, "s": 1}
LONGEST_SECONDS = 365 * 24 * 3600
_WRITTEN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds_of(text: str) -> float:
    """Seconds of a duration such as `45s`, `30m`, `2h` or `1h30m`.

    Raises:
        ConfigError: If it does not read like that, or is nothing, or longer than a year.
    """
    found = _WRITTEN.fullmatch(text.strip().lower().replace(" ", ""))
    numbers = found.groups() if found else ()
    if not any(numbers):
        raise ConfigError(
            f"{text!r} is no duration; write hours, minutes and seconds with their letters, such "
            "as 45s, 30m, 2h or 1h30m"
        )
    seconds = sum(
        float(number) * unit
        for number, unit in zip(numbers, SECONDS.values(), strict=True)
        if number
    )
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ConfigError(f"{text!r} is no duration to train for: more than 0s, at most a year")
    return seconds


def in_words(seconds: float) -> str:
    """A duration, to about two digits: `0.35 s`, `45 s`, `12 min`, `1 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = inf if seconds == inf else round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def written(seconds: float) -> str:
    """A duration as `seconds_of` reads it, rounded up to whole minutes, or seconds below two."""
    if seconds < 120:
        return f"{-int(-seconds // 1)}s"
    minutes = -int(-seconds // 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest}m" if hours and rest else f"{hours}h" if hours else f"{rest}m"

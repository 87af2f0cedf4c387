"""Whose folder is this? What was noted in it, compared with what is asked for now."""

from __future__ import annotations

import json
from typing import Any


def differences_in_words(was: Any, now: Any, name: str = "") -> list[str]:
    """Where two nested contents differ, in words."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = [*was, *(key for key in now if key not in was)]
        return [
            difference
            for key in names
            for difference in differences_in_words(
                was.get(key), now.get(key), f"{name}.{key}".strip(".")
            )
        ]
    if was == now:
        return []
    return [f"{name} was {_short(was)}, is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
